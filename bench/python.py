#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures the package `cairn` against the C API, and prints one JSON object.

    python.py call [PIPELINE]                       one key's lookup, called from Python
    python.py load|dump BATCH PIPELINE [PAIRS]      1024 blocks of 256 KiB in one task

`call`: us of one call, a figure a run. `load` and `dump`: BATCH is the program bench/batch, which
does the same by the C API on a store of its own; the two take turns, and each is first in every
other pair. {side} in the pipeline is "python" or "c". The package is found by PYTHONPATH.
"""

import json
import subprocess
import sys
import time

import cairn

COUNT, BYTES = 1024, 256 << 10
CALLS, RUNS = 200000, 11


def a_call(call, argument):
    """us of one call, the loop's own time taken off."""
    loops = range(CALLS)
    start = time.perf_counter()
    for _ in loops:
        call(argument)
    used = time.perf_counter() - start
    start = time.perf_counter()
    for _ in loops:
        pass
    return (used - (time.perf_counter() - start)) / CALLS * 1e6


def calls(pipeline="null(size=64MiB)"):
    with cairn.Store(pipeline) as store:
        ns = store.namespace(model="bench", shard_bytes=4096)
        key, absent = ns.key("there"), ns.key("absent")
        ns.dump([key], bytes(4096)).check()
        runs = {"contains_us": [], "absent_us": [], "lookup_us": [], "key_us": []}
        for _ in range(RUNS):
            runs["contains_us"].append(a_call(ns.contains, key))
            runs["absent_us"].append(a_call(ns.contains, absent))
            runs["lookup_us"].append(a_call(ns.lookup, [key]))
            runs["key_us"].append(a_call(ns.key, b"a name of some thirty-two bytes.."))
    return runs


class Python:
    """The package's side."""

    def __init__(self, op, pipeline):
        self.store = cairn.Store(pipeline)
        self.op = op
        self.ns = self.store.namespace(model="batch", shard_bytes=BYTES)
        self.keys = [self.ns.key(b"%d" % i) for i in range(COUNT)]
        memory = memoryview(bytearray(b"\7" * (COUNT * BYTES)))
        self.items = [memory[i * BYTES:(i + 1) * BYTES] for i in range(COUNT)]
        self.ns.dump(self.keys, self.items).check()

    def step(self):
        if self.op == "dump":
            self.ns.remove_sync(self.keys)
        start = time.perf_counter()
        move = self.ns.dump if self.op == "dump" else self.ns.load
        statuses = move(self.keys, self.items).result()
        used = time.perf_counter() - start
        if any(statuses):
            raise SystemExit(f"python.py: {set(statuses)}")
        return used


class C:
    """The C API's side."""

    def __init__(self, op, program, pipeline):
        self.op = op
        self.process = subprocess.Popen([program, pipeline, str(COUNT), str(BYTES)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def step(self):
        self.process.stdin.write(f"{self.op}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def batches(op, program, pipeline, pairs=11):
    sides = {"python": Python(op, pipeline.replace("{side}", "python")),
             "c": C(op, program, pipeline.replace("{side}", "c"))}
    for side in sides.values():
        for _ in range(2):
            side.step()
    runs = {"python_s": [], "c_s": []}
    for i in range(int(pairs)):
        for name in sorted(sides, reverse=i % 2 == 0):
            runs[f"{name}_s"].append(sides[name].step())
    sides["c"].process.communicate("quit\n")
    sides["python"].store.close()
    runs["ratio"] = [c / p for c, p in zip(runs["c_s"], runs["python_s"])]
    return runs


def main(arguments):
    if arguments[:1] == ["call"] and len(arguments) <= 2:
        result = calls(*arguments[1:])
    elif arguments[:1] in (["load"], ["dump"]) and 3 <= len(arguments) <= 4:
        result = batches(*arguments)
    else:
        print(__doc__, file=sys.stderr)
        return 2
    json.dump(result, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
