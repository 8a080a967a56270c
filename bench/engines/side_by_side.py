#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cairn beside what somebody would take instead, by the same work: one table.

    side_by_side.py [--dir FOLDER] [--part speed|trouble] [--size 256KiB] [--bytes 128MiB]
                    [--rounds 9] [--only NAME,...]

    flash, posix           cairn's tiers, through LMCache's native_plugin
    flash-registered       the same by its type `plugin`, with LMCache's memory registered
    fs_native, -direct     LMCache's own L2 tier, through the page cache and around it
    localdisk, -direct     LMCache's disk back end of one process, likewise
    vllm-fs, vllm-flash    vLLM's own secondary tier, and cairn's CairnTier, by vLLM's calls
    rocksdb, -direct       RocksDB with blob files, by its C API, where it is installed

Each side is a process of its own that stays, with two threads for I/O where it lets one say so. A
round is a put of --bytes in new blocks and a get of those of the round before, of each side in
turn, who is first rotates; the file system is synced before each. Logs of flash were written over
before. Then lone gets and lookups. That is --part speed; --part trouble is a SIGKILL and a restart,
a get after a byte was flipped in each 16 KiB of the files, and a file system of 64 MiB (a tmpfs, as
root) that twice as much is put on. Engines come from tools/test-engines.sh; what cannot be had is
left out, and said.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "bench"))
import figures

MIB = 1 << 20
ROOM = 64 * MIB  # of the small file system
FULL_BLOCK = 2 * MIB  # of those that are put on it
LONE = 1024
FLIP_EVERY = 16 << 10
LARGE = 64 * MIB  # of a file of this size and more the first MiB is left alone
ENGINE = {  # side -> whose interpreter it needs
    "flash": "lmcache", "flash-registered": "lmcache", "posix": "lmcache", "fs_native": "lmcache",
    "fs_native-direct": "lmcache",
    "localdisk": "lmcache", "localdisk-direct": "lmcache", "vllm-fs": "vllm",
    "vllm-flash": "vllm", "rocksdb": "", "rocksdb-direct": "",
}


class Gone(Exception):
    """A side's process ended."""


class Process:
    """A side, by the lines of sides.py."""

    def __init__(self, options: argparse.Namespace, name: str, folder: str, size: int, count: int):
        os.makedirs(folder, exist_ok=True)
        environment = dict(os.environ, LMCACHE_TRACK_USAGE="false", HF_HUB_OFFLINE="1",
                           VLLM_NO_USAGE_STATS="1", VLLM_LOGGING_LEVEL="ERROR",
                           LMCACHE_LOG_LEVEL="ERROR", PYTHONPATH=options.package)
        if ENGINE[name]:
            command = [options.interpreters[ENGINE[name]], os.path.join(HERE, "sides.py"), name,
                       folder, str(size), str(count)]
        else:
            command = [options.rocks, os.path.join(folder, "kv"), str(size), str(count),
                       "direct" if name.endswith("direct") else "buffered"]
        self.log = open(os.path.join(options.logs, f"{name}-{size}.log"), "a")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.log, text=True, env=environment)
        self.name = name
        self.started: list[dict[str, Any]] = []

    @property
    def before(self) -> dict[str, Any]:
        """Usage before the open."""
        while len(self.started) < 2:
            self.started.append(self.read())
        return self.started[0]

    @property
    def opened(self) -> float:
        """Seconds that the open took."""
        return float(self.before and self.started[1]["opened"])

    def read(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            raise Gone(f"{self.name}: its process ended: {self.log.name}")
        return json.loads(line)

    def ask(self, *words: object) -> dict[str, Any]:
        assert self.before  # it is open
        try:
            self.process.stdin.write(" ".join(map(str, words)) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        return self.read()

    def quit(self) -> None:
        try:
            self.process.stdin.write("quit\n")
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.process.wait(120)
        self.log.close()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.log.close()


# ---- what is measured ---------------------------------------------------------------------------


def rest(options: argparse.Namespace) -> None:
    os.sync()
    time.sleep(options.rest)


def rounds(options: argparse.Namespace, sides: dict[str, Process], size: int, count: int) -> dict:
    """{(side, part): rates}: GB/s of put and get, CPU seconds a GB."""
    out: dict = {(name, part): [] for name in sides
                 for part in ("put", "get", "put_cpu", "get_cpu")}
    names = list(sides)
    gb = size * count / 1e9
    for side in sides.values():
        side.ask("fill", 0, 0)
    for turn in range(options.rounds + 1):
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            side = sides[name]
            rest(options)
            put = side.ask("put", turn * count, count)
            rest(options)
            got = side.ask("get", max(0, turn - 1) * count, count)
            if put["good"] != count or got["good"] != count:
                raise SystemExit(f"{name}: put {put}, get {got} of {count}")
            if turn == 0:
                continue  # the first touches what is new: memory, files, the log
            out[name, "put"].append(gb / put["seconds"])
            out[name, "get"].append(gb / got["seconds"])
            out[name, "put_cpu"].append(put["cpu"] / gb)
            out[name, "get_cpu"].append(got["cpu"] / gb)
    return out


def flip(folder: str, only: str = "") -> int:
    """A byte of each 16 KiB of every file, or of those whose names end so; how many. The first MiB
    of a large one is left alone: without what a log begins with it does not open, which says
    nothing of the payload."""
    flipped = 0
    for where, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            if not os.path.isfile(path) or os.path.islink(path) or not name.endswith(only):
                continue
            with open(path, "r+b", buffering=0) as file:
                size = os.path.getsize(path)
                first = MIB if size >= LARGE else 0
                for at in range(first + FLIP_EVERY // 2, size, FLIP_EVERY):
                    byte = os.pread(file.fileno(), 1, at)
                    os.pwrite(file.fileno(), bytes([byte[0] ^ 0x10]), at)
                    flipped += 1
                os.fsync(file.fileno())
    return flipped


def restarted(options: argparse.Namespace, name: str, folder: str, size: int, count: int) -> tuple:
    """({what a restart and the get after it gave}, the process)."""
    side = Process(options, name, folder, size, count)
    found = side.ask("lookup", 0, count)["found"]
    return {"ms": side.opened * 1e3, "found": found}, side


def damaged(options: argparse.Namespace, name: str, folder: str, size: int, count: int,
            kept: bool) -> dict:
    """Flips bytes of a store at rest; where a restart forgets what is in it, of an open one. Of
    RocksDB's files only those of blobs: with one of its tables of keys damaged it does not open."""
    only = ".blob" if name.startswith("rocksdb") else ""
    try:
        if kept and not flip(folder, only):
            raise SystemExit(f"{name}: nothing to damage in {folder}")
        side = Process(options, name, folder, size, count)
        if not kept:
            side.ask("put", 0, count)
            flip(folder)
        got = side.ask("get", 0, count)
        side.quit()
        return got
    except Gone:
        return {"refused": True}


def on_a_full_disk(options: argparse.Namespace, name: str) -> dict:
    """Puts twice what fits, a block each; what is then there, and right."""
    size, count = FULL_BLOCK, 2 * ROOM // FULL_BLOCK
    folder = os.path.join(options.folder, f"full-{name}")
    os.makedirs(folder)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True).returncode:
        return {"skipped": True}
    try:
        side = Process(options, name, os.path.join(folder, "s"), size, count)
        put = [side.ask("put", i, 1)["good"] for i in range(count)]
        got = side.ask("get", 0, count)
        side.quit()
        return {"said_good": sum(put), **got}
    except Gone:
        return {"ended": True}
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def alone(sides: dict[str, Process], turns: int, count: int) -> dict:
    """{side: figures} of what each does by itself, after the rounds."""
    out: dict = {}
    for name, side in sides.items():
        out[name] = {
            "lone": sorted(us for _ in range(-(-LONE // count))
                           for us in side.ask("lone", (turns - 1) * count, count)["us"]),
            "lookup_us": side.ask("lookup", (turns - 1) * count, count)["us"],
            "memory": side.ask("usage")["rss"] - side.before["rss"],
        }
    return out


def trouble(options: argparse.Namespace, names: list[str], size: int, count: int) -> dict:
    """{side: what comes of a SIGKILL, of damage and of a full disk}."""
    out: dict = {}
    for name in names:
        folder = os.path.join(options.folder, f"{name}-{size}")
        side = Process(options, name, folder, size, count)
        side.ask("put", 0, count)
        side.kill()
        again, side = restarted(options, name, folder, size, count)
        side.quit()
        out[name] = {
            "restart": again,
            "flipped": damaged(options, name, folder, size, count, bool(again["found"])),
            "full": on_a_full_disk(options, name),
        }
    return out


# ---- the table -----------------------------------------------------------------------------------


def cell(values: list, digits: int = 2) -> str:
    middle, low, high = figures.interval(values)
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def told_flipped(got: dict, count: int) -> str:
    if got.get("refused"):
        return "does not open"
    wrong = f"**{got['wrong']} wrong**" if got["wrong"] else "0 wrong"
    return f"{wrong}, {got['missing']} misses of {count}"


def told_full(got: dict, count: int) -> str:
    if got.get("skipped"):
        return "not run"
    if got.get("ended"):
        return "its process ended"
    wrong = f", **{got['wrong']} wrong**" if got["wrong"] else ""
    return f"{got['said_good']} of {count} taken; {got['good']} are there{wrong}"


def speed_table(size: int, count: int, speed: dict, own: dict) -> None:
    print(f"\n{size >> 10} KiB, {count} blocks a round:\n")
    print("| side | put, GB/s | get, GB/s | lone get, p50 / p99 us | lookup, us a key "
          "| CPU s a GB, put / get | memory, MiB |")
    print("|---|---|---|---|---|---|---|")
    for name, figure in own.items():
        lone = figure["lone"]
        print(f"| {name} | {cell(speed[name, 'put'])} | {cell(speed[name, 'get'])} "
              f"| {lone[len(lone) // 2]:.0f} / {lone[len(lone) * 99 // 100]:.0f} "
              f"| {figure['lookup_us']:.1f} "
              f"| {figures.interval(speed[name, 'put_cpu'])[0]:.2f} / "
              f"{figures.interval(speed[name, 'get_cpu'])[0]:.2f} "
              f"| {figure['memory'] / MIB:.0f} |", flush=True)


def trouble_table(size: int, count: int, own: dict) -> None:
    print(f"\n{count} blocks of {size >> 10} KiB:\n")
    print("| side | restart after SIGKILL | a byte flipped in each 16 KiB | a full disk |")
    print("|---|---|---|---|")
    for name, figure in own.items():
        again = figure["restart"]
        print(f"| {name} | {again['ms']:.0f} ms, {again['found']} of {count} there "
              f"| {told_flipped(figure['flipped'], count)} "
              f"| {told_full(figure['full'], 2 * ROOM // FULL_BLOCK)} |", flush=True)


def interpreter(engine: str) -> str:
    """Of the engine's environment; empty: it cannot be had."""
    run = subprocess.run([os.path.join(ROOT, "tools", "test-engines.sh"), "--env", engine],
                         capture_output=True, text=True)
    last = run.stdout.strip().splitlines()[-1:] or [""]
    return last[0] if os.access(last[0], os.X_OK) else ""


def choose(options: argparse.Namespace) -> list[str]:
    names = options.only.split(",") if options.only else list(ENGINE)
    options.interpreters = {engine: interpreter(engine)
                            for engine in sorted({ENGINE[name] for name in names} - {""})}
    chosen = []
    for name in names:
        engine = ENGINE[name]
        if options.interpreters[engine] if engine else os.access(options.rocks, os.X_OK):
            chosen.append(name)
        else:
            print(f"left out: {name}, {ENGINE[name] or options.rocks} cannot be had",
                  file=sys.stderr)
    return chosen


def bytes_of(text: str) -> int:
    for unit, factor in (("KiB", 1 << 10), ("MiB", MIB), ("GiB", 1 << 30)):
        if text.endswith(unit):
            return int(float(text[:-3]) * factor)
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", help="the file system; default: the build folder")
    parser.add_argument("--build", default=os.path.join(ROOT, "build-release"))
    parser.add_argument("--size", type=bytes_of, help="of a block; default: 256KiB, then 2MiB")
    parser.add_argument("--part", default="speed,trouble", help="one of them")
    parser.add_argument("--bytes", type=bytes_of, default=128 * MIB, help="of a round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rest", type=float, default=0.2, help="seconds before each part")
    parser.add_argument("--only", help="sides, separated by commas")
    parser.add_argument("--json")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # folders go then, too
    options.package = os.path.join(options.build, "python")
    options.logs = os.path.join(options.build, "logs")
    os.makedirs(options.logs, exist_ok=True)
    options.rocks = os.path.join(options.build, "bench", "engines", "rocks")
    names = choose(options)
    results = []
    sizes = [options.size] if options.size else [256 << 10, 2 << 20]
    for part, size in [(part, size) for part in options.part.split(",") for size in sizes]:
        options.folder = tempfile.mkdtemp(prefix="bench-sides-", dir=options.dir or options.build)
        try:
            results.append(measure(options, part, names, size))
        finally:
            shutil.rmtree(options.folder, ignore_errors=True)
        if part == "trouble":
            break  # what comes of it does not depend on the size
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=1)


def measure(options: argparse.Namespace, part: str, names: list[str], size: int) -> dict:
    count = options.bytes // size
    if part == "trouble":
        own = trouble(options, names, size, count)
        trouble_table(size, count, own)
        return {"part": part, "size": size, "own": own}
    sides = {name: Process(options, name, os.path.join(options.folder, f"{name}-{size}"), size,
                           count) for name in names}
    speed = rounds(options, sides, size, count)
    own = alone(sides, options.rounds + 1, count)
    for side in sides.values():
        side.quit()
    speed_table(size, count, speed, own)
    return {"part": part, "size": size, "own": own,
            "speed": {f"{name} {what}": values for (name, what), values in speed.items()}}


if __name__ == "__main__":
    main()
