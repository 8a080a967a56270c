#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The cairn program over the library itself: argv[1] is the program; argv[2], if it is not `none`,
the sanitizer that it runs under: then what differs by numbers alone is left out."""

import json
import os
import pty
import random
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import prometheus

PROGRAM = sys.argv.pop(1)
SHORT = sys.argv.pop(1) != "none"


def cairn(*args, status=0):
    run = subprocess.run([PROGRAM, *args, "--json"], capture_output=True, text=True)
    if run.returncode != status:
        raise AssertionError(f"{args}: {run.returncode}: {run.stderr}")
    return json.loads(run.stdout) if run.stdout else run.stderr


class Real(unittest.TestCase):
    def setUp(self):
        dir = tempfile.TemporaryDirectory()
        self.addCleanup(dir.cleanup)
        self.path = os.path.join(dir.name, "kv")
        names = [stage["name"] for stage in cairn("stages")["stages"]]
        self.posix = [f"posix(path={self.path})"] * ("posix" in names)
        self.flash = f"flash(path={self.path}.log, size=64MiB, region=1MiB)"
        self.stores = ["null"] + self.posix + [self.flash] * ("flash" in names)

    def test_stage_that_does_not_load(self):
        folder = os.path.dirname(self.path)
        file = os.path.join(folder, "bogus.so")
        with open(file, "w") as f:
            f.write("not an object")
        stages = cairn("stages", "--stage-path", folder)["stages"]
        self.assertIsNone(stages[0]["error"])
        self.assertEqual([s["name"] for s in stages if s["error"]], ["bogus"])
        said = stages[-1]["error"]
        self.assertTrue(said.startswith(file + ": not loadable: "), said)
        self.assertEqual(said.count(file), 1)
        run = subprocess.run([PROGRAM, "stages", "--stage-path", folder], capture_output=True,
                             text=True)
        self.assertEqual(run.returncode, 0)
        self.assertIn(said, run.stdout)
        run = subprocess.run([PROGRAM, "stages", "bogus", "--stage-path", folder],
                             capture_output=True, text=True)
        self.assertEqual((run.returncode, run.stdout), (3, ""))
        self.assertIn(said, run.stderr)

    def test_shard_that_no_region_holds(self):
        if not self.stores[-1].startswith("flash"):
            self.skipTest("no flash here")
        store = f"flash(path={self.path}.small, size=8MiB, region=64KiB)"
        args = ("replay", store, "--generate", "chat", "--limit", "2")
        r = cairn(*args, "--block", "128KiB")
        self.assertGreater(r["too_large"], 0)
        self.assertEqual((r["refused"], r["failed_xfers"]), (r["too_large"], 0))
        self.assertLess(r["counters"]["flash.shard_bytes_max"], 64 << 10)
        run = subprocess.run([PROGRAM, *args, "--block", "128KiB"], capture_output=True, text=True)
        self.assertRegex(run.stdout, "too large blocks +[1-9].* shard_bytes_max.* region=")
        self.assertNotIn("was full", run.stdout)
        r = cairn(*args, "--block", "128KiB", "--shards", "4")
        self.assertEqual((r["refused"], r["too_large"]), (0, 0))
        run = subprocess.run([PROGRAM, "stages", "flash"], capture_output=True, text=True)
        self.assertRegex(" ".join(run.stdout.split()), "a shard must fit into one")

    def test_bad_values(self):
        cases = [("fault(rule=laod:EIO:2) | null()", {"stat": 2, "ls": 2, "fsck": 4},
                  "line 1, column 12: fault: rule, character 1"),
                 (f"posix(path={self.path}/none)", {"stat": 3, "ls": 3, "fsck": 3},
                  f"posix: path={self.path}/none: ")]
        for pipeline, commands, text in cases:
            for command, status in commands.items():
                run = subprocess.run([PROGRAM, command, pipeline], capture_output=True, text=True)
                self.assertEqual((command, run.returncode), (command, status))
                self.assertIn(text, run.stderr)

    def test_replay(self):
        for store in self.stores:
            for extra in ([], ["--shards", "4"], ["--clients", "4"])[2 if SHORT else 0:]:
                r = cairn("replay", store, "--generate", "agent", "--limit", "100", "--block",
                          "8KiB", "--clear", *extra)
                self.assertEqual((r["requests"], r["wrong_bytes"], r["failed_xfers"]), (100, 0, 0))
                self.assertGreater(r["blocks_hit"], 0)
                self.assertEqual(r["bytes_loaded"], 8192 * r["blocks_hit"])

    def test_warm(self):
        for store in self.stores[1:]:
            args = ["replay", store, "--generate", "rag", "--limit", "30", "--block", "4KiB"]
            self.assertLess(cairn(*args)["hit_share"], 1)
            self.assertEqual(cairn(*args)["hit_share"], 1)
            listed = cairn("ls", store)
            self.assertTrue(listed["complete"])
            self.assertIsNone(listed["owner"])
            self.assertEqual(listed["blocks"][0]["model"], "cairn replay")
            self.assertEqual(cairn("stat", store)["blocks"], listed["count"])
            self.assertEqual(cairn("fsck", store)["verdict"], "sound")
            keys = [block["key"] for block in listed["blocks"]]
            self.assertEqual(cairn("rm", store, *keys[:5])["removed"], 5)
            self.assertEqual(cairn("ls", store)["count"], len(keys) - 5)
            self.assertEqual(cairn("rm", store, keys[0], status=1)["absent"], 1)

    def test_stat_of_a_live_store(self):
        stores = {f"posix(path={self.path})": "posix",
                  f"flash(path={self.path}.log, size=64MiB, region=1MiB)": "flash"}
        for store, stage in stores.items():
            owner = subprocess.Popen([PROGRAM, "replay", store, "--generate", "chat", "--speed",
                                      "0.01"], stdout=subprocess.DEVNULL)
            self.addCleanup(owner.wait)
            self.addCleanup(owner.kill)
            until = time.monotonic() + 60
            counters = {"blocks": 0}
            while not counters["blocks"] and time.monotonic() < until:
                run = subprocess.run([PROGRAM, "stat", store, "--json"], capture_output=True,
                                     text=True)
                stat = json.loads(run.stdout) if run.stdout else {"live": False}
                if stat["live"] and stat["pid"]:
                    self.assertEqual(stat["pid"], owner.pid)
                    counters = stat["stages"][stage]
            self.assertGreater(counters["blocks"], 0)
            self.assertGreater(counters["bytes_used"], counters["blocks"] * 16384)
            text = subprocess.run([PROGRAM, "stat", store, "--prometheus"], capture_output=True,
                                  text=True)
            metrics, bad = prometheus.check(text.stdout)
            self.assertEqual(bad, [])
            if prometheus.value(metrics, "cairn_counters_up"):
                for name in ("cairn_load_hits_total", "cairn_loaded_bytes_total",
                             "cairn_tasks_in_flight", "cairn_queued_xfers", "cairn_ios_in_flight"):
                    prometheus.value(metrics, name)
                for reason in ("absent", "damaged", "device", "late", "other"):
                    prometheus.value(metrics, "cairn_load_misses_total", reason=reason)
                limit = prometheus.value(metrics, "cairn_stage_limit_bytes", stage=stage)
                self.assertLessEqual(
                    prometheus.value(metrics, "cairn_stage_used_bytes", stage=stage), limit)
                for op in ("load", "dump", "lookup"):
                    prometheus.value(metrics, "cairn_call_duration_seconds_count", op=op)
            table = subprocess.run([PROGRAM, "stat", store], capture_output=True, text=True)
            self.assertTrue(table.stdout.startswith(f"open in process {owner.pid}, I/O by "))
            self.assertNotIn("shared:", table.stdout)
            self.assertRegex(table.stdout, r"  blocks +\d+  whole blocks known\n")
            listed = cairn("ls", store)
            self.assertGreater(listed["count"], 0)
            self.assertEqual((listed["owner"], listed["complete"]), (owner.pid, False))
            said = subprocess.run([PROGRAM, "ls", store], capture_output=True, text=True)
            self.assertEqual(said.returncode, 0)
            self.assertIn(f"process {owner.pid} has it open: what it changed meanwhile, or has "
                          "not written yet, may", said.stdout)
            for repair in [], ["--repair"]:
                self.assertIn(f"process {owner.pid}", cairn("fsck", store, *repair, status=3))
            if stage == "flash":
                info = cairn("flash", "info", self.path + ".log")["store"]
                self.assertEqual((info["in_use"], info["owner"]), ("yes", owner.pid))
                said = subprocess.run([PROGRAM, "flash", "dump-region", self.path + ".log", "0"],
                                      capture_output=True, text=True)
                self.assertIn(f"process {owner.pid} has it open: what it has not written yet",
                              said.stdout)

    def open_shared(self, store):
        """A process that has the store open until the test ends, and did something."""
        owner = subprocess.Popen([PROGRAM, "replay", store, "--generate", "chat", "--speed",
                                  "0.01"], stdout=subprocess.DEVNULL)
        self.addCleanup(owner.wait)
        self.addCleanup(owner.kill)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            run = subprocess.run([PROGRAM, "stat", store, "--json"], capture_output=True, text=True)
            stat = json.loads(run.stdout) if run.stdout else {"live": False}
            posix = stat["stages"]["posix"] if stat["live"] and stat["pid"] == owner.pid else {}
            if posix.get("dumps") or posix.get("load_hits"):
                return owner, stat
            time.sleep(0.02)
        raise AssertionError("the store was not opened")

    def watch(self, store, *args):
        run = subprocess.run([PROGRAM, "stat", store, "--watch=20ms", *args], capture_output=True,
                             text=True)
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        return run.stdout.splitlines()

    def test_watch(self):
        store = f"cache(size=16MiB) | flash(path={self.path}.log, size=64MiB, region=1MiB)"
        said = self.watch(store.replace(self.path, self.path + ".none"), "--count", "2")
        self.assertEqual(said[1:], ["nobody has it open"] * 2)
        owner = subprocess.Popen([PROGRAM, "replay", store, "--generate", "chat", "--speed",
                                  "0.01"], stdout=subprocess.DEVNULL)
        self.addCleanup(owner.wait)
        self.addCleanup(owner.kill)
        until = time.monotonic() + 60
        told = {"live": False, "memory": {}}
        while (not told["live"] or not told["memory"] or not told["pid"]
               or not told["memory"]["cache"]["classes"]
               or not told["total"]["dumped_bytes"]):
            self.assertLess(time.monotonic(), until)
            told = json.loads(self.watch(store, "--json", "--count", "1")[0])
        self.assertEqual(told["pid"], owner.pid)
        self.assertGreaterEqual(told["total"]["lookups"], told["total"]["lookup_hits"])
        self.assertGreaterEqual(told["interval_s"], 0.02)
        self.assertEqual(list(told["stages"]), ["cache", "flash"])
        memory = told["memory"]["cache"]
        self.assertEqual((memory["bytes"], memory["clients"]), (16 << 20, 1))
        self.assertEqual(memory["used_bytes"], sum(c["used_bytes"] for c in memory["classes"]))
        for one in memory["classes"]:
            self.assertLessEqual(one["slots"], one["chunks"] * memory["chunk_bytes"]
                                 // one["slot_bytes"])
            self.assertLessEqual(one["slots_used"], one["slots"])
        said = self.watch(store, "--count", "3")
        self.assertEqual(len(said), 4)
        self.assertRegex(said[0], r"^ +found +in all +hits +in all +loaded +dumped +evicted")
        self.assertRegex(said[1], r" MB/s +[\d,]+ +[\d.]+ [KM]iB +1 +\d+  [\d.]+ [KM]?i?B:")
        # A second process of the region is seen, whose page is not this pipeline's.
        lone = f"cache(size=16MiB, name=watch-{os.getpid()})"
        other = subprocess.Popen([PROGRAM, "replay", lone, "--generate", "chat", "--speed",
                                  "0.01"], stdout=subprocess.DEVNULL)
        self.addCleanup(other.wait)
        self.addCleanup(other.send_signal, signal.SIGTERM)
        while not told["memory"] or told["pid"]:
            self.assertLess(time.monotonic(), until)
            told = json.loads(self.watch(lone, "--json", "--count", "1")[0])
        self.assertEqual((told["live"], told["memory"]["cache"]["clients"]), (True, 1))
        run = subprocess.run([PROGRAM, "stat", lone, "--json"], capture_output=True, text=True)
        told = json.loads(run.stdout)
        self.assertEqual((told["live"], told["pid"]), (True, None))
        self.assertEqual(told["memory"]["cache"]["clients"], 1)
        run = subprocess.run([PROGRAM, "stat", lone, "--prometheus"], capture_output=True,
                             text=True)
        self.assertIn("\ncairn_up 1\n", run.stdout)
        # One that was killed has it open no more, though what it had is still there, or was
        # taken away by whoever opened a cache meanwhile.
        other.kill()
        other.wait()
        until = time.monotonic() + 60
        while told["live"]:
            self.assertLess(time.monotonic(), until)
            run = subprocess.run([PROGRAM, "stat", lone, "--json"], capture_output=True,
                                 text=True)
            told = json.loads(run.stdout)
        self.assertEqual(told["memory"].get("cache", {"clients": 0})["clients"], 0)

    def test_watch_ends(self):
        """By a signal, which is no failure; on a terminal each takes the last one's place."""
        for interval in "10ms", "1h":
            primary, secondary = pty.openpty()
            run = subprocess.Popen([PROGRAM, "stat", "cache(size=16MiB, name=nobody-has-it)",
                                    f"--watch={interval}"], stdout=secondary,
                                   stderr=subprocess.PIPE)
            os.close(secondary)
            if interval == "10ms":
                said = b""
                while said.count(b"\x1b[H\x1b[Jnobody has it open") < 2:
                    said += os.read(primary, 4096)
            else:
                # Its signals are caught when they are blocked.
                until = time.monotonic() + 60
                while int(self.status_of(run.pid)["SigCgt"], 16) >> (signal.SIGINT - 1) & 1 == 0:
                    self.assertLess(time.monotonic(), until)
            run.send_signal(signal.SIGINT)
            if interval == "10ms":
                while True:
                    try:
                        if not os.read(primary, 4096):
                            break
                    except OSError: # the last one closed it
                        break
            self.assertEqual((run.wait(60), run.stderr.read()), (0, b""))
            run.stderr.close()
            os.close(primary)

    def asked_to_stop(self, pipeline, begun, by=signal.SIGTERM, wrapper=()):
        """A replay that was sent one signal, @begun seconds after it catches SIGTERM."""
        run = subprocess.Popen([*wrapper, PROGRAM, "replay", pipeline, "--generate", "chat",
                                "--limit", "1000000", "--json"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
        self.addCleanup(run.stdout.close)
        self.addCleanup(run.stderr.close)
        until = time.monotonic() + 60
        while int(self.status_of(run.pid)["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1 == 0:
            self.assertLess(time.monotonic(), until)
        time.sleep(begun)
        run.send_signal(by)
        return run

    def test_a_terminal_that_is_gone(self):
        """A shell that ends says so, and what was done is told; nohup has that ignored."""
        run = self.asked_to_stop("null", 0, signal.SIGHUP)
        said = run.communicate(timeout=60)
        self.assertEqual((run.returncode, said[1]), (130, b""))
        self.assertIn("requests", json.loads(said[0]))
        run = self.asked_to_stop("null", 0, signal.SIGHUP, ["nohup"])
        ignored = int(self.status_of(run.pid)["SigIgn"], 16)
        self.assertEqual(ignored >> (signal.SIGHUP - 1) & 1, 1)
        run.send_signal(signal.SIGTERM)
        self.assertEqual((run.communicate(timeout=60)[0][:1], run.returncode), (b"{", 130))

    def test_a_signal_that_comes_twice(self):
        """At once, as from timeout(1): it is told what was done till then. Later: it ends."""
        run = self.asked_to_stop("null", 0, 0)
        subprocess.run(["sh", "-c", 'kill -TERM "$0"; kill -TERM "$0"', str(run.pid)], check=True)
        said = run.communicate(timeout=60)
        self.assertEqual((run.returncode, said[1]), (130, b""))
        self.assertIn("requests", json.loads(said[0]))
        for begun in 0.2, 1, 5, 20:  # one that waits for its store by then
            run = self.asked_to_stop("delay(read=1h, write=1h) | null", begun)
            time.sleep(0.3)
            if run.poll() is None:
                break
        run.send_signal(signal.SIGTERM)
        self.assertEqual(run.communicate(timeout=60), (b"", b""))
        self.assertEqual(run.returncode, -signal.SIGTERM)

    @staticmethod
    def status_of(pid):
        with open(f"/proc/{pid}/status") as file:
            return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)

    def test_stat_of_a_shared_store(self):
        store = f"posix(path={self.path}, shared=yes)"
        first, stat = self.open_shared(store)
        self.assertTrue(stat["shared"])
        self.assertIn(stat["engine"], ("uring", "aio", "psync"))
        other, _ = self.open_shared(store)
        table = subprocess.run([PROGRAM, "stat", store], capture_output=True, text=True)
        self.assertIn("\nshared: these are the counters of this process alone", table.stdout)
        # Its page goes with it, and the first one's was replaced.
        other.kill()
        other.wait()
        stat = cairn("stat", store)
        self.assertEqual((stat["live"], stat["pid"]), (True, None))
        self.assertGreater(stat["blocks"], 0)
        self.assertIs(cairn("ls", store)["complete"], False)
        said = cairn("fsck", store, status=3)
        self.assertIn(f"in use by process {first.pid}: end it, and all that share it", said)

    def test_bench_of_a_shared_lookup(self):
        """The bare side finds the store's own files, others between them."""
        for store in self.posix:
            cairn("replay", store, "--generate", "rag", "--limit", "3", "--block", "4KiB")
            r = cairn("bench", store[:-1] + ", shared=yes)", "--op", "lookup", "--count", "20",
                      "--fill", "100", "--pairs", "1", "--spaced", "1us")
            self.assertEqual(r["bare"]["what"], "serial faccessat of the same files")
            self.assertGreater(r["ratio"], 0)

    def test_bench(self):
        for store in self.stores[-1 if SHORT else 0:]:
            ops = "load", "dump", "mixed", "lookup"
            for op in ops[:2] if store in self.posix else ops:
                r = cairn("bench", store, "--op", op, "--count", "20", "--block", "8KiB", "--pairs",
                          "1" if SHORT else "2")
                self.assertGreater(r["ratio"], 0)
            cairn("bench", store, "--count", "20", "--spaced", "10us", "--pairs", "1")
            self.assertEqual(cairn("ls", store)["count"], 0)

    def test_bench_of_a_bounded_store(self):
        store = f"posix(path={self.path}, size=4MiB)"
        size = "--count", "80" if SHORT else "200", "--block", "64KiB", "--pairs", "1"
        self.assertGreater(cairn("bench", store, "--op", "dump", *size)["ratio"], 0)
        self.assertRegex(cairn("bench", store, "--op", "load", *size, status=1),
                         r"keeps \d+ of the \d+ blocks that are to be read: give it more size=")

    def test_fsck_of_what_is_not_sound(self):
        store = f"posix(path={self.path})"
        cairn("replay", store, "--generate", "rag", "--limit", "5")
        files = [os.path.join(top, name) for top, _, names in os.walk(os.path.join(self.path, "b"))
                 for name in names]
        with open(files[0] + ".t00000001", "wb") as file:
            file.write(b"left by a process that died")
        self.assertEqual(cairn("fsck", store, status=1)["verdict"], "repairable")
        with open(files[0], "r+b") as file:
            file.seek(5000)
            file.write(b"not what was dumped")
        self.assertEqual(cairn("fsck", store, status=2)["verdict"], "damaged")

    def test_repair(self):
        store = f"flash(path={self.path})"
        cairn("replay", store[:-1] + ", size=32MiB, region=1MiB)", "--generate", "rag", "--limit",
              "5", "--block", "4KiB")
        listed = cairn("ls", store)
        self.assertEqual(cairn("fsck", store, "--repair")["findings"], [])
        info = cairn("flash", "info", self.path)
        self.assertEqual((info["store"]["regions_sealed"] > 0, info["store"]["in_use"],
                          info["namespaces"][0]["model"]), (True, "no", "cairn replay"))
        found = []
        for region in range(info["store"]["regions"]):
            records = cairn("flash", "dump-region", self.path, str(region))["records"]
            found += [r["key"] for r in records if r["state"] == "live"]
        self.assertEqual(sorted(found), sorted(block["key"] for block in listed["blocks"]))
        with open(self.path, "r+b") as file:
            file.write(bytes(8192))
        cairn("fsck", store, status=3)
        mended = cairn("fsck", store, "--repair")
        self.assertEqual((mended["verdict"], mended["damaged"]), ("sound", 0))
        self.assertIn("from a region's header", mended["findings"][0]["what"])
        self.assertEqual(cairn("fsck", store)["verdict"], "sound")
        self.assertEqual(cairn("ls", store)["blocks"], listed["blocks"])
        with open(self.path, "r+b") as file:
            file.write(b"something else")
        self.assertEqual(cairn("fsck", store, status=1)["repairable"], 1)
        with open(self.path, "w+b") as file:
            file.write(b"something else" * 1000)
        said = cairn("fsck", store, "--repair", status=3)
        self.assertIn("not a flash store", said)
        self.assertIn("not a flash store", cairn("flash", "info", self.path, status=3))
        self.assertEqual(said.count("\n"), 1)

    def state(self):
        return {path: os.stat(path).st_mtime_ns
                for top, dirs, names in os.walk(os.path.dirname(self.path))
                for path in [top] + [os.path.join(top, name) for name in names]}

    def test_looking_changes_nothing(self):
        for store in self.stores[1:]:
            cairn("replay", store, "--generate", "rag", "--limit", "5")
            before = self.state()
            self.assertGreater(len(before), 1)
            for command in "ls", "stat", "fsck":
                cairn(command, store)
            self.assertEqual(self.state(), before)

    def test_kills(self):
        """However a writer ends: what the next one finds is sound, and has no wrong byte."""
        replay = ["replay", self.flash, "--generate", "chat", "--durability", "written"]
        seed = random.randrange(1 << 32)
        chance = random.Random(seed)
        cairn(*replay, "--limit", "100")
        for number in range(2 if SHORT else 5):
            with self.subTest(seed=seed, round=number):
                before = os.stat(self.path + ".log").st_mtime_ns
                writer = [*replay, "--limit", "1000000"]
                if number % 2:
                    writer = ["bench", self.flash, "--op", "dump", "--count", "20000", "--block",
                              "16KiB", "--pairs", "1"]
                run = subprocess.Popen([PROGRAM, *writer], stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
                self.addCleanup(run.wait)
                self.addCleanup(run.kill)
                until = time.monotonic() + 60
                while os.stat(self.path + ".log").st_mtime_ns == before:
                    self.assertLess(time.monotonic(), until) # it opens the store
                    self.assertIsNone(run.poll())
                    time.sleep(0.001)
                time.sleep(chance.random() / 4)
                run.kill()
                self.assertEqual(run.wait(), -signal.SIGKILL)
                check = subprocess.run([PROGRAM, "fsck", self.flash], capture_output=True,
                                       text=True)
                self.assertLess(check.returncode, 2, check.stdout + check.stderr)
                r = cairn(*replay, "--limit", "200")
                self.assertEqual((r["requests"], r["wrong_bytes"], r["failed_xfers"]), (200, 0, 0))
                self.assertGreater(r["blocks_hit"], 0)

    def test_interrupt(self):
        run = subprocess.Popen([PROGRAM, "replay", f"posix(path={self.path})", "--generate", "chat",
                                "--limit", "1000000"], stdout=subprocess.PIPE, text=True)
        until = time.monotonic() + 60
        while not os.path.isdir(os.path.join(self.path, "b")) and time.monotonic() < until:
            time.sleep(0.01)
        run.send_signal(signal.SIGINT)
        said, _ = run.communicate(timeout=60)
        self.assertEqual(run.returncode, 130)
        self.assertRegex(said, r"wrong bytes +0 ")

    def on_terminal(self, **variables):
        """What a replay prints when its output is a terminal."""
        primary, secondary = pty.openpty()
        environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
        environment.update(TERM="xterm", **variables)
        run = subprocess.Popen([PROGRAM, "replay", "null", "--generate", "chat", "--limit", "3000"],
                               stdout=secondary, stderr=secondary, env=environment)
        os.close(secondary)
        said = b""
        while True:
            try:
                more = os.read(primary, 65536)
            except OSError: # the last one closed it
                break
            if not more:
                break
            said += more
        os.close(primary)
        self.assertEqual(run.wait(), 0)
        return said

    def test_terminal(self):
        said = self.on_terminal()
        self.assertIn(b"\r", said)
        self.assertIn(b"\x1b[1m", said)
        self.assertNotIn(b"\x1b[1m", self.on_terminal(NO_COLOR="1"))

    def test_errors(self):
        self.assertIn("column", cairn("replay", "posx(path=/x)", "--generate", "rag", status=2))


if __name__ == "__main__":
    unittest.main()
