# SPDX-License-Identifier: Apache-2.0
"""vLLM's real tiering manager over CairnTier, with a copy worker of the tests'."""

from __future__ import annotations

import os
import sys
import unittest
from pathlib import Path
from typing import Any

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from test_tokens import flip

HERE: Path
MODEL: str
PROMPTS: list[list[int]]
EXPECTED: list[list[int]]


def setUpModule() -> None:
    global HERE, MODEL, PROMPTS, EXPECTED
    HERE = harness.folder()
    MODEL = harness.make_model(HERE / "model")
    PROMPTS = [harness.prompt(1, 300), harness.prompt(2, 200)]
    llm = harness.engine(MODEL, None)
    EXPECTED = harness.generate(llm, PROMPTS)
    harness.close(llm)


class Tier(unittest.TestCase):
    llm: Any = None

    def open(self, pipeline: str, **params: Any) -> None:
        self.llm = harness.engine(
            MODEL, None,
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

    def tearDown(self) -> None:
        if self.llm is not None:
            harness.close(self.llm)
            self.llm = None

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
        self.assertEqual(harness.generate(self.llm, PROMPTS), EXPECTED)
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
        pipeline = harness.flash(HERE / "kv")
        self.open(pipeline)
        self.assertEqual(self.round(), 0)
        self.tearDown()  # vLLM's host cache goes with the engine: what is left is ours
        self.open(pipeline)
        blocks = 300 // harness.BLOCK + 200 // harness.BLOCK
        self.assertEqual(self.round(), blocks * harness.BLOCK)
        with self.subTest("flipped bytes"):
            self.tearDown()
            flip(HERE / "kv", 16 << 10)
            self.open(pipeline)
            self.round()
        with self.subTest("another tenant"):
            self.tearDown()
            self.open(pipeline, tenant="other")
            self.assertEqual(self.round(), 0)

    def test_disk_that_takes_nothing(self) -> None:
        self.open('fault(rule="dump:ENOSPC:1.0") | ' + harness.flash(HERE / "full"))
        self.assertEqual(self.round(), 0)
        self.round()

    def test_device_that_hangs(self) -> None:
        """Jobs end by their deadline."""
        self.open(f"delay(hang_after=0s, hang_for=1h) | {harness.flash(HERE / 'hangs')}",
                  deadline=0.5)
        self.round()


if __name__ == "__main__":
    unittest.main()
