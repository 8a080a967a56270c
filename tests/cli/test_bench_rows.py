#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The rule of bench/figures.py, and how it measures: argv[1] is that script, argv[2] the program
over the tests' store."""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import unittest
import unittest.mock

PROGRAM = os.path.abspath(sys.argv.pop(2))
SCRIPT = sys.argv.pop(1)
sys.dont_write_bytecode = True
spec = importlib.util.spec_from_file_location("figures", SCRIPT)
figures = importlib.util.module_from_spec(spec)
sys.modules["figures"] = figures
sys.path.insert(0, os.path.dirname(SCRIPT))
spec.loader.exec_module(figures)


class Rule(unittest.TestCase):
    def test_interval(self):
        """Ranks of the sign test, as in tests/cli/test_figures.c."""
        for n, r in (1, 1), (4, 1), (5, 1), (8, 2), (9, 2), (11, 3), (15, 4), (20, 6), (30, 11):
            values = [(k * 7) % n + 1 if n % 7 else n - k for k in range(n)]
            self.assertEqual(figures.interval(values), ((n + 1) / 2, r, n + 1 - r))

    def test_verdict(self):
        more, less = figures.Target(">=", 0.95), figures.Target("<=", 1.15)
        time = figures.Target("<=", 50, "us")
        for target, interval, said in (
                (more, (0.95, 0.90, 1.00), "reached"),
                (more, (0.94, 0.90, 0.99), "missed"),
                (more, (0.96, 0.90, 1.01), "unresolved (the median meets it)"),
                (more, (0.90, 0.85, 0.96), "unresolved (the median misses it)"),
                (more, (1.96, 1.90, 2.09), "reached"),  # above 1: 10 % of the median
                (more, (1.96, 1.90, 2.11), "unresolved (the whole interval meets it)"),
                (less, (1.10, 1.08, 1.12), "reached"),
                (less, (1.16, 1.15, 1.17), "missed"),
                (time, (0.9, 0.86, 0.94), "reached"),
                (time, (0.9, 0.85, 0.95), "unresolved (the whole interval meets it)"),
                (time, (55, 51, 56), "missed"),
                (figures.Target("<=", 0, "core"), (0, 0, 0), "reached"),
                (None, (1, 0, 9), "stated")):
            self.assertEqual(figures.verdict(target, *interval), said, (str(target), interval))

    def test_without_ring(self):
        self.assertAlmostEqual(figures.Target(">=", 1).without_ring().limit, 0.9)
        self.assertAlmostEqual(figures.Target("<=", 18, "ms").without_ring().limit, 20)

    def test_every_figure_without_ring(self):
        """Each row of posix has one without io_uring, but those against other programs."""
        names = {each.short for each in figures.ROWS if each.group == "posix"}
        self.assertLessEqual(set(figures.ORDER), {each.short for each in figures.ROWS})
        self.assertEqual(len(figures.ROWS), len({each.short for each in figures.ROWS}))
        for name in names:
            if not name.endswith(("-aio", "-psync", "-fio")):
                self.assertIn(f"{name}-aio", names)


class Side:
    def __init__(self, name, rates, log):
        self.name, self.rates, self.log = name, iter(rates), log

    def step(self):
        self.log.append(self.name)
        return {"bytes_per_s": next(self.rates)}

    def end(self):
        self.log.append(f"end of {self.name}")


class Measuring(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)
        os.symlink(PROGRAM, os.path.join(self.dir.name, "cairn"))
        os.mkdir(os.path.join(self.dir.name, "measured"))
        options = argparse.Namespace(build=self.dir.name, pairs=3, traces=None, quick=True)
        self.bench = figures.Bench(options, os.path.join(self.dir.name, "measured"))

    def test_turns(self):
        """Who is first changes; every pair counts."""
        log = []
        ratios, ours, theirs = figures.take_turns(
            self.bench, Side("a", [1, 6, 3], log), Side("b", [2, 3, 1], log))
        self.assertEqual(log, ["a", "b", "b", "a", "a", "b", "end of a", "end of b"])
        self.assertEqual((ratios, ours, theirs), ([0.5, 2, 3], 3, 2))

    def test_turns_of_the_program(self):
        sides = [figures.Turns(self.bench, "null", op, 4096, 40960) for op in ("load", "dump")]
        ratios, _, _ = figures.take_turns(self.bench, *sides)
        self.assertEqual(len(ratios), 3)
        self.assertGreater(min(ratios), 0)
        self.assertEqual([side.process.returncode for side in sides], [0, 0])
        with self.assertRaisesRegex(RuntimeError, "cairn bench: "):
            figures.Turns(self.bench, "null(fail=5)", "load", 4096, 40960)

    def test_fio_goes_on(self):
        """Turns of a file that is larger than a turn begin where the last one ended."""
        calls = []

        def run(*command):
            calls.append(command)
            return {"jobs": [{"write": {"bw_bytes": 1, "iops": 1}}]}

        self.bench.run = run
        with unittest.mock.patch.object(figures.shutil, "which", lambda name: name), \
                unittest.mock.patch.object(figures.subprocess, "run") as layout:
            fio = figures.Fio(self.bench, "write", 4096, 1000, 3)
            self.assertIn("--size=3000", layout.call_args[0][0])
            for _ in range(3):
                fio.step()
        self.assertEqual([c[-1] for c in calls],
                         ["--offset=0", "--offset=1000", "--offset=2000", "--offset=0"])
        self.assertTrue(all("--size=1000" in c for c in calls))

    def test_row(self):
        """What is printed has the commands, without the folders of the day."""
        target = figures.Target("<=", 1e9, "us", 0)
        def lookups(b):
            r = b.cairn("bench", "store(engine=psync) | null", "--op", "lookup", "--pairs", 2)
            return figures.Figure([run["p50_us"] for run in r["runs"]])

        def fails(b):
            return b.cairn("bench", "null(fail=5)")

        cells = figures.Row("r", "r", target, lookups, "posix", False, "").measure(self.bench)
        self.assertEqual(cells[0], "<= 1000000000 us")
        self.assertRegex(cells[1], r"^[\d.]+ us \[[\d.]+, [\d.]+\]$")
        self.assertRegex(cells[2], "^(reached|unresolved)")
        self.assertEqual(cells[3], "`cairn bench 'store(engine=psync) \\| null' --op lookup "
                                   "--pairs 2 --json`")
        cells = figures.Row("r", "r", None, fails, "posix", False, "").measure(self.bench)
        self.assertRegex(cells[2], "^failed: cairn bench: ")

    def test_no_flash(self):
        run = subprocess.run([sys.executable, "-B", SCRIPT, "--build", self.dir.name, "--group",
                              "flash"], capture_output=True, text=True, check=False)
        self.assertEqual((run.returncode, run.stdout), (0, ""))
        self.assertTrue(run.stderr.startswith("no flash stage in this build\n"), run.stderr)
        self.assertEqual(sorted(os.listdir(self.dir.name)), ["cairn", "measured"])


if __name__ == "__main__":
    unittest.main()
