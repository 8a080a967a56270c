# SPDX-License-Identifier: Apache-2.0
"""vLLM's real tiering manager over CairnTier, with a copy worker of the tests'."""

from __future__ import annotations

import mmap
import os
import sys
import unittest
from pathlib import Path
from typing import Any, ClassVar

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness


class Tier(harness.Case):
    prompts: ClassVar[list[list[int]]] = [harness.prompt(1, 300), harness.prompt(2, 200)]

    def open_tier(self, pipeline: str, **params: Any) -> None:
        self.open(
            None,
            kv_transfer_config={
                "kv_connector": "OffloadingConnector", "kv_role": "kv_both",
                "kv_load_failure_policy": "recompute",
                "kv_connector_extra_config": {
                    "spec_name": "CopySpec", "spec_module_path": "copies",
                    "cpu_bytes_to_use": 16 << 20,
                    "secondary_tiers": [
                        {"type": "CairnTier", "module_path": "cairn.vllm", "pipeline": pipeline,
                         **params}
                    ],
                },
            },
        )

    def tier(self) -> Any:
        from cairn.vllm import CairnTier

        core = self.llm.llm_engine.engine_core.engine_core
        manager = core.scheduler.connector.connector_scheduler.manager
        (tier,) = manager.secondary_tiers
        self.assertIsInstance(tier, CairnTier)
        return tier

    def round(self) -> int:
        """Tokens are right; how many came from outside vLLM's own cache."""
        harness.reset(self.llm)
        before = harness.metric(self.llm, "vllm:external_prefix_cache_hits")
        self.assertEqual(harness.generate(self.llm, self.prompts), self.expected)
        harness.settle(self.llm)
        harness.generate(self.llm, [harness.prompt(99, 4)], 1)
        self.tier().drain_jobs()
        hits = harness.metric(self.llm, "vllm:external_prefix_cache_hits") - before
        counts = {name: self.counter(name) for name in ("load_hits", "dumps", "damaged_blocks")}
        harness.report(test=self.id(), hits=hits, **counts)
        return hits

    def counter(self, name: str) -> int:
        """Of the flash tier, since the store was opened."""
        return int(self.tier()._store.counters()["flash." + name])

    def rows(self) -> list[bytes]:
        """What vLLM's host cache holds, which is what is stored."""
        tier = self.tier()
        view = tier._primary_kv_view
        rows = [bytes(view.cast("B")[i * tier._row : (i + 1) * tier._row])
                for i in range(view.nbytes // tier._row)]
        return [row for row in rows if any(row)]

    def damage(self, path: Path, rows: list[bytes]) -> None:
        """Flips a byte of each of these rows in a store that is closed, and none of what says
        where they are."""
        with open(path, "r+b", buffering=0) as file, mmap.mmap(file.fileno(), 0) as whole:
            for row in rows:
                at = whole.find(row)
                self.assertGreater(at, 0)
                whole[at + len(row) // 2] ^= 0x5A

    def test_tier(self) -> None:
        self.rounds("kv")

    def test_below_cache(self) -> None:
        self.rounds("below", "cache(size=64MiB) | ")

    def test_memory_that_is_registered(self) -> None:
        self.rounds("registered", detach=False)
        self.assertIsNotNone(self.tier()._registered)

    def rounds(self, name: str, above: str = "", **params: Any) -> None:
        pipeline = above + harness.flash(self.here / name)
        self.open_tier(pipeline, **params)
        self.assertEqual(self.round(), 0)
        self.close()  # vLLM's host cache goes with the engine: what is left is ours
        self.open_tier(pipeline, **params)
        blocks = 300 // harness.BLOCK + 200 // harness.BLOCK
        self.assertEqual(self.round(), blocks * harness.BLOCK)
        self.assertEqual(self.counter("damaged_blocks"), 0)
        with self.subTest("flipped bytes"):
            rows = self.rows()
            self.assertGreaterEqual(len(rows), blocks)
            self.close()
            self.damage(self.here / name, rows[::2])
            self.open_tier(pipeline, **params)
            self.assertLess(self.round(), blocks * harness.BLOCK)
            self.assertGreater(self.counter("damaged_blocks"), 0)
        with self.subTest("healed"):
            self.assertGreater(self.counter("dumps"), 0)
            self.open_tier(pipeline, **params)
            self.assertEqual(self.round(), blocks * harness.BLOCK)
            self.assertEqual(self.counter("damaged_blocks"), 0)
        with self.subTest("another tenant"):
            self.open_tier(pipeline, tenant="other", **params)
            self.assertEqual(self.round(), 0)

    def test_disk_that_takes_nothing(self) -> None:
        self.open_tier('fault(rule="dump:ENOSPC:1.0") | ' + harness.flash(self.here / "full"))
        self.assertEqual(self.round(), 0)
        self.round()

    def test_device_that_hangs(self) -> None:
        """Jobs end by their deadline."""
        hangs = "delay(hang_after=0s, hang_for=1h) | "
        self.open_tier(hangs + harness.flash(self.here / "hangs"), deadline=0.5)
        self.round()


if __name__ == "__main__":
    unittest.main()
