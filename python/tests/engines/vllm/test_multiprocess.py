# SPDX-License-Identifier: Apache-2.0
"""Tokens and counters where the engine is a process of its own and its worker another one, vLLM's
default: then a lookup is a question that travels with a step."""

from __future__ import annotations

import os
import subprocess
import sys
import unittest

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
import psutil


class Apart(harness.ConnectorCase):
    prompts, blocks, saved = harness.shared_prompts()

    def test_worker_apart(self) -> None:
        pipeline = harness.flash(self.here / "kv")
        self.open(pipeline)
        self.assertEqual(self.depth_of_owner(), 2)
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
            self.assert_misses(self.round())
        with self.subTest("restart"):
            self.open(pipeline)
            self.assert_hits(self.round())
        with self.subTest("flipped bytes"):
            harness.flip(self.here / "kv", 64 << 10)
            self.assertGreater(self.round()["load_failed_blocks"], 0)
            self.assert_heals()

    def test_start_line(self) -> None:
        """A worker's, in the log that vLLM itself writes."""
        code = (
            f"import sys; sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r});"
            f"import harness; harness.close(harness.engine({self.model!r},"
            f" {harness.flash(self.here / 'line')!r}))"
        )
        ended = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "VLLM_LOGGING_LEVEL": "INFO"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=True,
        )
        lines = [line for line in ended.stdout.splitlines() if "cairn: flash(" in line]
        self.assertEqual(len(lines), 1, ended.stdout)
        self.assertRegex(lines[0], r"cairn: flash\(path=.*\); layout vllm \S+ torch.float32 ")

    def depth_of_owner(self) -> int:
        """How many processes down the one is that has the store's file open: 1 is a child."""
        path = os.path.realpath(self.here / "kv")
        mine = psutil.Process()
        for child in mine.children(recursive=True):
            try:
                paths = [file.path for file in child.open_files()]
            except psutil.Error:
                continue
            if path in paths:
                return [one.pid for one in child.parents()].index(mine.pid) + 1
        raise AssertionError("nobody has it open")


if __name__ == "__main__":
    unittest.main()
