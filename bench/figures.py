#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures the figures of bench/README.md, each by the command printed beside it.

    figures.py [--build FOLDER] [--dir FOLDER] [--pairs N] [--quick] [ROW ...]

Every ratio is the median of N pairs that ran in turns, with the 90 % interval of that median.
--dir says which file system is measured; a tmpfs measures memory. Rows that need fio are left out,
with the reason, where there is none. Prints a table in Markdown, and writes figures.json.
"""

import argparse
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import tempfile

ROWS = []


def row(name, target):
    def add(function):
        ROWS.append((name, target, function))
        return function
    return add


class Bench:
    """Where things are, and how they are run."""

    def __init__(self, build, folder, pairs, quick):
        self.build, self.folder, self.pairs, self.quick = build, folder, pairs, quick
        self.count = 512 if quick else 1024

    def run(self, *command):
        print("    $", " ".join(shlex.quote(str(c)) for c in command), file=sys.stderr)
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip() or f"{command[0]}: {done.returncode}")
        return json.loads(done.stdout)

    def fresh(self):
        for name in os.listdir(self.folder):
            path = os.path.join(self.folder, name)
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
        return os.path.join(self.folder, "kv")

    def cairn(self, *arguments):
        return self.run(os.path.join(self.build, "cairn"), *arguments, "--json")

    def posix(self, extra="", front=""):
        return f"{front}posix(path={self.fresh()}{extra})"

    def move(self, op, block, extra="", front="", **more):
        count = min(self.count, (1 << 30) // block)
        options = [x for k, v in more.items() for x in (f"--{k}", v)]
        return self.cairn("bench", self.posix(extra, front), "--op", op, "--block", block,
                          "--count", count, "--pairs", self.pairs, *options)


def interval(values):
    """The median, and the order statistics that hold it with 90 %."""
    values = sorted(values)
    n, tail, k = len(values), 0.0, 0
    while k < n // 2 and tail + math.comb(n, k) / 2**n <= 0.05:
        tail += math.comb(n, k) / 2**n
        k += 1
    k = max(k - 1, 0)
    middle = values[n // 2] if n % 2 else (values[n // 2 - 1] + values[n // 2]) / 2
    return middle, values[k], values[n - 1 - k]


def ratio_text(result, unit="x"):
    return (f"{result['ratio']:.2f}{unit} [{result['ratio_lo']:.2f}, {result['ratio_hi']:.2f}], "
            f"{result['bytes_per_s'] / 1e9:.2f} against {result['bare']['bytes_per_s'] / 1e9:.2f} "
            f"GB/s, {result['cpu_s_per_gb']:.2f} core-s/GB")


for _op in ("load", "dump"):
    for _size, _block in (("256 KiB", 262144), ("2 MiB", 2097152)):
        for _engine in ("", "aio"):
            def measure(b, op=_op, block=_block, engine=_engine):
                front = f"store(engine={engine}) | " if engine else ""
                return ratio_text(b.move(op, block, front=front, depth=32))
            _rest = ", without io_uring" if _engine else ""
            row(f"{_op} {_size}, depth 32, against the same work bare{_rest}",
                ">= 0.95" if not _engine else ">= 0.9 of the ring's")(measure)


def fio_once(b, rw, block):
    target = os.path.join(b.folder, "fio")
    result = b.run("fio", "--name=f", f"--filename={target}", "--size=1g", f"--rw={rw}",
                   f"--bs={block}", "--ioengine=io_uring", "--iodepth=32", "--thread",
                   "--direct=1", "--runtime=2", "--time_based", "--norandommap",
                   "--randrepeat=0", "--fixedbufs=1", "--registerfiles=1",
                   "--output-format=json")
    side = result["jobs"][0]["read" if "read" in rw else "write"]
    return side["bw_bytes"]


for _op, _rw in (("load", "randread"), ("dump", "write")):
    for _size, _block in (("256 KiB", 262144), ("2 MiB", 2097152)):
        def measure_fio(b, op=_op, rw=_rw, block=_block):
            if not shutil.which("fio"):
                return "left out: fio is not installed"
            pipeline, ratios = b.posix(), []
            for _ in range(b.pairs):
                theirs = fio_once(b, rw, block)
                ours = b.cairn("bench", pipeline, "--op", op, "--block", block, "--count",
                               min(b.count, (1 << 30) // block), "--pairs", 1, "--depth", 32)
                ratios.append(ours["bytes_per_s"] / theirs)
            return "%.2fx [%.2f, %.2f]" % interval(ratios)
        row(f"{_op} {_size}, depth 32, against fio {_rw}",
            ">= 0.95" if _op == "load" else "stated")(measure_fio)


@row("one 256 KiB load, not cached, 2 ms apart", "p50 <= 1.15 of pread's")
def one_load(b):
    result = b.move("load", 262144, spaced="2ms")
    return (f"{result['ratio_p50']:.2f}x, {result['p50_us']:.0f} against "
            f"{result['bare']['p50_us']:.0f} us")


@row("lookup_prefix of 1000 keys among 1 M blocks (tmpfs)", "<= 50 us")
def lookup(b):
    fill = 100000 if b.quick else 1000000
    folder = tempfile.mkdtemp(prefix="cairn-bench-", dir="/dev/shm")
    try:
        result = b.cairn("bench", f"posix(path={folder}/kv)", "--op", "lookup", "--block", 64,
                         "--count", 1000, "--fill", fill, "--pairs", b.pairs)
    finally:
        shutil.rmtree(folder)
    return f"{result['p50_us']:.1f} us p50 among {fill} blocks"


@row("lookup_prefix of 1000 keys, shared=yes", "<= 1.1 of serial faccessat()")
def lookup_shared(b):
    result = b.cairn("bench", b.posix(", shared=yes"), "--op", "lookup", "--block", 64, "--count",
                     1000, "--fill", 10000, "--pairs", b.pairs)
    return (f"{1 / result['ratio']:.2f}x [{1 / result['ratio_hi']:.2f}, "
            f"{1 / result['ratio_lo']:.2f}] the time")


def at_rest(b, blocks):
    return b.run(os.path.join(b.build, "bench", "at_rest"), b.posix(), blocks, 5)


@row("open, empty; idle", "<= 20 ms; 0.00 core")
def open_empty(b):
    r = at_rest(b, 0)
    return (f"{r['open_ms']:.1f} ms [{r['open_ms_min']:.1f}, {r['open_ms_max']:.1f}]; "
            f"{r['idle_cores']:.4f} core, {r['threads']} threads with the caller's")


@row("open, 100 k blocks", "<= 1 s")
def open_full(b):
    r = at_rest(b, 100000)
    return f"{r['open_ms']:.0f} ms [{r['open_ms_min']:.0f}, {r['open_ms_max']:.0f}]"


@row("replay, generated rag trace, 16 KiB blocks", "the disk's speed, or memory's")
def replay(b):
    r = b.cairn("replay", b.posix(), "--generate", "rag", "--seed", 1, "--block", "16KiB",
                "--limit", 400 if b.quick else 2000)
    return (f"{r['bytes_per_s'] / 1e6:.0f} MB/s, {r['hit_share'] * 100:.1f} % hits, "
            f"{r['cpu_seconds'] / r['seconds']:.2f} cores, {r['wrong_bytes']} wrong bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default="build-release")
    parser.add_argument("--dir", help="where to measure (default: a new folder here)")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="less data")
    parser.add_argument("row", nargs="*", help="words that a row's name must hold")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="bench-", dir=options.dir or ".")
    bench, results = Bench(options.build, os.path.abspath(folder), options.pairs,
                           options.quick), {}
    try:
        for name, target, function in ROWS:
            if not all(word in name for word in options.row):
                continue
            print(name, file=sys.stderr)
            try:
                results[name] = (target, function(bench))
            except (RuntimeError, OSError, ValueError, KeyError) as error:
                results[name] = (target, f"failed: {error}")
    finally:
        shutil.rmtree(folder)
    print("| work | to reach | measured |\n|---|---|---|")
    for name, (target, text) in results.items():
        print(f"| {name} | {target} | {text} |")
    with open("figures.json", "w") as out:
        json.dump(results, out, indent=1)


if __name__ == "__main__":
    main()
