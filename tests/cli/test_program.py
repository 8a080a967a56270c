#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The cairn program as its users see it, over the tests' store: argv[1] is the program."""

import gzip
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import unittest

import prometheus

PROGRAM = sys.argv.pop(1)
COMMANDS = ["replay", "bench", "fsck", "flash", "stat", "ls", "rm", "stages", "version"]
REPLAY_FIELDS = """requests prompt_tokens tokens_saved blocks blocks_hit hit_share bytes_dumped
    bytes_loaded load_p50_us load_p99_us seconds bytes_per_s wrong_bytes damaged failed_xfers
    refused too_large evicted_blocks cpu_seconds peak_rss_bytes counters""".split()
BENCH_FIELDS = """op block_bytes count depth clients pairs registered bytes_per_s ops_per_s
    p50_us p99_us p999_us cpu_s_per_gb bare ratio ratio_lo ratio_hi ratio_p50 ratio_p50_lo
    ratio_p50_hi runs""".split()
RUN_FIELDS = "bytes_per_s ops_per_s p50_us p99_us cpu_s_per_gb".split()


def cairn(*args, stdin=None):
    return subprocess.run([PROGRAM, *args], capture_output=True, text=True, input=stdin)


def line(ids, tokens=None, time=0):
    return json.dumps({"timestamp": time, "input_length": tokens or 512 * len(ids),
                       "output_length": 1, "hash_ids": ids}) + "\n"


class Replay(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)

    def trace(self, *lines, name="t.jsonl"):
        path = os.path.join(self.dir.name, name)
        with (gzip.open if name.endswith(".gz") else open)(path, "wt") as file:
            file.writelines(lines)
        return path

    def replay(self, *args, status=0, pipeline="fake"):
        run = cairn("replay", pipeline, *args, "--json")
        self.assertEqual(run.returncode, status, run.stderr)
        result = json.loads(run.stdout)
        self.assertEqual(list(result), REPLAY_FIELDS)
        return result

    def test_counts(self):
        # the last block of a prompt is partial; 4 comes again, but behind a block that does not
        path = self.trace(line([1, 2, 3], 1100), line([1, 2, 3], 1100), line([1, 9, 4]),
                          line([7, 4]), line([]), line([1, 9, 4, 5], 2000), name="t.jsonl.gz")
        for extra in [], ["--shards", "4"], ["--no-verify"], ["--durability", "durable"]:
            r = self.replay("--trace", path, "--block", "4KiB", *extra)
            self.assertEqual(r["requests"], 6)
            self.assertEqual(r["blocks"], 15)
            self.assertEqual(r["blocks_hit"], 3 + 1 + 3)
            self.assertEqual(r["tokens_saved"], 1100 + 512 + 1536)
            self.assertEqual(r["prompt_tokens"], 1100 * 2 + 1536 + 1024 + 2000)
            self.assertAlmostEqual(r["hit_share"], 7 / 15)
            self.assertEqual(r["bytes_dumped"], 7 * 4096)
            self.assertEqual(r["bytes_loaded"], 7 * 4096)
            self.assertEqual(r["wrong_bytes"], 0)

    def test_sources_do_not_meet(self):
        a = self.trace(line([1, 2]), name="a")
        b = self.trace(line([1, 2]), name="b")
        self.assertEqual(self.replay("--trace", a, b)["blocks_hit"], 0)
        self.assertEqual(self.replay("--trace", a, "--trace", b)["blocks_hit"], 0)

    def test_wrong_byte(self):
        path = self.trace(line([1, 2, 3]), line([1, 2, 3]))
        r = self.replay("--trace", path, pipeline="fake(wrong=2)", status=1)
        self.assertEqual(r["wrong_bytes"], 1)
        self.assertEqual(r["blocks_hit"], 1)
        run = cairn("replay", "fake(wrong=2)", "--trace", path)
        self.assertEqual(run.returncode, 1)
        self.assertIn("WRONG", run.stdout)
        self.assertIn("1 wrong bytes from offset 8192", run.stderr)

    def test_damage_is_a_miss(self):
        path = self.trace(line([1, 2, 3]), line([1, 2, 3]))
        r = self.replay("--trace", path, pipeline="fake(damage=2)")
        self.assertEqual((r["damaged"], r["blocks_hit"], r["tokens_saved"]), (1, 1, 512))
        r = self.replay("--trace", path, pipeline="fake(vanish=1)")
        self.assertEqual((r["damaged"], r["blocks_hit"], r["failed_xfers"]), (0, 0, 0))

    def test_failures(self):
        path = self.trace(line([1, 2, 3]), line([1, 2, 3]))
        r = self.replay("--trace", path, pipeline="fake(fail=3)", status=1)
        self.assertEqual((r["failed_xfers"], r["blocks_hit"]), (1, 2))
        r = self.replay("--trace", path, pipeline="fake(refuse=1)")
        self.assertEqual((r["refused"], r["too_large"], r["blocks_hit"]), (1, 0, 0))
        self.assertEqual(self.replay("--trace", path, pipeline="again")["blocks_hit"], 3)

    def test_more_than_a_slot_holds(self):
        path = self.trace(line(list(range(6))), line(list(range(6))))
        r = self.replay("--trace", path, "--block", "32MiB")
        self.assertEqual((r["blocks_hit"], r["wrong_bytes"]), (6, 0))

    def test_clients(self):
        r = self.replay("--generate", "agent", "--limit", "300", "--clients", "4")
        self.assertEqual((r["requests"], r["wrong_bytes"]), (300, 0))
        self.assertEqual(r["bytes_loaded"], 16384 * r["blocks_hit"])

    def test_speed(self):
        path = self.trace(line([1], time=0), line([2], time=1000))
        self.assertGreaterEqual(self.replay("--trace", path, "--speed", "5")["seconds"], 0.2)
        # A file goes on where the one before it ended, whatever its clock began with.
        late = self.trace(line([3], time=1.7e12), line([4], time=1.7e12 + 1000), name="late.jsonl")
        self.assertGreaterEqual(
            self.replay("--trace", path, late, "--speed", "5")["seconds"], 0.4)

    def test_limit_and_stdin(self):
        text = "".join(line([n]) for n in range(5))
        run = cairn("replay", "fake", "--trace", "-", "--limit", "2", "--json", stdin=text)
        self.assertEqual(json.loads(run.stdout)["requests"], 2)

    def test_table(self):
        run = cairn("replay", "fake", "--trace", self.trace(line([1, 2]), line([1, 2, 3])))
        self.assertEqual(run.returncode, 0)
        self.assertEqual(run.stderr, "")
        self.assertNotIn("\033", run.stdout)
        self.assertRegex(run.stdout, r"prefix hits +2 +40\.0 %")
        self.assertRegex(run.stdout, r"wrong bytes +0")

    def test_bad_traces(self):
        for lines, text in [(["{}"], 'line 1: "timestamp" is missing'), ([], "no request in it")]:
            run = cairn("replay", "fake", "--trace", self.trace(*lines))
            self.assertEqual((run.returncode, run.stdout), (3, ""))
            self.assertIn(text, run.stderr)
            self.assertEqual(run.stderr.count("\n"), 1)


class Bench(unittest.TestCase):
    def bench(self, *args, status=0):
        run = cairn("bench", *args, "--pairs", "2", "--json")
        self.assertEqual(run.returncode, status, run.stderr)
        result = json.loads(run.stdout)
        self.assertEqual(list(result), BENCH_FIELDS)
        self.assertEqual(list(result["bare"]), ["what", "bytes_per_s", "p50_us"])
        self.assertGreater(result["ratio"], 0)
        self.assertLessEqual(result["ratio_lo"], result["ratio"])
        self.assertLessEqual(result["ratio"], result["ratio_hi"])
        self.assertLessEqual(result["ratio_p50_lo"], result["ratio_p50"])
        self.assertLessEqual(result["ratio_p50"], result["ratio_p50_hi"])
        self.assertEqual([list(r) for r in result["runs"]], [RUN_FIELDS] * 2)
        return result

    def test_memory(self):
        for op in "load", "dump", "mixed":
            r = self.bench("null", "--op", op, "--count", "40", "--block", "12KiB",
                           "--clients", "2", "--shards", "3", "--depth", "4")
            self.assertEqual((r["op"], r["bare"]["what"], r["depth"]), (op, "memcpy", 4))
            self.assertIs(r["registered"], True)
        r = self.bench("null", "--count", "10", "--registered", "no")
        self.assertIs(r["registered"], False)
        r = self.bench("null", "--op", "lookup", "--count", "10", "--fill", "35", "--spaced", "1us")
        self.assertEqual(r["bare"]["what"], "serial probes of a hash table in memory")
        self.assertEqual(r["bytes_per_s"], 0)

    def test_files(self):
        with tempfile.TemporaryDirectory() as dir:
            path = os.path.join(dir, "kv")
            for op in "load", "dump", "mixed":
                r = self.bench(f'posix(path="{path}", direct=no)', "--op", op, "--count", "20",
                               "--block", "5000", "--depth", "4")
                self.assertIn("pread" if op != "dump" else "rename", r["bare"]["what"])
                self.bench(f"posix(path={path})", "--op", op, "--count", "10", "--depth", "1",
                           "--block", "8KiB", "--durability", "durable")
            run = cairn("bench", f"cache(size=1GiB) | posix(path={path}, shared=yes)", "--op",
                        "lookup", "--count", "10", "--fill", "20")
            self.assertEqual((run.returncode, run.stdout), (3, "")) # the store has made no files
            self.assertIn("files of all keys", run.stderr)
            self.assertEqual(os.listdir(dir), [])

    def test_turns(self):
        """A run waits for its line; without a bare side, so without a place for its files."""
        args = ["bench", "null", "--count", "4", "--pairs", "2", "--turns", "--json"]
        with subprocess.Popen([PROGRAM, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True) as run:
            warm = json.loads(run.stdout.readline())
            self.assertEqual(list(warm), RUN_FIELDS)
            self.assertEqual(select.select([run.stdout], [], [], 0.2)[0], [])
            turns = []
            for _ in range(2):
                run.stdin.write("\n")
                run.stdin.flush()
                turns.append(json.loads(run.stdout.readline()))
            last = json.loads(run.stdout.read())
        self.assertEqual(run.returncode, 0)
        self.assertEqual(last["runs"], turns)
        self.assertEqual(list(last), [f for f in BENCH_FIELDS if not re.match("bare|ratio", f)])
        run = cairn(*args, stdin="\n")
        self.assertEqual(run.returncode, 1)
        self.assertIn("ended before the last run", run.stderr)
        run = cairn(*args[:-1])
        self.assertEqual((run.returncode, run.stdout), (2, ""))
        self.assertIn("--json", run.stderr)

    def test_wrong_bytes(self):
        run = cairn("bench", "null(wrong=5)", "--count", "4", "--pairs", "1", "--depth", "1")
        self.assertEqual(run.returncode, 1)
        self.assertIn("WRONG BYTES", run.stderr)
        run = cairn("bench", "null(fail=5)", "--count", "4", "--pairs", "1")
        self.assertEqual((run.returncode, run.stdout), (1, ""))

    def test_needs_a_directory(self):
        run = cairn("bench", "posix")
        self.assertEqual(run.returncode, 2)
        self.assertIn("--bare-dir", run.stderr)


class Others(unittest.TestCase):
    def json_of(self, *args, status=0):
        run = cairn(*args, "--json")
        self.assertEqual(run.returncode, status, run.stderr)
        return json.loads(run.stdout)

    def test_fsck(self):
        self.assertEqual(self.json_of("fsck", "fake")["verdict"], "sound")
        self.assertEqual(self.json_of("fsck", "repairable", status=1)["verdict"], "repairable")
        r = self.json_of("fsck", "damage", status=2)
        self.assertEqual((r["damaged"], r["findings"][0]["kind"]), (1, "damaged"))
        self.assertFalse(r["repair"])
        r = self.json_of("fsck", "repairable", "--repair")
        self.assertEqual((r["verdict"], r["repair"], r["notes"]), ("sound", True, 1))
        self.assertEqual(r["findings"][0]["what"], "mended: the superblock")
        self.assertEqual(self.json_of("fsck", "damage", "--repair", status=2)["damaged"], 1)
        said = cairn("fsck", "repairable", "--repair").stdout
        self.assertIn("mended: the superblock\nsound, or mended without a loss\n", said)
        self.assertEqual(cairn("fsck", "busy", "--repair").returncode, 3)
        self.assertEqual(cairn("fsck", "busy").returncode, 3)
        self.assertEqual(cairn("fsck").returncode, 4)
        self.assertEqual(cairn("fsck", "x", "--nope").returncode, 4)

    def test_flash(self):
        info = {"store": {"bytes": 4096, "in_use": "yes", "owner": 4711},
                "namespaces": [{"number": 0, "key": "a0", "shards": 2},
                               {"number": 1, "key": ""}]}
        self.assertEqual(self.json_of("flash", "info", "/store"), info)
        self.assertEqual(self.json_of("flash", "info", '/a "b\\'),
                         {"store": info["store"], "namespaces": []})
        region = self.json_of("flash", "dump-region", "/store", "7")
        self.assertEqual(region, {"store": info["store"], "records": info["namespaces"],
                                  "region": {"number": 7, "state": "sealed"}})
        region = self.json_of("flash", "dump-region", "/store", "8")
        self.assertEqual(region["records"], [])
        said = cairn("flash", "info", "/store").stdout.splitlines()
        self.assertEqual(said[2:5], ["owner                4711",
                                     "namespace 0: key a0 shards 2", 'namespace 1: key ""'])
        self.assertIn("process 4711 has it open", said[5])
        said = cairn("flash", "dump-region", "/store", "7").stdout.splitlines()
        self.assertEqual(said[:3], ["record 0: key a0 shards 2", 'record 1: key ""',
                                    "region 7: state sealed"])
        run = cairn("flash", "info", "/nothing", "--json")
        self.assertEqual((run.returncode, run.stdout, run.stderr),
                         (3, "", "cairn flash: flash: no\n"))
        for args in (["dump-region", "/store", "9"], ["dump-region", "/store", "x"], ["what", "/s"],
                     ["dump-region", "/store"], ["info", "/store", "1"], ["info"]):
            run = cairn("flash", *args)
            self.assertEqual((args, run.returncode, run.stdout), (args, 2, ""))
            self.assertEqual(run.stderr.count("\n"), 1)

    def test_stat(self):
        r = self.json_of("stat", "busy")
        self.assertEqual(r, {"live": True, "pid": 4711, "shared": False, "engine": "aio",
                             "engine_note": "io_uring: no",
                             "stages": {"fake": {"load_hits": 42}},
                             "latencies": {
                                 "load": {"calls": 6, "mean_us": 0.9, "p50_us": 1.024,
                                          "p99_us": None, "p999_us": None},
                                 "dump": {"calls": 0}}})
        said = cairn("stat", "busy").stdout
        self.assertTrue(said.startswith("open in process 4711, I/O by aio (io_uring: no)\n\n"))
        told = said[said.index("\nhow long calls took\n"):].splitlines()[2:]
        self.assertEqual([line.split() for line in told],
                         [["load", "p50", "1.02", "us", "at", "most,", "of", "6", "calls"],
                          ["load", "p99", "over", "2.05", "us"],
                          ["load", "p99.9", "over", "2.05", "us"]])
        self.assertIn("\nshared: these are the counters of this process alone",
                      cairn("stat", "busy,shared").stdout)
        self.assertTrue(self.json_of("stat", "busy,shared")["shared"])
        r = self.json_of("stat", "pageless")
        self.assertEqual((r["live"], r["pid"], r["blocks"]), (True, None, 3))
        self.assertTrue(cairn("stat", "pageless").stdout.startswith(
            "open, but without a page to read; on the medium:\n"))
        r = self.json_of("stat", "fake")
        self.assertEqual((r["live"], r["blocks"], r["stored_bytes"]), (False, 3, 24576))
        self.assertEqual(cairn("stat", "broken").returncode, 2)

    def test_stat_of_memory(self):
        """A cache that somebody has open, and no page that says so; and one that is kept."""
        r = self.json_of("stat", "memory")
        self.assertEqual((r["live"], r["pid"], r["memory"]["fake"]["clients"]), (True, None, 2))
        said = cairn("stat", "memory").stdout
        self.assertTrue(said.startswith(
            "open, but without a page to read\n\nfake: 12 KiB of 1 MiB"))
        self.assertNotIn("medium", said)
        r = self.json_of("stat", "memory,kept")
        self.assertEqual((r["live"], r["memory"]["fake"]["clients"]), (False, 0))
        self.assertNotIn("pid", r)
        said = cairn("stat", "memory,kept").stdout
        self.assertTrue(said.startswith("nobody has it open; on the medium:\n"))
        self.assertIn("; 0 processes, ", said)
        for spec, up in (("memory", 1), ("memory,kept", 0)):
            metrics, bad = prometheus.check(cairn("stat", spec, "--prometheus").stdout)
            self.assertEqual((bad, prometheus.value(metrics, "cairn_up"),
                              prometheus.value(metrics, "cairn_counters_up")), ([], up, 0))
        said = cairn("stat", "memory", "--watch=1ms", "--count", "1").stdout.splitlines()
        self.assertRegex(said[1], r"^( +-){7} +12 KiB +2 +5  4 KiB:12 KiB/1$")
        for spec, live in (("memory", True), ("memory,kept", False), ("pageless", True)):
            run = cairn("stat", spec, "--watch=1ms", "--count", "1", "--json")
            r = json.loads(run.stdout)
            self.assertEqual((r["live"], r["pid"], "total" in r), (live, None, False))
            said = cairn("stat", spec, "--watch=1ms", "--count", "1").stdout.splitlines()
            self.assertEqual(said[1] == "nobody has it open", not live)

    def test_watch(self):
        run = cairn("stat", "busy", "--watch=1ms", "--count", "2", "--json")
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        first, second = (json.loads(line) for line in run.stdout.splitlines())
        self.assertEqual((first["pid"], first["total"]["load_hits"]), (4711, 0))
        # Its counter does not move.
        self.assertEqual(first["stages"]["fake"]["total"]["load_hits"], 42)
        self.assertEqual(first["stages"]["fake"]["total"]["hit_rate"], 1)
        self.assertEqual(second["stages"]["fake"]["interval"]["load_hits"], 0)
        self.assertIsNone(second["stages"]["fake"]["interval"]["hit_rate"])
        self.assertEqual(second["memory"]["fake"], {
            "bytes": 1 << 20, "used_bytes": 12288, "dirty_bytes": 4096, "blocks": 3,
            "clients": 2, "pins": 5, "chunk_bytes": 0, "chunks_backed": 0, "chunks_free": 0,
            "classes": [{"slot_bytes": 4096, "chunks": 1, "slots": 256, "slots_used": 3,
                         "used_bytes": 12288}]})
        said = cairn("stat", "busy", "--watch=1ms", "--count", "21").stdout.splitlines()
        self.assertEqual([n for n, line in enumerate(said) if "evicted" in line], [0, 21])
        self.assertRegex(said[1], r"12 KiB +2 +5  4 KiB:12 KiB/1$")
        for args in (["--watch", "--prometheus"], ["--count", "1"], ["--watch=x"],
                     ["--watch=1ns"], ["--watch", "--count", "0"]):
            run = cairn("stat", "busy", *args)
            self.assertEqual((args, run.returncode, run.stdout), (args, 2, ""))
            self.assertEqual(run.stderr.count("\n"), 1)
        self.assertEqual(cairn("stat", "broken", "--watch").returncode, 2)

    def test_stat_for_prometheus(self):
        run = cairn("stat", "busy", "--prometheus", "--label", 'store=a"\\', "--label", "rack=7")
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        metrics, bad = prometheus.check(run.stdout)
        self.assertEqual(bad, [])
        both = {"store": 'a\\"\\\\', "rack": "7"}
        for name, expected, labels in (
                ("cairn_up", 1, {}), ("cairn_counters_up", 1, {}),
                ("cairn_engine_info", 1, {"engine": "aio"}),
                ("cairn_stage_load_hits_total", 42, {"stage": "fake"}),
                ("cairn_call_duration_seconds_bucket", 3,
                 {"op": "load", "le": "1.024e-06"}),
                ("cairn_call_duration_seconds_bucket", 5,
                 {"op": "load", "le": "2.048e-06"}),
                ("cairn_call_duration_seconds_bucket", 6,
                 {"op": "load", "le": "+Inf"}),
                ("cairn_call_duration_seconds_sum", 5.4e-6, {"op": "load"}),
                ("cairn_call_duration_seconds_count", 6, {"op": "load"})):
            self.assertEqual(prometheus.value(metrics, name, **labels, **both), expected)
        for spec, up in (("fake", 0), ("pageless", 1)):
            run = cairn("stat", spec, "--prometheus")
            metrics, bad = prometheus.check(run.stdout)
            self.assertEqual((run.returncode, bad), (0, []))
            self.assertEqual(prometheus.value(metrics, "cairn_up"), up)
            self.assertEqual(prometheus.value(metrics, "cairn_counters_up"), 0)
        for args in (["--prometheus", "--json"], ["--label", "a=b"], ["--prometheus", "--label"],
                     ["--prometheus", "--label", "a"], ["--prometheus", "--label", "1=b"],
                     ["--prometheus", "--label", "__a=b"], ["--prometheus", "--label", "op=b"],
                     ["--prometheus", "--label", "a=b", "--label", "a=c"],
                     ["--prometheus", "--label", "a=" + "x" * 2000]):
            run = cairn("stat", "busy", *args)
            self.assertEqual((args[:2], run.returncode, run.stdout), (args[:2], 2, ""))
            self.assertEqual(run.stderr.count("\n"), 1)

    def test_the_rules_find_what_breaks_them(self):
        good = "# HELP cairn_a_total x\n# TYPE cairn_a_total counter\ncairn_a_total 1\n"
        self.assertEqual(prometheus.check(good)[1], [])
        for broken in (good[:-1], good.replace("_total", ""), good.replace("counter", "gauge"),
                       good + "cairn_a_total 2\n", good.replace(" 1\n", " 1 7\n"),
                       good.replace("# HELP cairn_a_total x\n", ""), good.replace(" 1", " one"),
                       good.replace("_a_", "_a_ms_"), good.replace("_a_", "_bytes_a_"),
                       good.replace("_total 1", '_total{le="1"} 1'),
                       good.replace("_total 1", '_total{a="1" b="2"} 1'),
                       good.replace("_a_", "_B_")):
            self.assertNotEqual(prometheus.check(broken)[1], [], broken)

    def test_ls(self):
        self.assertEqual(self.json_of("ls", "pageless")["complete"], False)
        self.assertIn("a process has it open", cairn("ls", "pageless").stdout)
        r = self.json_of("ls", "fake")
        self.assertEqual((r["count"], len(r["blocks"]), r["complete"]), (3, 3, True))
        self.assertEqual(r["blocks"][0]["model"], 'm"odel')
        self.assertIsNone(r["blocks"][0]["attributes"])
        self.assertEqual(r["blocks"][1]["attributes"], {
            "parent": "ab" + 30 * "0", "chained": False, "depth": 3, "priority": 7,
            "ttl_ns": 0, "cost_ns": 0})
        for limit, complete in ("1", False), ("2", False), ("3", True):
            r = self.json_of("ls", "fake", "--limit", limit)
            self.assertEqual((r["count"], r["complete"]), (int(limit), complete))
        keys = cairn("ls", "fake", "--keys")
        self.assertEqual((len(keys.stdout.split()), keys.stderr), (3, ""))
        keys = cairn("ls", "pageless", "--keys")
        self.assertEqual(keys.stdout.split(), cairn("ls", "fake", "--keys").stdout.split())
        self.assertEqual(keys.stderr, "cairn ls: a process has it open: what it changed meanwhile, "
                         "or has not written yet, may be missing\n")
        self.assertEqual(cairn("ls", "broken").returncode, 2)

    def test_rm(self):
        key = "0" * 32
        r = self.json_of("rm", "fake", key, key, status=1)
        self.assertEqual((r["removed"], r["absent"]), (0, 1))
        run = cairn("rm", "fake", "-", "--json", stdin=f"{key}\n\n{'1' * 32}\n")
        self.assertEqual(json.loads(run.stdout)["absent"], 2)
        self.assertEqual(cairn("rm", "fake").returncode, 2)
        self.assertIn("is no key", cairn("rm", "fake", "abc").stderr)

    def test_stages(self):
        r = self.json_of("stages")
        self.assertEqual(r["compositions"][0]["name"], "local")
        self.assertTrue(r["stages"][0]["options"][0]["required"])
        self.assertIn("the directory (required)", cairn("stages", "fake").stdout)
        run = cairn("stages", "fkae")
        self.assertEqual(run.returncode, 2)
        self.assertIn('did you mean "fake"', run.stderr)

    def test_version(self):
        self.assertEqual(self.json_of("version"), {"version": "0.0.0"})
        self.assertEqual(cairn("--version").stdout, "cairn 0.0.0\n")


class CommandLine(unittest.TestCase):
    def test_help(self):
        overview = cairn("help")
        self.assertEqual((overview.returncode, overview.stderr), (0, ""))
        for name in COMMANDS:
            self.assertIn(f"\n  {name} ", overview.stdout)
            run = cairn(name, "--help")
            self.assertEqual((run.returncode, run.stderr), (0, ""))
            self.assertTrue(run.stdout.startswith(f"usage: cairn {name} "))
            for form in run.stdout.partition("\n\n")[0].splitlines()[1:]:
                self.assertTrue(form.startswith(f"       cairn {name} "), form)
            self.assertIn("  --json", run.stdout)
            self.assertLessEqual(max(map(len, run.stdout.splitlines())), 85)
            self.assertEqual(cairn("help", name).stdout, run.stdout)
            if name != "version":
                self.assertIn("Example", run.stdout)
                self.assertIn("Exit status:", run.stdout)

    def test_errors(self):
        for args, text in [
            ([], "usage: cairn"),
            (["reply"], 'unknown command "reply"; did you mean "replay"?'),
            (["frobnicate"], "see 'cairn help'"),
            (["replay"], "no PIPELINE given"),
            (["replay", "f"], "no trace; give --trace FILE"),
            (["replay", "f", "--trase", "x"], "unknown option --trase; did you mean --trace?"),
            (["replay", "f", "--zzzzz"], "unknown option --zzzzz;"),
            (["replay", "f", "-x"], "unknown option -x"),
            (["replay", "f", "--seed"], "--seed needs a value"),
            (["replay", "f", "--json=1"], "--json=1 takes no value"),
            (["replay", "f", "--generate", "cat"], '"cat" is not one of chat|rag|agent'),
            (["replay", "f", "--generate", "rag", "--trace", "x"], "--generate excludes those"),
            (["replay", "f", "--trace", "x", "--seed", "1"], "--seed belongs to --generate"),
            (["replay", "f", "--generate", "rag", "--block", "5x"], '"5x" is not a size'),
            (["replay", "f", "--generate", "rag", "--clients", "0"], "0 is outside 1 to 1024"),
            (["replay", "f", "--generate", "rag", "--speed", "-1"], "is not a number above 0"),
            (["replay", "f", "--generate", "rag", "--block", "10", "--shards", "3"], "12 would be"),
            (["replay", "f", "--generate", "rag", "--block", "1GiB"], "16 would do"),
            (["replay", "broken", "--generate", "rag"], "line 1, column 1"),
            (["bench", "null", "--spaced", "2ms", "--depth", "2"], "--depth 1"),
            (["bench", "null", "--spaced", "2"], '"2" is not a time'),
            (["bench", "null", "--fill", "2"], "belongs to --op lookup"),
            (["stat", "a", "b"], 'unexpected "b"'),
        ]:
            run = cairn(*args)
            self.assertEqual((run.returncode, run.stdout), (2, ""), args)
            self.assertIn(text, run.stderr)
            self.assertTrue(not args or run.stderr.count("\n") == 1, run.stderr)

    def test_full_disk(self):
        with open("/dev/full", "w") as full:
            run = subprocess.run([PROGRAM, "help"], stdout=full, stderr=subprocess.DEVNULL)
        self.assertEqual(run.returncode, 3)


if __name__ == "__main__":
    unittest.main()
