# SPDX-License-Identifier: Apache-2.0
"""What tells weights apart, by the real transformers and vLLM: commits in a cache of the hub's that
is made here, and adapters where vLLM finds them. No network."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import types
import unittest
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
import harness

HERE = harness.folder()
os.environ["HF_HUB_CACHE"] = str(HERE / "hub")  # read when it is imported
import fake_vllm  # noqa: E402

from cairn.vllm import layout, weights  # noqa: E402

ONE, TWO = "1" * 40, "2" * 40
fake_vllm.HUB.HF_HUB_CACHE = str(HERE / "hub")


def put(name: str, commit: str, ref: str = "main") -> None:
    from transformers import LlamaConfig

    snapshot = fake_vllm.put_in_hub(name, commit, ref)
    LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1,
                num_attention_heads=4, architectures=["LlamaForCausalLM"]).save_pretrained(snapshot)


def configured(name: str, revision: str | None = None) -> Any:
    from vllm.config import ModelConfig

    model = ModelConfig(model=name, revision=revision, skip_tokenizer_init=True, dtype="float32")
    # As a worker gets it.
    return types.SimpleNamespace(model_config=pickle.loads(pickle.dumps(model)))


class Commits(unittest.TestCase):
    def setUp(self) -> None:
        shutil.rmtree(HERE / "hub", ignore_errors=True)

    def test_connector(self) -> None:
        for commit in (ONE, TWO):
            put("org/m", commit)
            for asked in (None, "main"):
                told = configured("org/m", asked)
                self.assertEqual(layout.revision(told, None), commit)
                # Where vLLM could not resolve it, or is older.
                told.model_config.revision = asked
                self.assertEqual(layout.revision(told, None), commit)
        put("org/m", ONE, "v1")
        for asked in ("v1", ONE):
            self.assertEqual(layout.revision(configured("org/m", asked), None), ONE)
        told.model_config.model = "org/nowhere"
        with self.assertRaisesRegex(layout.Refused, "cannot be known"):
            layout.revision(told, None)
        self.assertEqual(layout.revision(told, "mine"), "mine")

    def test_tier(self) -> None:
        self.assertIsNone(weights.revision_served("org/m"))
        put("org/m", ONE)
        self.assertEqual(weights.revision_served("org/m"), ONE)
        put("org/m", TWO)
        self.assertIsNone(weights.revision_served("org/m"))


class Adapters(unittest.TestCase):
    def test_where_they_are(self) -> None:
        self.addCleanup(os.environ.__setitem__, "HOME", os.environ.get("HOME", "/"))
        os.environ["HOME"] = str(HERE)
        put("org/adapter", ONE)
        hub = HERE / "hub" / "models--org--adapter" / "snapshots" / ONE
        (HERE / "mine").mkdir()
        for path, folder in (("~/mine", HERE / "mine"), (str(hub), hub), ("org/adapter", hub)):
            told = []
            for text in ("trained", "trained again", ""):
                if text:
                    (Path(folder) / "adapter_model.safetensors").write_text(text)
                told.append(weights.adapter("a", path))
            self.assertEqual([told.index(one) for one in told], [0, 1, 1], path)
        self.assertNotEqual(weights.adapter("a", "org/not"), weights.adapter("a", "org/not"))

    def test_fields(self) -> None:
        """Those that we read are vLLM's."""
        from vllm.lora.request import LoRARequest

        request = LoRARequest("name", 7, "/path")
        self.assertEqual((request.lora_name, request.lora_int_id, request.lora_path,
                          request.load_inplace), ("name", 7, "/path", False))
        self.assertEqual((request.name, request.adapter_id), ("name", 7))


if __name__ == "__main__":
    unittest.main()
