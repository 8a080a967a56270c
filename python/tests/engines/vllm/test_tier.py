# SPDX-License-Identifier: Apache-2.0
"""vLLM's real tiering manager over CairnTier, with a copy worker of the tests'."""

from __future__ import annotations

import os
import sys
import unittest
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
        harness.report(test=self.id(), hits=hits, **{
            name: value for name, value in self.tier()._store.counters().items()
            if name in ("flash.load_hits", "flash.dumped_blocks", "flash.load_checksum_errors")
        })
        return hits

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
        with self.subTest("flipped bytes"):
            self.close()
            harness.flip(self.here / name, 16 << 10)
            self.open_tier(pipeline, **params)
            self.round()
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
