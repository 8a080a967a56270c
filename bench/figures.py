#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures the figures of bench/README.md, and prints them with the commands that did it.

    figures.py [--build FOLDER] [--dir FOLDER] [--group NAME] [--only-fast] [ROW ...]

A figure is the median of at least nine pairs that ran in turns in one run (or of nine runs, where
there is no pair) with the 90 % interval of that median. It is reached or missed by its median, and
unresolved if the interval spans more than 0.10 (of a ratio up to 1) or 10 % of the median (of other
figures). --dir says which file system is measured; a tmpfs measures memory. ROW: words that a row's
name or its short name must hold; --list shows both.
"""

import argparse
import gzip
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

import figures_cache

GIB = 1 << 30
KIB = 1 << 10
PAIRS = 9  # the least that gives a median an interval worth the name
RING_SHARE = 0.9  # of a figure, without io_uring
SIZES = (("256k", "256 KiB", 256 * KIB), ("2m", "2 MiB", 2048 * KIB))
LOG_SPANS = 4  # the file of a flash tier is so many times what a run moves
ENGINES = ("aio", "psync")  # what there is where io_uring is forbidden
HITS = {"conversation": (105710, 288500), "synthetic": (77953, 121877)}


# ---- the rule --------------------------------------------------------------------


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


class Target:
    """What a figure has to reach: ">=" or "<=" a limit, of a ratio (unit "x") or absolute."""

    def __init__(self, sign, limit, unit="x", digits=2):
        self.sign, self.limit, self.unit, self.digits = sign, limit, unit, digits

    def __str__(self):
        return f"{self.sign} {self.limit:.{self.digits}f}{'' if self.unit == 'x' else ' '}" \
               f"{self.unit}"

    def met_by(self, value):
        return value >= self.limit if self.sign == ">=" else value <= self.limit

    def without_ring(self):
        """What is asked for where io_uring is forbidden."""
        share = RING_SHARE if self.sign == ">=" else 1 / RING_SHARE
        return Target(self.sign, self.limit * share, self.unit, self.digits)


def verdict(target, middle, low, high):
    if target is None:
        return "stated"
    of_one = target.unit == "x" and middle <= 1
    if high - low > (0.10 if of_one else 0.10 * middle):
        if target.met_by(low) and target.met_by(high):
            return "unresolved (the whole interval meets it)"
        return f"unresolved (the median {'meets' if target.met_by(middle) else 'misses'} it)"
    return "reached" if target.met_by(middle) else "missed"


class Figure:
    """What a row returns: values of which the interval is taken, or the interval itself."""

    def __init__(self, values=None, known=None, more="", digits=2):
        self.interval = known or interval(values)
        self.more, self.digits = more, digits

    def text(self, unit):
        middle, low, high = (f"{v:.{self.digits}f}" for v in self.interval)
        gap = "" if unit == "x" else " "
        return f"{middle}{gap}{unit} [{low}, {high}]{self.more and '; ' + self.more}"


class Counted:
    """What a row returns that has no interval: exact counts, or a program's own median."""

    def __init__(self, text, good=None):
        self.words, self.good = text, good


class LeftOut(Exception):
    pass


# ---- rows ------------------------------------------------------------------------

ROWS = []


class Row:
    def __init__(self, short, name, target, function, group, slow, unit):
        self.short, self.name, self.function = short, name, function
        self.target = target  # a Target; words, of a row that is Counted; None: stated
        self.group, self.slow, self.unit = group, slow, unit

    def measure(self, bench):
        """The cells of the table behind the name: to reach, measured, verdict, commands."""
        reach = str(self.target or "stated")
        bench.commands = []
        try:
            result = self.function(bench)
            if isinstance(result, Counted):
                how = {None: "stated", True: "reached", False: "missed"}[result.good]
                cells = [reach, result.words, how]
            else:
                unit = self.target.unit if self.target else self.unit
                cells = [reach, result.text(unit), verdict(self.target, *result.interval)]
        except LeftOut as reason:
            cells = [reach, "", f"left out: {reason}"]
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            cells = [reach, "", f"failed: {error}"]
        return cells + ["<br>".join(f"`{c}`" for c in dict.fromkeys(bench.commands))]


def row(short, name, target=None, group="posix", slow=False, unit="x"):
    def add(function):
        ROWS.append(Row(short, name, target, function, group, slow, unit))
        return function
    return add


def engine_rows(short, name, target, **more):
    """A row with io_uring and one for each engine without; function(bench, front, engine)."""
    def add(function):
        row(short, name, target, **more)(lambda b: function(b, "", ""))
        for engine in ENGINES:
            def other(b, engine=engine):
                return function(b, f"store(engine={engine}) | ", engine)
            row(f"{short}-{engine}", f"{name}, without io_uring ({engine})",
                target and target.without_ring(), **more)(other)
        return function
    return add


def memory_of(pipeline):
    """Options of a bench: the rows of the posix stage are of memory that is not registered."""
    return ("--registered", "no") if "posix(" in pipeline else ()


class Bench:
    """Where things are, and how they are run."""

    def __init__(self, options, folder):
        self.build, self.folder, self.pairs = options.build, folder, options.pairs
        self.traces, self.quick = options.traces, options.quick
        self.bytes = GIB // 8 if self.quick else GIB  # that a side moves in a run
        while self.bytes > GIB // 16 and shutil.disk_usage(folder).free < 24 * self.bytes:
            self.bytes //= 2
        self.commands, self.cache, self.stores = [], {}, 0

    def program(self, *name):
        return os.path.join(self.build, *name)

    def note(self, command):
        """For the table: folders are D, programs are on the path."""
        text = " ".join(shlex.quote(str(c)) for c in command)
        print("    $", text, file=sys.stderr)
        text = re.sub(re.escape(self.folder) + r"(/\d+(?=/))?", "D", text)
        text = text.replace(os.path.join(self.build, ""), "")
        self.commands.append(text.replace("|", "\\|"))

    def run(self, *command, stdin=None):
        self.note(command)
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True,
                              input=stdin)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip() or f"{command[0]}: {done.returncode}")
        return json.loads(done.stdout)

    def cairn(self, *arguments):
        more = memory_of(arguments[1]) if arguments[0] == "bench" else ()
        return self.run(self.program("cairn"), *arguments, *more, "--json")

    def once(self, key, function):
        """What several rows take their figures from is measured once."""
        if key not in self.cache:
            before = len(self.commands)
            self.cache[key] = function(), self.commands[before:]
        result, commands = self.cache[key]
        self.commands = list(dict.fromkeys(self.commands + commands))
        return result

    def fresh(self, name="kv"):
        """A path for a new store; old ones stay, since ext4 passes over what was just freed."""
        self.stores += 1
        return os.path.join(self.folder, str(self.stores), name)

    def posix(self, front="", extra="", name="kv"):
        path = self.fresh(name)
        os.mkdir(os.path.dirname(path))
        return f"{front}posix(path={path}{extra})"

    def flash(self, engine=""):
        """A pipeline whose file is made once, and written over once: as one in use is."""
        path = os.path.join(self.folder, f"flash{engine}")
        front = f"store(engine={engine}) | " if engine else ""
        spec = f"{front}flash(path={path}, size={LOG_SPANS * self.bytes // (KIB * KIB)}MiB)"
        if not os.path.exists(path):
            print("    a file that has been written over once", file=sys.stderr)
            commands = list(self.commands)
            turns = Turns(self, spec, "dump", 2048 * KIB, self.bytes, "--durability", "written",
                          pairs=6)
            for _ in range(6):
                turns.step()
            turns.end()
            self.commands = commands
        return spec

    def has_flash(self):
        done = subprocess.run([self.program("cairn"), "stages", "flash"], capture_output=True)
        return done.returncode == 0


class Turns:
    """A bench of cairn that stays open and runs when it is told to."""

    def __init__(self, bench, pipeline, op, block, total, *options, pairs=None):
        command = [bench.program("cairn"), "bench", pipeline, "--op", op, "--block", block,
                   "--count", max(total // block, 1), "--pairs", pairs or bench.pairs,
                   *memory_of(pipeline), *options, "--turns", "--json"]
        bench.note(command)
        self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.read()  # it has opened, filled and warmed up

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(self.process.communicate()[1].strip() or "cairn bench ended")
        return json.loads(line)

    def step(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.read()

    def end(self):
        """Lets it remove what it made, also when it was not asked for all its runs."""
        self.process.communicate()


class Fio:
    """fio, which moves @total bytes in each run, of a file of @spans times as much.

    The next run goes on where the last one ended, and over the end to the beginning.
    """

    def __init__(self, bench, mode, block, total, spans=1):
        if not shutil.which("fio"):
            raise LeftOut("fio is not installed")
        self.bench, self.side = bench, "read" if "read" in mode else "write"
        self.total, self.spans, self.turn = total, spans, 0
        path = os.path.join(bench.folder, "fio" if spans == 1 else "fio-log")
        self.command = ["fio", "--name=f", f"--filename={path}", f"--size={total}",
                        f"--rw={mode}", f"--bs={block}", "--ioengine=io_uring", "--iodepth=32",
                        "--thread", "--direct=1", "--norandommap", "--randrepeat=0",
                        "--fixedbufs=1", "--registerfiles=1", "--output-format=json"]
        if not os.path.exists(path) or os.stat(path).st_size != spans * total:
            subprocess.run([*self.command[:3], f"--size={spans * total}", "--rw=write", "--bs=2m",
                            "--direct=1"],
                           capture_output=True, check=False)  # what is moved has been written
        self.step()

    def step(self):
        at = [f"--offset={self.turn * self.total}"] if self.spans > 1 else []
        self.turn = (self.turn + 1) % self.spans
        side = self.bench.run(*self.command, *at)["jobs"][0][self.side]
        return {"bytes_per_s": side["bw_bytes"], "ops_per_s": side["iops"]}

    def end(self):
        pass


def take_turns(bench, ours, theirs, what="bytes_per_s"):
    """Ratios of ours over theirs; who is first changes. Both figures' medians too."""
    mine, other = [], []
    try:
        for pair in range(bench.pairs):
            for side in ((ours, mine), (theirs, other))[::-1 if pair % 2 else 1]:
                os.sync()  # nobody pays for what the other has left to write
                side[1].append(side[0].step()[what])
    finally:
        ours.end()
        theirs.end()
    return [m / o for m, o in zip(mine, other)], interval(mine)[0], interval(other)[0]


def gb(ours, theirs):
    return f"{ours / 1e9:.2f} against {theirs / 1e9:.2f} GB/s"


def turns_figure(bench, ours, theirs, what="bytes_per_s"):
    ratios, mine, other = take_turns(bench, ours, theirs, what)
    words = gb(mine, other) if what == "bytes_per_s" else \
        f"{mine / 1e3:.1f} k against {other / 1e3:.1f} k a second"
    return Figure(ratios, more=words)


def p50_figure(bench, pipeline):
    """One 256 KiB load at a time against the same pread."""
    r = bench.cairn("bench", pipeline, "--op", "load", "--block", 256 * KIB, "--count", 200,
                    "--spaced", "2ms", "--pairs", bench.pairs)
    return Figure(known=(r["ratio_p50"], r["ratio_p50_lo"], r["ratio_p50_hi"]),
                  more=f"{r['p50_us']:.0f} against {r['bare']['p50_us']:.0f} us")


# ---- posix -----------------------------------------------------------------------


def block_rows():
    for op, mode in (("load", "randread"), ("dump", "write")):
        for size, words, block in SIZES:
            posix_rows(op, mode, size, words, block)


def posix_rows(op, mode, size, words, block):
    def bare(b):
        total = b.bytes if op == "load" else b.bytes // 2
        r = b.cairn("bench", b.posix(), "--op", op, "--block", block, "--count", total // block,
                    "--depth", 32, "--pairs", b.pairs)
        more = gb(r["bytes_per_s"], r["bare"]["bytes_per_s"])
        return Figure(known=(r["ratio"], r["ratio_lo"], r["ratio_hi"]),
                      more=f"{more}, {r['cpu_s_per_gb']:.2f} core-s/GB")

    def fio(b):
        theirs = Fio(b, mode, block, b.bytes)
        return turns_figure(b, Turns(b, b.posix(), op, block, b.bytes, "--depth", 32), theirs)

    def without(b):
        total = b.bytes // 2 if op == "load" else b.bytes // 4
        front = "store(engine=aio) | "
        ours = Turns(b, b.posix(front, name="kv-aio"), op, block, total, "--depth", 32)
        ring = Turns(b, b.posix("store(engine=uring) | "), op, block, total, "--depth", 32)
        return turns_figure(b, ours, ring)

    name, slow = f"{op} {words}, depth 32", op == "dump"
    row(f"{op}-{size}", f"{name}, against the same work bare", Target(">=", 0.95),
        slow=slow)(bare)
    row(f"{op}-{size}-fio", f"{name}, against fio {mode}",
        Target(">=", 0.95) if op == "load" else None, slow=slow)(fio)
    row(f"{op}-{size}-aio", f"{name}, without io_uring (aio), against the ring",
        Target(">=", RING_SHARE), slow=slow)(without)


block_rows()


@engine_rows("lone", "one 256 KiB load, not cached, 2 ms apart, against pread; p50",
             Target("<=", 1.15))
def lone(b, front, _):
    return p50_figure(b, b.posix(front))


@engine_rows("lookup", "lookup_prefix of 1000 keys among 1 M blocks (tmpfs), p50",
             Target("<=", 50, "us", 1), slow=True)
def lookup(b, front, _):
    fill = 10000 if b.quick else 1000000
    folder = tempfile.mkdtemp(prefix="cairn-bench-", dir="/dev/shm")
    try:
        r = b.cairn("bench", f"{front}posix(path={folder}/kv)", "--op", "lookup", "--block", 64,
                    "--count", 1000, "--fill", fill, "--pairs", b.pairs)
    finally:
        shutil.rmtree(folder)
        b.commands = [c.replace(folder, "/dev/shm/D") for c in b.commands]
    return Figure([run["p50_us"] for run in r["runs"]], more=f"{fill} blocks", digits=1)


@engine_rows("lookup-shared", "lookup_prefix of 1000 keys, shared=yes, against serial faccessat",
             Target("<=", 1.1))
def lookup_shared(b, front, _):
    r = b.cairn("bench", b.posix(front, ", shared=yes"), "--op", "lookup", "--block", 64,
                "--count", 1000, "--fill", 10000, "--pairs", b.pairs)
    return Figure(known=(1 / r["ratio"], 1 / r["ratio_hi"], 1 / r["ratio_lo"]), more="the time")


def at_rest(b, front, engine, blocks):
    """Blocks are dumped by the first engine that is asked, and found by the others."""
    spec = f"{front}posix(path={os.path.join(b.folder, 'full')})" if blocks else b.posix(front)
    return b.once(("rest", engine, blocks), lambda: b.run(
        b.program("bench", "at_rest"), spec, blocks, 0 if blocks else 1000))


@engine_rows("open-empty", "open, empty", Target("<=", 20, "ms", 1))
def open_empty(b, front, engine):
    return Figure(at_rest(b, front, engine, 0)["open_ms"], digits=1)


@engine_rows("open-100k", "open, 100 k blocks", Target("<=", 1000, "ms", 0), slow=True)
def open_full(b, front, engine):
    return Figure(at_rest(b, front, engine, 1000 if b.quick else 100000)["open_ms"], digits=0)


@engine_rows("idle", "idle, open and empty", Target("<=", 0, "core"))
def idle(b, front, engine):
    r = at_rest(b, front, engine, 0)
    most = max(r["idle_cores"])
    return Figure([round(c, 2) for c in r["idle_cores"]],  # 0.00 is what is asked for
                  more=f"at most {most:.4f}; {r['threads']} threads with the caller's")


def replays(b):
    """Runs of every engine in turns."""
    fronts, runs = ("", *(f"store(engine={e}) | " for e in ENGINES)), {}
    for turn in range(b.pairs):
        for i in range(len(fronts)):
            front = fronts[(turn + i) % len(fronts)]
            spec = b.posix(front)
            os.sync()
            r = b.cairn("replay", spec, "--generate", "rag", "--seed", 1, "--block", "16KiB",
                        "--limit", 100 if b.quick else 500)
            if r["wrong_bytes"]:
                raise RuntimeError(f"{r['wrong_bytes']} wrong bytes")
            runs.setdefault(front, []).append(r)
    return {front.partition("=")[2].partition(")")[0]: them for front, them in runs.items()}


def binds(runs):
    cores = interval([r["cpu_seconds"] / r["seconds"] for r in runs])[0]
    return f"{cores:.2f} cores of one client's: the {'CPU' if cores > 0.8 else 'disk'} binds"


@row("replay", "replay, generated rag trace, 16 KiB blocks", slow=True, unit="MB/s")
def replay(b):
    runs = b.once("replays", lambda: replays(b))[""]
    more = f"{runs[0]['hit_share'] * 100:.1f} % hits, 0 wrong bytes, {binds(runs)}"
    return Figure([r["bytes_per_s"] / 1e6 for r in runs], more=more, digits=0)


for _engine in ENGINES:
    @row(f"replay-{_engine}", f"the same replay without io_uring ({_engine}), against the ring",
         Target(">=", RING_SHARE), slow=True)
    def replay_without(b, engine=_engine):
        runs = b.once("replays", lambda: replays(b))
        return Figure([mine["bytes_per_s"] / ring["bytes_per_s"]
                       for mine, ring in zip(runs[engine], runs[""])], more=binds(runs[engine]))


# ---- the main job ----------------------------------------------------------------


def trace_of(b, name):
    if not b.traces:
        raise LeftOut("--traces says where the traces are")
    path = os.path.join(b.traces, f"{name}_trace.jsonl.gz")
    if not os.path.exists(path):
        raise LeftOut(f"there is no {name}_trace.jsonl.gz")
    return path


for _name in HITS:
    @row(f"main-{_name}", f"the {_name} trace, unbounded, 16 KiB blocks: leading hits",
         f"{HITS[_name][0]:,}, 0 wrong bytes", group="main", slow=True)
    def main_job(b, name=_name):
        path = trace_of(b, name)
        r = b.cairn("replay", b.posix(), "--trace", path, "--block", "16KiB")
        b.commands = [c.replace(os.path.dirname(path), "TRACES") for c in b.commands]
        good = (r["blocks_hit"], r["blocks"]) == HITS[name] and not r["wrong_bytes"]
        return Counted(f"{r['blocks_hit']:,} of {r['blocks']:,} ({r['hit_share'] * 100:.1f} %), "
                       f"{r['wrong_bytes']} wrong bytes; once: {r['bytes_per_s'] / 1e6:.0f} MB/s, "
                       f"{binds([r])}", good)


# ---- flash -----------------------------------------------------------------------


def flash_blocks(op, mode, size, words, block):
    more = ("--durability", "written") if op == "dump" else ()

    def fio(b):
        ours = Turns(b, b.flash(), op, block, b.bytes, "--depth", 32, *more)
        # Dumps go on through all of the log; so does fio, through a file as large.
        return turns_figure(b, ours, Fio(b, mode, block, b.bytes, LOG_SPANS if op == "dump" else 1))

    def without(b):
        total = b.bytes // 4
        ours = Turns(b, b.flash("aio"), op, block, total, "--depth", 32, *more)
        return turns_figure(b, ours, Turns(b, b.flash(), op, block, total, "--depth", 32, *more))

    name = f"flash {op} {words}, depth 32"
    row(f"flash-{op}-{size}", f"{name}, against fio {mode}",
        Target(">=", 0.97 if op == "load" else 0.95), group="flash")(fio)
    if op == "load":
        def copied(b):
            ours = Turns(b, b.flash(), op, block, b.bytes, "--depth", 32, "--registered", "no")
            return turns_figure(b, ours, Fio(b, mode, block, b.bytes))

        row(f"flash-{op}-{size}-copied", f"{name}, not registered, against fio {mode}",
            Target(">=", 0.97), group="flash")(copied)
    row(f"flash-{op}-{size}-aio", f"{name}, without io_uring (aio), against the ring",
        Target(">=", RING_SHARE), group="flash", slow=True)(without)


for _op, _mode in (("dump", "write"), ("load", "randread")):
    for _size in SIZES:
        flash_blocks(_op, _mode, *_size)


@row("flash-lone", "flash, one 256 KiB load, 2 ms apart, against pread; p50", Target("<=", 1.1),
     group="flash")
def flash_lone(b):
    return p50_figure(b, b.flash())


@row("flash-4k", "flash load 4 KiB, depth 32, against fio randread on one thread; a second",
     Target(">=", 0.9), group="flash", slow=True)
def flash_small(b):
    ours = Turns(b, b.flash(), "load", 4 * KIB, b.bytes // 8, "--depth", 32)
    return turns_figure(b, ours, Fio(b, "randread", 4 * KIB, b.bytes // 8), "ops_per_s")


@row("flash-reopen", "flash, open after a kill, 1 M records of 512 bytes",
     Target("<=", 200, "ms", 0), group="flash", slow=True)
def flash_reopen(b):
    blocks = 10000 if b.quick else 1000000
    path = os.path.join(b.folder, "killed")
    spec = f"flash(path={path}, size={max(2 * blocks, 65536) // KIB}MiB, entries={2 * blocks})"
    try:
        r = b.run(b.program("bench", "at_rest"), "--killed", spec, blocks, 512)
    finally:
        if os.path.exists(path):
            os.unlink(path)
    if r["found"] < blocks:
        raise RuntimeError(f"{r['found']} of {blocks} blocks were still there")
    return Figure(r["open_ms"], more=f"{r['found']} blocks found after nine kills", digits=0)


@row("flash-p99", "flash, P99 of 256 KiB loads at depth 4, with dumps at depth 32 beside them, "
     "against without", Target("<=", 3), group="flash")
def flash_beside(b):
    blocks = b.bytes // 2 // (256 * KIB)
    r = b.run(b.program("bench", "beside"), b.flash(), blocks, blocks, b.pairs)
    alone, beside, alone_p90, beside_p90 = (interval(r[f"{side}_{p}_us"])[0]
                                            for p in ("p99", "p90")
                                            for side in ("alone", "beside"))
    return Figure([w / a for w, a in zip(r["beside_p99_us"], r["alone_p99_us"])],
                  more=f"{beside:.0f} against {alone:.0f} us, P90 {beside_p90:.0f} against "
                       f"{alone_p90:.0f}, beside "
                       f"{r['dumped_bytes_per_s'] / 1e9:.2f} GB/s of dumps, "
                       f"{r['missed']} loads missed, {r['refused']} dumps refused")


for _short, _words, _registered in (("", "", "yes"), ("-copied", ", not registered", "no")):
    @row("flash-cpu" + _short, f"flash load 256 KiB{_words}, depth 32: CPU",
         None if _short else Target("<=", 0.15, "core-s/GB"), group="flash", unit="core-s/GB")
    def flash_cpu(b, registered=_registered):
        turns = Turns(b, b.flash(), "load", 256 * KIB, b.bytes, "--depth", 32, "--registered",
                      registered)
        try:
            runs = [turns.step() for _ in range(b.pairs)]
        finally:
            turns.end()
        return Figure([run["cpu_s_per_gb"] for run in runs],
                      more=f"{interval([run['bytes_per_s'] for run in runs])[0] / 1e9:.2f} GB/s",
                      digits=3)


def flash_alone(b, name, *arguments, stdin=None):
    """A program that links the stage's parts."""
    program = b.program("bench", name)
    if not os.path.exists(program):
        raise LeftOut(f"no {name} in this build")
    return b.run(program, *arguments, stdin=stdin)


for _shards, _words, _most in ((1, "one-shard blocks", 48), (64, "blocks of 64 shards", 12)):
    @row(f"flash-table-{_shards}", f"flash's index alone, 1000 keys among 10 M {_words}, p50",
         f"<= 40 us, <= {_most} bytes", group="flash", slow=True)
    def flash_table(b, shards=_shards, most=_most):
        r = flash_alone(b, "flash_table", 1000000 if b.quick else 10000000, shards)
        size = r["block_bytes"] if shards == 1 else r["shard_bytes"]
        return Counted(f"{r['lookup_us']:.1f} us, of 1001 rounds; {r['lookup_us_p99']:.1f} us p99; "
                       f"{size:.2f} bytes a {'block' if shards == 1 else 'further shard'}",
                       r["lookup_us"] <= 40 and size <= most)


for _name in HITS:
    for _regions in (64, 128, 256):
        @row(f"flash-policy-{_name}-{_regions}", f"flash's policy alone, {_name} trace at a "
             f"quarter of its footprint, {_regions} regions: write amplification",
             "<= 1.3 at >= 0.97 of LRU's hits, >= 85 % live", group="flash", slow=True)
        def flash_policy(b, name=_name, regions=_regions):
            with gzip.open(trace_of(b, name)) as lines:
                r = flash_alone(b, "flash_policy", regions, stdin=lines.read().decode())
            good = (r["write_amplification"] <= 1.3 and r["of_lru"] >= 0.97 and
                    r["live_share"] >= 0.85)
            return Counted(f"{r['write_amplification']:.2f} at {r['of_lru']:.3f} "
                           f"({r['hit_share'] * 100:.2f} % of {r['lru_hit_share'] * 100:.2f} %), "
                           f"{r['live_share'] * 100:.1f} % live", good)


def steady_amplification(r, size):
    """Bytes the device got for each byte dumped, once the file had been written over."""
    of = {name: r["counters"].get(f"flash.{name}_bytes", 0)
          for name in ("dump", "written", "carried", "other")}
    all_of_it = of["written"] + of["carried"] + of["other"]
    return (all_of_it - size) / (of["dump"] - size * of["dump"] / of["written"])


for _name, _block in (("conversation", 16), ("synthetic", 16), ("synthetic", 64)):
    @row(f"flash-replay-{_name}-{_block}k", f"flash, the {_name} trace in {_block} KiB blocks at "
         "a quarter of its footprint: write amplification",
         "<= 1.3 at >= 0.97 of LRU's hits, >= 85 % live", group="flash", slow=True)
    def flash_replay(b, name=_name, block=_block):
        path = trace_of(b, name)
        with gzip.open(path) as lines:
            lru = flash_alone(b, "flash_policy", 64, stdin=lines.read().decode())
        size = lru["capacity_blocks"] * block * KIB
        kept = os.path.join(b.folder, "replayed")
        try:
            r = b.cairn("replay", f"flash(path={kept}, size={size})", "--trace", path, "--block",
                        f"{block}KiB")
        finally:
            if os.path.exists(kept):
                os.unlink(kept)
        b.commands = [c.replace(os.path.dirname(path), "TRACES") for c in b.commands]
        amplification, share = steady_amplification(r, size), r["hit_share"] / lru["lru_hit_share"]
        live = r["counters"]["flash.bytes_used"] / size
        good = (amplification <= 1.3 and share >= 0.97 and live >= 0.85 and
                not r["wrong_bytes"] and not r["refused"])
        return Counted(f"{amplification:.2f} at {share:.3f} ({r['hit_share'] * 100:.2f} % of "
                       f"{lru['lru_hit_share'] * 100:.2f} %), {live * 100:.1f} % live, "
                       f"{r['wrong_bytes']} wrong bytes", good)


# ---- the command line ------------------------------------------------------------


# ---- the package ------------------------------------------------------------------


def python(b, *arguments):
    """What bench/python.py measures with the package of this build."""
    if not os.path.exists(b.program("python", "cairn", "_cairn.abi3.so")):
        raise LeftOut("no Python package in this build")
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "python.py")
    return b.run("env", f"PYTHONPATH={os.path.abspath(b.program('python'))}", "python3",
                 os.path.relpath(script), *arguments)


@row("python-lookup", "Python, lookup of one key that is there", Target("<=", 3, "us"),
     group="python")
def python_lookup(b):
    r = python(b, "call")
    more = {k: f"{interval(r[f'{k}_us'])[0]:.2f}" for k in ("absent", "lookup", "key")}
    return Figure(r["contains_us"], more=f"absent {more['absent']}, as a list of one "
                  f"{more['lookup']}, deriving a key {more['key']} us")


for _op in ("load", "dump"):
    @row(f"python-{_op}", f"Python, {_op} of 1024 x 256 KiB in one task, against the C API",
         Target(">=", 0.97), group="python")
    def python_batch(b, op=_op):
        r = python(b, op, b.program("bench", "batch"), "null(size=300MiB)", max(b.pairs, 31))
        c, ours = interval(r["c_s"])[0], interval(r["python_s"])[0]
        return Figure(r["ratio"], more=f"{ours * 1e3:.0f} against {c * 1e3:.0f} ms")


# What removes no file, or few, goes between the rows that make thousands, see Bench.fresh().
ORDER = """replay replay-aio replay-psync main-conversation main-synthetic dump-256k lookup dump-2m
    lookup-aio dump-256k-fio lookup-psync dump-2m-fio lone lone-aio lone-psync dump-256k-aio
    open-empty open-empty-aio open-empty-psync idle idle-aio idle-psync dump-2m-aio""".split()


figures_cache.add(sys.modules[__name__])


def place(each):
    return ORDER.index(each.short) if each.short in ORDER else len(ORDER)


def chosen(options):
    for each in ROWS:
        if options.group and each.group != options.group:
            continue
        if options.only_fast and each.slow:
            continue
        if all(word in each.short or word in each.name for word in options.row):
            yield each


def measure(bench, rows, options):
    done = {}
    for each in sorted(rows, key=place):
        print(each.name, file=sys.stderr)
        started = time.monotonic()
        cells = each.measure(bench)
        print(f"    {cells[1]} {cells[2]} ({time.monotonic() - started:.0f} s)", file=sys.stderr)
        done[each.short] = [each.name, *cells]
    results = [done[each.short] for each in rows]
    print("| work | to reach | measured | verdict | command |\n|---|---|---|---|---|")
    for cells in results:
        print(f"| {' | '.join(cells)} |")
    if options.json:
        with open(options.json, "w") as out:
            json.dump(results, out, indent=1)
    return any(cells[3].startswith("failed") for cells in results)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default="build-release")
    parser.add_argument("--dir", help="where to measure (default: the build folder)")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--quick", action="store_true",
                        help="little data: shows that rows work; its figures mean nothing")
    parser.add_argument("--only-fast", action="store_true", help="leave out rows that take long")
    parser.add_argument("--group", choices=sorted({each.group for each in ROWS}))
    parser.add_argument("--traces", help="folder of conversation_trace.jsonl.gz and "
                        "synthetic_trace.jsonl.gz, for the groups main and flash")
    parser.add_argument("--json", metavar="FILE", help="the table goes there, too")
    parser.add_argument("--list", action="store_true", help="the rows, and what they should reach")
    parser.add_argument("row", nargs="*", help="words that a row's name must hold")
    return parser.parse_args()


def main():
    options = parse()
    rows = list(chosen(options))
    if options.list:
        for each in rows:
            print(f"{each.short:31}{each.name}: {each.target or 'stated'}")
        return 0
    folder = tempfile.mkdtemp(prefix="bench-", dir=options.dir or options.build)
    bench, started = Bench(options, os.path.abspath(folder)), time.monotonic()
    try:
        if any(each.group == "flash" for each in rows) and not bench.has_flash():
            print("no flash stage in this build", file=sys.stderr)
            rows = [each for each in rows if each.group != "flash"]
        return measure(bench, rows, options) if rows else 0
    finally:
        shutil.rmtree(folder)
        print(f"{time.monotonic() - started:.0f} s in all", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
