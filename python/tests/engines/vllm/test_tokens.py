# SPDX-License-Identifier: Apache-2.0
"""Tokens are the same whatever becomes of the store: vLLM in this process, one engine at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import unittest
from typing import Any

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness


class Tokens(harness.ConnectorCase):
    prompts, blocks, saved = harness.shared_prompts()

    def test_flash(self) -> None:
        pipeline = harness.flash(self.here / "kv")
        self.open(pipeline)
        grown = self.round()
        self.assert_misses(grown)
        self.assertEqual(grown["save_blocks"], self.saved)
        grown = self.round()
        self.assert_hits(grown)
        self.assertEqual(grown["save_blocks"], 0)
        with self.subTest("another salt"):
            self.assert_misses(self.round(salt="of another tenant"))
        with self.subTest("reset"):
            harness.settle(self.llm)
            self.assertTrue(self.llm.reset_prefix_cache(reset_connector=True))
            grown = self.round()
            self.assert_misses(grown)
            self.assertEqual(grown["save_blocks"], self.saved)
        with self.subTest("restart"):
            self.open(pipeline)
            self.assert_hits(self.round())
        with self.subTest("damage done on purpose is seen"):
            self.damaged_on_purpose()
        with self.subTest("flipped bytes"):
            harness.flip(self.here / "kv", 64 << 10)
            grown = self.round()
            self.assertGreater(grown["load_failed_blocks"], 0)
            self.assert_heals()
        with self.subTest("other block size"):
            self.open(pipeline, block_size=64)
            self.assert_misses(self.round())
        with self.subTest("other dtype"):
            self.open(None, dtype="bfloat16")
            expected = harness.generate(self.llm, self.prompts)
            self.open(pipeline, dtype="bfloat16")
            self.assertEqual(harness.generate(self.llm, self.prompts), expected)
            self.assertGreater(harness.stored(self.llm)["lookups"], 0)
            self.assertEqual(harness.stored(self.llm)["lookup_hit_blocks"], 0)

    def test_cache_over_flash(self) -> None:
        """A memory tier above: hits come out of it, and after a restart from below it."""
        for size in ("256MiB", "8MiB"):
            with self.subTest(size):
                pipeline = f"cache(size={size}) | {harness.flash(self.here / size)}"
                self.open(pipeline)
                self.assert_misses(self.round())
                self.assert_hits(self.round())
                if size == "256MiB":
                    self.assertEqual(self.counter("flash.load_hits"), 0)
                    self.assertGreater(self.counter("cache.load_hits"), 0)
                self.assert_misses(self.round(salt="of another tenant"))
                harness.settle(self.llm)
                self.assertTrue(self.llm.reset_prefix_cache(reset_connector=True))
                self.assert_misses(self.round())
                self.open(pipeline)
                self.assert_hits(self.round())
                self.open(pipeline)  # nothing is in memory
                harness.flip(self.here / size, 64 << 10)
                self.assertGreater(self.round()["load_failed_blocks"], 0)
                self.assert_heals()

    @staticmethod
    def counter(name: str) -> int:
        from vllm.distributed.kv_transfer import get_kv_transfer_group

        return int(get_kv_transfer_group()._worker.store.counters()[name])

    def damaged_on_purpose(self) -> None:
        """The check can fail: KV that is loaded, and then is not what was saved."""
        from vllm.distributed.kv_transfer import get_kv_transfer_group

        worker = get_kv_transfer_group()._worker
        count = worker._count_load

        def damage(loading: Any, bad: dict[int, int]) -> None:
            for tensor in worker.pages.tensors.values():
                tensor[loading.blocks] = tensor[loading.blocks].flip(-1)
            count(loading, bad)

        worker._count_load = damage
        harness.reset(self.llm)
        tokens = harness.generate(self.llm, self.prompts)
        worker._count_load = count
        self.assertNotEqual(tokens, self.expected)

    def test_layerwise(self) -> None:
        self.open(
            harness.flash(self.here / "layers"), extra={"load": "layerwise"},
            kv_events_config={"enable_kv_cache_events": True, "publisher": "null"},
        )
        told: list[Any] = []
        connector = self.llm.llm_engine.engine_core.engine_core.scheduler.connector
        take = connector.take_events
        connector.take_events = lambda: told.extend(events := list(take())) or events
        self.round()
        with self.subTest("events"):
            self.assertEqual(sum(len(event.block_hashes) for event in told), self.saved)
            for event in told:
                self.assertEqual(event.medium, "STORAGE")
                self.assertEqual(len(event.token_ids), len(event.block_hashes) * harness.BLOCK)
        self.assert_hits(self.round())
        harness.flip(self.here / "layers", 64 << 10)
        self.assertGreater(self.round()["load_failed_blocks"], 0)
        self.assert_heals()

    def counters(self) -> dict[str, int]:
        """Of the store itself."""
        from vllm.distributed.kv_transfer import get_kv_transfer_group

        counters: dict[str, int] = get_kv_transfer_group()._worker.store.counters()
        return counters

    def test_truncated_files(self) -> None:
        self.open(f"posix(path={self.here / 'files'}, size={harness.SIZE})")
        self.round()
        self.assert_hits(self.round())
        cut = 0
        for path in (self.here / "files").rglob("*"):
            if path.is_file() and path.stat().st_size > 32 << 10:
                os.truncate(path, path.stat().st_size // 2)
                cut += 1
        self.assertGreater(cut, 0)
        self.assertLess(self.round()["load_blocks"], self.blocks)
        self.assert_heals()

    def test_truncated_flash(self) -> None:
        """The end of what was written is zeros, as after a lost write; and is not there at all."""
        path = self.here / "cut"
        size = 64 << 20
        self.open(harness.flash(path))
        self.round()
        self.assert_hits(self.round())
        with self.subTest("while it is open"):
            os.truncate(path, 2 << 20)
            os.truncate(path, size)
            self.assertLess(self.round()["load_blocks"], self.blocks)
            self.assertGreater(self.counters()["flash.damaged_blocks"], 0)
            self.assert_heals()
        with self.subTest("while it is closed"):
            self.close()
            os.truncate(path, 2 << 20)
            os.truncate(path, size)
            self.open(harness.flash(path))
            self.assertLess(self.round()["load_blocks"], self.blocks)
            self.assert_heals()
        with self.subTest("shorter"):
            self.close()
            os.truncate(path, 2 << 20)
            with self.assertRaisesRegex(Exception, "it was cut short"):
                self.open(harness.flash(path))

    def test_full_disk(self) -> None:
        folder = self.here / "small"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
        mounted = subprocess.run(mount, capture_output=True, text=True)
        if mounted.returncode:
            self.skipTest("a small file system takes root: " + mounted.stderr)
        # Lazily: the kernel lets go of a closed ring's files in its own time.
        self.addCleanup(subprocess.run, ["umount", "-l", str(folder)], check=True)
        self.addCleanup(self.close)
        self.open(f"posix(path={folder}/kv, direct=no)")
        self.assertEqual(self.round()["save_blocks"], self.saved)
        for i in range(10, 16):  # each of 18 blocks: half of what there is
            harness.generate(self.llm, [harness.prompt(i, 600)], 1)
        harness.settle(self.llm)
        evicted = self.counters()["posix.evicted_blocks"]
        self.assertGreater(evicted + harness.stored(self.llm)["save_failed_blocks"], 0)
        for _ in range(2):
            self.assertEqual(self.round()["load_failed_blocks"], 0)

    def test_disk_that_takes_nothing(self) -> None:
        self.open('fault(rule="dump:ENOSPC:1.0") | ' + harness.flash(self.here / "full"))
        grown = self.round()
        self.assertEqual((grown["save_blocks"], grown["save_failed_blocks"]), (0, self.saved))
        self.assert_misses(self.round())

    def test_loads_that_fail(self) -> None:
        """What was found and cannot be read is computed, and not asked for again."""
        self.open('fault(rule="load:EIO:1.0") | ' + harness.flash(self.here / "unread"))
        self.assert_misses(self.round())
        for _ in range(2):
            grown = self.round()
            self.assertEqual(grown["load_blocks"], 0)
            self.assertGreaterEqual(grown["load_failed_blocks"], self.blocks)
            self.assertEqual(grown["save_failed_blocks"], 0)

    def test_preempted(self) -> None:
        """Of three requests that grow two have room: the third goes on later, from where it was."""
        prompts = [harness.prompt(i, 300) for i in range(20, 23)]
        options: dict[str, Any] = {"max_model_len": 512, "num_gpu_blocks_override": 34}
        expected = [harness.generate(self.bare(), [one], 100)[0] for one in prompts]
        for stages in ("", "delay(write=100ms) | "):
            with self.subTest(stages):
                path = self.here / f"preempted{len(stages)}"
                self.open(stages + harness.flash(path), **options)
                for _ in range(2):
                    harness.reset(self.llm)
                    before = harness.metric(self.llm, "vllm:num_preemptions")
                    self.assertEqual(harness.generate(self.llm, prompts, 100), expected)
                    after = harness.metric(self.llm, "vllm:num_preemptions")
                    self.assertGreater(after, before)
                    counts = harness.stored(self.llm)
                    harness.report(test=self.id(), preempted=after - before, **counts)
                    self.assertEqual(counts["load_failed_blocks"], 0)
                self.assertGreater(counts["load_blocks"], 0)

    def bare(self) -> Any:
        """An engine without a store."""
        if self.llm is None:
            self.open(None)
        return self.llm

    def test_small_store(self) -> None:
        """More than the store holds: something is evicted, and nothing is wrong."""
        self.open(harness.flash(self.here / "little", "16MiB"))
        for _ in range(2):
            harness.reset(self.llm)
            harness.generate(self.llm, [harness.prompt(i, 600) for i in range(10, 30)], 1)
        grown = self.round()
        self.assertEqual((grown["load_failed_blocks"], grown["save_failed_blocks"]), (0, 0))
        self.assertGreater(self.counters()["flash.evicted_blocks"], 0)
        self.assert_hits(self.round())

    def test_killed_while_saving(self) -> None:
        pipeline = f"delay(write=1s, depth=1) | {harness.flash(self.here / 'killed')}"
        code = (
            "import os, sys; os.environ['VLLM_ENABLE_V1_MULTIPROCESSING'] = '0';"
            f"sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r});"
            "import harness, json;"
            f"llm = harness.engine({self.model!r}, {pipeline!r});"
            "print('ready', flush=True);"
            "harness.generate(llm, json.loads(sys.stdin.readline()), 8);"
            "harness.settle(llm)"
        )
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )
        assert child.stdin is not None and child.stdout is not None
        for line in child.stdout:
            if line.startswith("ready"):
                break
        child.stdin.write(repr(self.prompts) + "\n")
        child.stdin.flush()
        while self.dumps_of(pipeline) == 0:
            self.assertIsNone(child.poll(), "it has ended")
        child.send_signal(signal.SIGKILL)
        self.assertEqual(child.wait(), -signal.SIGKILL)
        child.stdin.close()
        child.stdout.close()
        self.open(harness.flash(self.here / "killed"))
        grown = self.round()
        self.assertLess(grown["load_blocks"], self.blocks)
        self.assertEqual(grown["load_failed_blocks"], 0)
        self.assert_hits(self.round())

    @staticmethod
    def dumps_of(pipeline: str) -> int:
        """Of the store that another process has open."""
        command = [sys.executable, "-m", "cairn", "stat", pipeline, "--json"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return int(json.loads(told)["stages"]["flash"]["dumps"])


if __name__ == "__main__":
    unittest.main()
