#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""LMCache over cairn against LMCache over its own file tiers, through LMCache's adapters.

    lmcache.py [--dir FOLDER] [--pairs 9] [--bytes 256MiB] [--only posix|flash|registered]
               [--json FILE]

Run by the interpreter that `tools/test-engines.sh --env lmcache` prints, with
PYTHONPATH=build/python. In each pair both sides put the same objects, get them, and look them up,
in turns; who is first alternates. Each side has moved some objects both ways before, as a server
has that runs. Neither side syncs what it put; cairn sums what it puts and checks what it gets.
Each side has two threads for I/O. A log of flash is one file for all pairs, written over once
before. Objects are LMCache's own allocator's, whose memory is registered in the rows of that name:
by CairnL2Adapter.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:1] = [  # not this folder, in which a file is named as the package
    os.path.join(HERE, ".."),
    os.path.join(HERE, "..", "..", "python", "tests", "engines", "lmcache"),
]
import figures
import harness

MIB = 1 << 20
BATCH = {256 << 10: 64, 2 << 20: 16}  # objects of a submission
LOG_BYTES = 4 << 30  # from here on a region of flash has its usual 32 MiB
IN_FLIGHT = 2  # submissions at once, as LMCache's store and prefetch controllers have some


def native(path: str, direct: bool) -> str:
    return json.dumps(
        {"type": "fs_native", "base_path": path, "num_workers": 2, "use_odirect": direct}
    )


class Side:
    """One adapter, and the times of its parts."""

    def __init__(self, text: str, memory: harness.Memory | None = None) -> None:
        self.adapter = harness.Adapter(text, memory)

    def run(self, submit, fd: int, take, batches: list) -> float:
        """Submits the batches, some in flight at once, and waits for all: seconds."""
        import select

        poller = select.poll()
        poller.register(fd, select.POLLIN)
        started = time.perf_counter()
        tasks: list[int] = []
        at = 0
        while at < len(batches) or tasks:
            while at < len(batches) and len(tasks) < IN_FLIGHT:
                tasks.append(submit(*batches[at]))
                at += 1
            if poller.poll(60000):
                os.read(fd, 8)
            tasks = [task for task in tasks if not take(task)]
        return time.perf_counter() - started

    def put(self, batches: list) -> float:
        done: dict = {}

        def take(task: int) -> bool:
            done.update(self.adapter.it.pop_completed_store_tasks())
            if task not in done:
                return False
            if not done.pop(task).is_successful():
                raise RuntimeError("a put failed")
            return True

        it = self.adapter.it
        return self.run(it.submit_store_task, it.get_store_event_fd(), take, batches)

    def get(self, batches: list) -> float:
        it = self.adapter.it

        def take(task: int) -> bool:
            bits = it.query_load_result(task)
            if bits is None:
                return False
            if bits.popcount() != len(batches[0][0]):
                raise RuntimeError("a get missed")
            return True

        return self.run(it.submit_load_task, it.get_load_event_fd(), take, batches)

    def lookup(self, keys: list) -> float:
        """Seconds a key, of lookups one after the other."""
        started = time.perf_counter()
        for at in range(0, len(keys), 64):
            if not all(self.adapter.lookup(keys[at : at + 64])):
                raise RuntimeError("a lookup missed")
        return (time.perf_counter() - started) / len(keys)

    def close(self) -> None:
        self.adapter.close()


def batches_of(pool: list, size: int, count: int, start: int) -> list:
    step = BATCH[size]
    return [
        ([harness.key(start + i) for i in range(at, at + step)], pool[at : at + step])
        for at in range(0, count, step)
    ]


def write_over(options, text: str, pool: list, size: int) -> None:
    """A log in use: its whole file was written once."""
    side = Side(text)
    for turn in range(1, LOG_BYTES // options.bytes + 2):
        side.put(batches_of(pool, size, len(pool), turn << 32))
    side.close()


def warm_up(side: Side, batches: list) -> None:
    """Threads have begun, and memory is there: what a first batch waits for once."""
    side.put(batches)
    side.get(batches)


def rest(options) -> None:
    """Both sides find the device written out, and with the credit that a shared disk gives."""
    os.sync()
    time.sleep(options.rest)


def pairs(options, name: str, ours: str, theirs: str, size: int) -> dict:
    """Nine pairs of put, get and lookup; {part: [ours, theirs] of each pair}."""
    count = options.bytes // size
    memory = harness.Memory(options.bytes + 64 * MIB)
    pool = [memory.object(size, harness.content(i, size)) for i in range(count)]
    out: dict = {"put": [], "get": [], "lookup": []}
    kept = os.path.join(options.folder, f"{name}-{size}") if "flash(" in ours else None
    if kept:
        write_over(options, ours.replace("@PATH@", kept), pool, size)
    for turn in range(options.pairs):
        figure: dict = {}
        sides = [("ours", ours), ("theirs", theirs)]
        for who, text in sides if turn % 2 else reversed(sides):
            # Kept to the end: ext4 without a journal passes over inodes that were just freed.
            path = os.path.join(options.folder, f"{name}-{who}-{size}-{turn}")
            told = memory if who == "ours" and "CairnL2Adapter" in ours else None
            side = Side(text.replace("@PATH@", kept if kept and who == "ours" else path), told)
            work = batches_of(pool, size, count, turn * count)
            warm_up(side, batches_of(pool, size, 2 * IN_FLIGHT * BATCH[size], turn + 1 << 40))
            rest(options)
            seconds = side.put(work)
            figure[who, "put"] = options.bytes / seconds / 1e9
            rest(options)
            seconds = side.get(work)
            figure[who, "get"] = options.bytes / seconds / 1e9
            keys = [key for batch, _ in work for key in batch]
            side.lookup(keys[:64])
            figure[who, "lookup"] = side.lookup(keys) * 1e6
            side.close()
        for part in out:
            out[part].append((figure["ours", part], figure["theirs", part]))
    for one in pool:
        one.ref_count_down()
    return out


def tell(rows: list, name: str, target: str, limit: float, sign: str, values: list, unit: str):
    ratios = [ours / theirs for ours, theirs in values]
    middle, low, high = figures.interval(ratios)
    mine = figures.interval([ours for ours, _ in values])[0]
    other = figures.interval([theirs for _, theirs in values])[0]
    verdict = figures.verdict(figures.Target(sign, limit), middle, low, high)
    measured = f"{middle:.2f}x [{low:.2f}, {high:.2f}]; {mine:.2f} against {other:.2f} {unit}"
    print(f"| {name} | {target} | {measured} | {verdict} |", flush=True)
    rows.append({"name": name, "ratio": [middle, low, high], "values": values, "verdict": verdict})


def mib(text: str) -> int:
    return int(text.removesuffix("MiB")) * MIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", default=".", help="the file system that is measured")
    parser.add_argument("--pairs", type=int, default=figures.PAIRS)
    parser.add_argument("--bytes", type=mib, default=256 * MIB, help="of a put, 256MiB")
    parser.add_argument("--only", choices=["posix", "flash", "registered"])
    parser.add_argument("--size", type=int, choices=list(BATCH))
    parser.add_argument("--rest", type=float, default=1.0, help="seconds before each part")
    parser.add_argument("--params", default="{}", help="JSON, more of adapter_params")
    parser.add_argument("--flash", default="", help="more options of flash(...)")
    parser.add_argument("--posix", default=", direct=no", help="more options of posix(...)")
    parser.add_argument("--json")
    options = parser.parse_args()
    options.folder = tempfile.mkdtemp(prefix="bench-lmcache-", dir=options.dir)
    params = json.loads(options.params)
    rows: list = []
    log = f"flash(path=@PATH@, size={LOG_BYTES}{options.flash})"
    tiers = {
        "posix": (f"posix(path=@PATH@{options.posix})", False, 1.0, "buffered"),
        "flash": (log, True, 1.3, "O_DIRECT"),
        "registered": (log, True, 1.3, "O_DIRECT"),
    }
    try:
        for tier, (pipeline, direct, least, how) in tiers.items():
            if options.only not in (None, tier):
                continue
            for size in BATCH:
                if options.size not in (None, size):
                    continue
                text = f"store(reactors=2) | {pipeline}"
                made = harness.spec(text, params)
                if tier == "registered":
                    made = harness.plugin_spec(text, **params)
                values = pairs(options, tier, made, native("@PATH@", direct), size)
                where = "flash, registered," if tier == "registered" else tier
                label = "256 KiB" if size < MIB else "2 MiB"
                for part in ("put", "get"):
                    name = f"LMCache, {part} {label}, over {where} against fs_native {how}"
                    tell(rows, name, f">= {least:.2f}x", least, ">=", values[part], "GB/s")
                name = f"LMCache, lookup a key, {label}, over {where} against fs_native"
                tell(rows, name, "<= 1.00x", 1.0, "<=", values["lookup"], "us")
    finally:
        shutil.rmtree(options.folder, ignore_errors=True)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
