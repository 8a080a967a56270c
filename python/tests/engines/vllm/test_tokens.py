# SPDX-License-Identifier: Apache-2.0
"""Tokens are the same whatever becomes of the store: vLLM in this process, one engine at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path
from typing import Any

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness

HERE: Path
MODEL: str
PROMPTS: list[list[int]]
EXPECTED: list[list[int]]
BLOCKS: int  # full blocks of the prompts, what they share once
SAVED: int  # likewise, with what is generated


def setUpModule() -> None:
    global HERE, MODEL, PROMPTS, EXPECTED, BLOCKS, SAVED
    HERE = harness.folder()
    MODEL = harness.make_model(HERE / "model")
    shared = harness.prompt(1, 300)
    PROMPTS = [shared, harness.prompt(2, 200), [*shared[:160], *harness.prompt(3, 60)]]
    BLOCKS = 300 // harness.BLOCK + 200 // harness.BLOCK + 220 // harness.BLOCK - 5
    SAVED = BLOCKS + 1  # 220 and 7 more of those computed
    llm = harness.engine(MODEL, None)
    EXPECTED = harness.generate(llm, PROMPTS)
    harness.close(llm)


def flip(path: Path, every: int) -> None:
    """Flips a byte in each `every` of a file, past its first MiB of metadata."""
    with open(path, "r+b", buffering=0) as file:
        for at in range(1 << 20, path.stat().st_size, every):
            byte = os.pread(file.fileno(), 1, at)
            os.pwrite(file.fileno(), bytes([byte[0] ^ 0x5A]), at)


class Tokens(unittest.TestCase):
    llm: Any = None

    def open(self, pipeline: str, **options: Any) -> None:
        self.llm = harness.engine(MODEL, pipeline, **options)

    def tearDown(self) -> None:
        if self.llm is not None:
            harness.close(self.llm)
            self.llm = None

    def round(self, **options: Any) -> dict[str, int]:
        """Generates with vLLM's own cache empty; what our counters grew by."""
        harness.reset(self.llm)
        before = harness.stored(self.llm)
        hits = harness.metric(self.llm, "vllm:external_prefix_cache_hits")
        self.assertEqual(harness.generate(self.llm, PROMPTS, **options), EXPECTED)
        harness.settle(self.llm)
        harness.generate(self.llm, [harness.prompt(99, 4)], 1)  # a step more: its counts
        after = harness.stored(self.llm)
        grown = {name: after[name] - before[name] for name in after}
        grown["external"] = harness.metric(self.llm, "vllm:external_prefix_cache_hits") - hits
        harness.report(test=self.id(), **grown)
        return grown

    def assert_hits(self, grown: dict[str, int]) -> None:
        self.assertGreaterEqual(grown["load_blocks"], BLOCKS)
        self.assertEqual(grown["load_failed_blocks"], 0)
        self.assertEqual(grown["external"], grown["load_blocks"] * harness.BLOCK)

    def assert_heals(self) -> None:
        """Damage is found when it is loaded; what is computed in its place is saved again."""
        for _ in range(3):
            grown = self.round()
            if grown["load_failed_blocks"] == 0 and grown["load_blocks"] >= BLOCKS:
                break
        self.assert_hits(grown)

    def assert_misses(self, grown: dict[str, int]) -> None:
        self.assertEqual((grown["load_blocks"], grown["external"]), (0, 0))
        self.assertGreater(grown["lookups"], 0)

    def test_flash(self) -> None:
        pipeline = harness.flash(HERE / "kv")
        self.open(pipeline)
        grown = self.round()
        self.assert_misses(grown)
        self.assertEqual(grown["save_blocks"], SAVED)
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
            self.assertEqual(grown["save_blocks"], SAVED)
        with self.subTest("restart"):
            self.tearDown()
            self.open(pipeline)
            self.assert_hits(self.round())
        with self.subTest("damage done on purpose is seen"):
            self.damaged_on_purpose()
        with self.subTest("flipped bytes"):
            flip(HERE / "kv", 64 << 10)
            grown = self.round()
            self.assertGreater(grown["load_failed_blocks"], 0)
            self.assert_heals()
        with self.subTest("other block size"):
            self.tearDown()
            self.open(pipeline, block_size=64)
            self.assert_misses(self.round())
        with self.subTest("other dtype"):
            self.tearDown()
            self.open(pipeline, dtype="bfloat16")
            harness.generate(self.llm, PROMPTS)
            self.assertGreater(harness.stored(self.llm)["lookups"], 0)
            self.assertEqual(harness.stored(self.llm)["lookup_hit_blocks"], 0)

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
        tokens = harness.generate(self.llm, PROMPTS)
        worker._count_load = count
        self.assertNotEqual(tokens, EXPECTED)

    def test_layerwise(self) -> None:
        self.open(
            harness.flash(HERE / "layers"), extra={"load": "layerwise"},
            kv_events_config={"enable_kv_cache_events": True, "publisher": "null"},
        )
        told: list[Any] = []
        connector = self.llm.llm_engine.engine_core.engine_core.scheduler.connector
        take = connector.take_events
        connector.take_events = lambda: told.extend(events := list(take())) or events
        self.round()
        with self.subTest("events"):
            self.assertEqual(sum(len(event.block_hashes) for event in told), SAVED)
            for event in told:
                self.assertEqual(event.medium, "STORAGE")
                self.assertEqual(len(event.token_ids), len(event.block_hashes) * harness.BLOCK)
        self.assert_hits(self.round())
        flip(HERE / "layers", 64 << 10)
        self.assertGreater(self.round()["load_failed_blocks"], 0)
        self.assert_heals()

    def test_truncated_files(self) -> None:
        self.open(f"posix(path={HERE / 'files'}, size={harness.SIZE})")
        self.round()
        self.assert_hits(self.round())
        cut = 0
        for path in (HERE / "files").rglob("*"):
            if path.is_file() and path.stat().st_size > 32 << 10:
                os.truncate(path, path.stat().st_size // 2)
                cut += 1
        self.assertGreater(cut, 0)
        grown = self.round()
        self.assertLess(grown["load_blocks"], BLOCKS)
        self.assert_heals()

    def test_full_disk(self) -> None:
        self.open('fault(rule="dump:ENOSPC:1.0") | ' + harness.flash(HERE / 'full'))
        grown = self.round()
        self.assertEqual((grown["save_blocks"], grown["save_failed_blocks"]), (0, SAVED))
        self.assert_misses(self.round())

    def test_small_store(self) -> None:
        """More than the store holds: something is evicted, and nothing is wrong."""
        self.open(harness.flash(HERE / "little", "16MiB"))
        for _ in range(2):
            harness.reset(self.llm)
            harness.generate(self.llm, [harness.prompt(i, 600) for i in range(10, 30)], 1)
        self.round()

    def test_killed_while_saving(self) -> None:
        pipeline = f"delay(write=20ms) | {harness.flash(HERE / 'killed')}"
        code = (
            "import os, sys; os.environ['VLLM_ENABLE_V1_MULTIPROCESSING'] = '0';"
            f"sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r});"
            "import harness, json;"
            f"llm = harness.engine({MODEL!r}, {pipeline!r});"
            "print('ready', flush=True);"
            "harness.generate(llm, json.loads(sys.stdin.readline()), 8)"
        )
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )
        assert child.stdin is not None and child.stdout is not None
        for line in child.stdout:
            if line.startswith("ready"):
                break
        child.stdin.write(repr(PROMPTS) + "\n")
        child.stdin.flush()
        time.sleep(0.4)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdin.close()
        child.stdout.close()
        self.open(pipeline)
        self.round()
        self.assert_hits(self.round())


if __name__ == "__main__":
    unittest.main()
