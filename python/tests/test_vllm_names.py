# SPDX-License-Identifier: Apache-2.0
"""What makes two of cairn.vllm's connectors meet, and what they refuse, without vLLM."""

from __future__ import annotations

import os
import types
import unittest
from typing import Any

import fake_vllm
import test_vllm
import vllm
from test_vllm import BLOCKS, ROLE, TOKENS, Request, cache_config, config, setting

from cairn.vllm import CairnConnector


class Permuted(fake_vllm.Tensor):
    """Tokens before heads."""

    def stride(self, dim: int | None = None) -> Any:
        _, heads, tokens, content = self.shape
        strides = [heads * tokens * content, content, heads * content, 1]
        return strides if dim is None else strides[dim]


class Half(fake_vllm.Tensor):
    dtype = "torch.float16"

    def element_size(self) -> int:
        return 2


class OfTheSameSize(fake_vllm.Tensor):
    dtype = "torch.int32"


class Wider(fake_vllm.Tensor):
    def __init__(self, *shape: int) -> None:
        super().__init__(*shape[:-1], 2 * shape[-1])


class Identity(test_vllm.Case):
    """Each change alone is a miss."""

    def setUp(self) -> None:
        super().setUp()
        self.pipeline = f"flash(path={self.path}/kv, size=64MiB)"
        self.open(self.pipeline)
        self.assert_run(Request("a", [1, 2, 3, 4]), 0)

    def assert_found(self, what: object, blocks: int, lora: Any = None) -> None:
        found = self.engine.match(Request("b", [1, 2, 3, 4], lora))
        self.assertEqual(found, blocks * TOKENS, what)

    def test_configuration(self) -> None:
        for path, value in (
            ("model_config.model", "other"),
            ("model_config.hf_config.to_json_string", lambda use_diff: '{"layers": 4}'),
            ("model_config.revision", fake_vllm.Revision("beef")),
            ("model_config.quantization", "fp8"),
            ("model_config.dtype", "bfloat16"),
            ("cache_config.cache_dtype", "fp8"),
            ("cache_config.prefix_caching_hash_algo", "sha256_cbor"),
            ("parallel_config.tensor_parallel_size", 2),
            ("parallel_config.pipeline_parallel_size", 2),
        ):
            self.open(self.pipeline, change=setting(path, value))
            self.assert_found(path, 0)
        self.open(self.pipeline, change=setting("model_config.max_model_len", 8192))
        self.assert_found("longer requests", 4)

    def hub(self) -> None:
        """A cache of the hub's, of this test alone."""
        self.addCleanup(setattr, fake_vllm.HUB, "HF_HUB_CACHE", fake_vllm.HUB.HF_HUB_CACHE)
        fake_vllm.HUB.HF_HUB_CACHE = os.path.join(self.path, "hub")

    def found_as(self, revision: Any, **hf: Any) -> int:
        """Blocks that a restarted engine finds with this in its configuration; it saves them."""
        def change(config: Any) -> None:
            config.model_config.model = "org/m"
            config.model_config.revision = revision
            vars(config.model_config.hf_config).update(hf)

        self.open(self.pipeline, change=change)
        return int(self.engine.run(Request("b", [1, 2, 3, 4]))[0]) // TOKENS

    def test_the_commit_behind_a_name(self) -> None:
        """What `main` is of counts, by whatever tells it, and not the name."""
        self.hub()
        one, two = "1" * 40, "2" * 40
        for commit, blocks in ((one, 0), (one, 4), (two, 0)):
            self.assertEqual(self.found_as(fake_vllm.Revision(commit)), blocks)
        for asked in ("main", None):
            for commit in (one, two):
                fake_vllm.put_in_hub("org/m", commit)
                self.assertEqual(self.found_as(asked), 4)  # those of above
        self.assertEqual(self.found_as(one), 4)
        self.assertEqual(self.found_as("main", _commit_hash=one), 4)
        fake_vllm.put_in_hub("org/m", "3" * 40)
        self.assertEqual(self.found_as("main"), 0)

    def test_where_no_commit_is_known(self) -> None:
        self.hub()
        with self.assertRaisesRegex(ValueError, r"^CairnConnector: .*org/m.*say \"revision\""):
            self.found_as("main")
        fake_vllm.put_in_hub("org/m", "no commit")
        with self.assertRaisesRegex(ValueError, "cannot be known"):
            self.found_as(None)
        fake_vllm.put_in_hub("org/m", "1" * 40)
        self.addCleanup(os.environ.pop, "VLLM_USE_MODELSCOPE", None)
        os.environ["VLLM_USE_MODELSCOPE"] = "true"
        with self.assertRaisesRegex(ValueError, "cannot be known"):
            self.found_as("main")
        self.open(self.pipeline, revision="mine", change=setting("model_config.revision", None))
        self.assert_found("what we are told", 0)

    def test_a_file_of_weights(self) -> None:
        path = os.path.join(self.path, "weights.gguf")
        found = []
        for text in ("one", "another", ""):
            if text:
                with open(path, "w", encoding="ascii") as file:
                    file.write(text)
            self.open(self.pipeline, change=setting("model_config.model", path))
            found.append(self.engine.run(Request("b", [1, 2, 3, 4]))[0] // TOKENS)
        self.assertEqual(found, [0, 0, 4])

    def test_a_folder_whose_files_change(self) -> None:
        folder = os.path.join(self.path, "weights")
        os.mkdir(folder)
        found = []
        for text in ("one", "another", ""):
            if text:
                with open(os.path.join(folder, "model.safetensors"), "w", encoding="ascii") as file:
                    file.write(text)
            self.open(self.pipeline, change=setting("model_config.model", folder))
            found.append(self.engine.run(Request("b", [1, 2, 3, 4]))[0] // TOKENS)
        self.assertEqual(found, [0, 0, 4])

    def test_extra_configuration(self) -> None:
        for name in ("revision", "tenant", "salt"):
            self.open(self.pipeline, **{name: "other"})
            self.assert_found(name, 0)
        self.open(self.pipeline, deadline=10, hold=10, durability="written")
        self.assert_found("what makes no other bytes", 4)

    def test_layout(self) -> None:
        for tensor in (Permuted, Half, OfTheSameSize, Wider):
            self.open(self.pipeline, tensor=tensor)
            self.assert_found(tensor, 0)
        self.open(self.pipeline, tokens=2 * TOKENS)
        self.assert_found("block size", 0)
        self.open(self.pipeline)
        self.assert_found("as it was", 4)

    def test_version(self) -> None:
        self.addCleanup(setattr, vllm, "__version__", "fake")
        vllm.__version__ = "another"
        self.open(self.pipeline)
        self.assert_found("version", 0)
        vllm.__version__ = "fake"
        self.open(self.pipeline)
        self.assert_found("as it was", 4)

    def lora(self, name: str, path: str, number: int = 1, anew: bool = False) -> Any:
        return types.SimpleNamespace(lora_name=name, lora_path=path, lora_int_id=number,
                                     load_inplace=anew)

    def adapter(self, *folders: str) -> str:
        """A folder of this test's with an adapter in it."""
        folder = os.path.join(self.path, *folders)
        os.makedirs(folder)
        self.train(folder, "trained")
        return folder

    def train(self, folder: str, text: str) -> None:
        with open(os.path.join(folder, "adapter.safetensors"), "w", encoding="ascii") as file:
            file.write(text)

    def found_with(self, adapter: Any) -> int:
        return int(self.engine.run(Request("b", [1, 2, 3, 4], adapter))[0]) // TOKENS

    def test_adapters(self) -> None:
        """By name, by path, and by what is in its folder when it is loaded anew."""
        lora = self.lora
        folder = self.adapter("adapter")
        self.assert_found("an adapter", 0, lora("one", "/one"))
        for what, adapter, blocks in (
            ("an adapter", lora("one", "/one"), 0), ("the same", lora("one", "/one"), 4),
            ("another path", lora("one", "/two"), 0), ("another name", lora("two", "/one"), 0),
            ("a folder", lora("one", folder), 0), ("the same", lora("one", folder, 1, True), 4),
            ("none", None, 4),
        ):
            self.assertEqual(self.found_with(adapter), blocks, what)
        self.train(folder, "trained again")
        self.assert_found("in place", 0, lora("one", folder, 1, True))
        self.assertEqual(self.found_with(lora("one", folder)), 0)
        self.train(folder, "unloaded, and trained once more")
        self.assert_found("what vLLM has still", 4, lora("one", folder))
        self.assert_found("loaded again", 0, lora("one", folder, 2))

    def test_where_adapters_are(self) -> None:
        """As vLLM finds them: below the home, here, and of the hub."""
        self.addCleanup(os.environ.__setitem__, "HOME", os.environ.get("HOME", "/"))
        os.environ["HOME"] = self.path
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.path)
        self.addCleanup(fake_vllm.ADAPTERS.clear)
        fake_vllm.ADAPTERS["org/a"] = self.adapter("of the hub")
        for path, folder in (("~/home", self.adapter("home")), ("here/a", self.adapter("here/a")),
                             ("org/a", fake_vllm.ADAPTERS["org/a"])):
            found = []
            for text in ("one", "another", ""):
                if text:
                    self.train(folder, text)
                self.open(self.pipeline)
                found.append(self.found_with(self.lora("one", path)))
            self.assertEqual(found, [0, 0, 4], path)

    def test_an_adapter_that_is_not_found(self) -> None:
        """What it is is not known: a restart finds nothing of it."""
        for _ in range(2):
            self.open(self.pipeline)
            self.assertEqual(self.found_with(self.lora("one", "org/nowhere")), 0)
            self.assertEqual(self.found_with(self.lora("one", "org/nowhere")), 4)


class Refusals(test_vllm.Case):
    def refused(self, words: str, cache: Any = None, **changes: Any) -> None:
        told = config("null()", engine="refused")
        for name, value in changes.items():
            setattr(told, name, value)
        for role in ROLE:
            with self.assertRaisesRegex(ValueError, words) as caught:
                CairnConnector(told, role, cache or cache_config())
            self.assertNotIn("\n", str(caught.exception))

    def test_hybrid(self) -> None:
        self.refused("2 KV cache groups", cache_config(groups=2))

    def test_unknown_cache(self) -> None:
        cache = cache_config()
        cache.kv_cache_groups[0].kv_cache_spec = types.SimpleNamespace(block_size=16)
        self.refused("SimpleNamespace is not known", cache)

    def test_draft_model(self) -> None:
        self.refused("speculative", speculative_config=types.SimpleNamespace(method="eagle"))

    def test_random_seed(self) -> None:
        told = config("null()")
        told.cache_config.prefix_caching_hash_algo = "xxhash"
        seed = os.environ.pop("PYTHONHASHSEED", None)
        self.addCleanup(lambda: seed is not None and os.environ.update(PYTHONHASHSEED=seed))
        with self.assertRaisesRegex(ValueError, "random seed"):
            CairnConnector(told, ROLE.SCHEDULER, cache_config())

    def test_options(self) -> None:
        for extra, words in (({"pipelin": 1}, "no 'pipelin'"), ({"load": "x"}, "load is"),
                             ({"durability": "x"}, "durability is")):
            with self.assertRaisesRegex(ValueError, words):
                CairnConnector(config("null()", **extra), ROLE.WORKER, cache_config())
        with self.assertRaisesRegex(ValueError, "needs \"pipeline\""):
            CairnConnector(config(""), ROLE.WORKER, cache_config())

    def test_device(self) -> None:
        engine = self.open()
        tensor = fake_vllm.Tensor(BLOCKS, 2, TOKENS, 8)
        tensor.device = types.SimpleNamespace(type="cuda")
        with self.assertRaisesRegex(ValueError, "on cuda"):
            engine.worker.register_kv_caches(dict.fromkeys(engine.caches, tensor))


class Layouts(unittest.TestCase):
    def test_runs(self) -> None:
        from cairn.vllm.layout import Refused, _runs

        # (heads, tokens, content) of 4 bytes: dense, permuted, and heads apart.
        self.assertEqual(_runs([2, 4, 8], [32, 8, 1], "HNC", 4), ([0], 256, "H2 N4 C8"))
        self.assertEqual(_runs([2, 4, 8], [8, 16, 1], "HNC", 4), ([0], 256, "N4 H2 C8"))
        self.assertEqual(_runs([2, 4, 8], [640, 8, 1], "HNC", 4), ([0, 2560], 128, "H2 N4 C8"))
        with self.assertRaises(Refused):
            _runs([2, 4, 8], [8, 8, 1], "HNC", 4)

    def test_ranks_answer_the_least(self) -> None:
        from cairn.vllm.messages import CairnWorkerMetadata

        one = CairnWorkerMetadata({1: (1, 5), 2: (1, 0)}, {7: (1, 3)}, {9: 1})
        two = CairnWorkerMetadata({1: (1, 4), 2: (2, 9), 3: (1, 1)}, {7: (1, 2), 8: (1, 1)}, {9: 2})
        both = one.aggregate(two)
        self.assertEqual(both.lookups, {1: (2, 4), 2: (3, 0), 3: (1, 1)})
        self.assertEqual(both.saves, {7: (2, 2), 8: (1, 1)})
        self.assertEqual(both.cleared, {9: 3})


if __name__ == "__main__":
    unittest.main()
