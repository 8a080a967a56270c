# SPDX-License-Identifier: Apache-2.0
"""Adapters: KV that one was loaded for is nobody else's, with tokens to show it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import unittest
from pathlib import Path
from typing import Any, ClassVar

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness

RANK = 8


def make_adapter(path: Path, seed: int) -> str:
    """One for the harness's model, in the format of PEFT: of queries, and of what is cached."""
    import torch
    from safetensors.torch import save_file

    hidden, layers, heads, kv_heads, _ = harness.SIZES["tiny"]
    rows = {"q_proj": hidden, "k_proj": hidden // heads * kv_heads,
            "v_proj": hidden // heads * kv_heads}
    made = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(layers):
        for module, out in rows.items():
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, hidden, generator=made) * 0.3
            tensors[f"{name}.lora_B.weight"] = torch.randn(out, RANK, generator=made) * 0.3
    path.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK,
        "target_modules": sorted(rows), "bias": "none", "lora_dropout": 0.0,
        "base_model_name_or_path": "",
    }))
    return str(path)


class Adapters(harness.ConnectorCase):
    prompts, blocks, saved = harness.shared_prompts()
    options: ClassVar[dict[str, Any]] = {
        "enable_lora": True, "max_lora_rank": RANK, "max_loras": 1, "max_cpu_loras": 4,
    }

    def lora(self, name: str, path: str, number: int) -> Any:
        from vllm.lora.request import LoRARequest

        return LoRARequest(name, number, path)

    def round_with(self, lora: Any, expected: list[list[int]]) -> dict[str, int]:
        type(self).expected = expected
        return self.round(lora_request=lora)

    def test_adapters(self) -> None:
        one = make_adapter(self.here / "one", 1)
        two = make_adapter(self.here / "two", 2)
        asked = {"none": None, "one": self.lora("one", one, 1), "two": self.lora("two", two, 2),
                 "another by that name": self.lora("one", two, 3)}
        expected = {}
        self.open(None, **self.options)
        for name, lora in asked.items():
            harness.reset(self.llm)
            expected[name] = harness.generate(self.llm, self.prompts, lora_request=lora)
        unadapted = self.expected
        self.assertEqual(expected["none"], unadapted)
        self.assertEqual(expected["two"], expected["another by that name"])
        for name in ("one", "two"):
            self.assertNotEqual(expected[name], unadapted)
        self.assertNotEqual(expected["one"], expected["two"])

        pipeline = harness.flash(self.here / "kv")
        self.open(pipeline, **self.options)
        for name, lora in asked.items():
            with self.subTest(first=name):
                self.assert_misses(self.round_with(lora, expected[name]))
        for name, lora in asked.items():
            with self.subTest(again=name):
                self.assert_hits(self.round_with(lora, expected[name]))
        self.open(pipeline, **self.options)
        with self.subTest("after a restart"):
            self.assert_hits(self.round_with(asked["one"], expected["one"]))

        shutil.rmtree(two)
        make_adapter(Path(two), 3)
        self.open(None, **self.options)
        other = harness.generate(self.llm, self.prompts, lora_request=asked["two"])
        self.assertNotIn(other, (expected["two"], unadapted))
        self.open(pipeline, **self.options)
        with self.subTest("other weights in that folder"):
            self.assert_misses(self.round_with(asked["two"], other))


if __name__ == "__main__":
    unittest.main(verbosity=2)
