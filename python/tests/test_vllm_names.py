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
from kit import Spy
from test_vllm import BLOCKS, ROLE, TOKENS, Request, cache_config, config, setting

from cairn.vllm import CairnConnector
from cairn.vllm.stats import CairnStats


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


class Apart(fake_vllm.Tensor):
    """Nothing of one head is beside another."""

    def stride(self, dim: int | None = None) -> Any:
        _, heads, tokens, content = self.shape
        strides = [2 * heads * tokens * content, 2 * tokens * content, content, 1]
        return strides if dim is None else strides[dim]


class Overlapping(fake_vllm.Tensor):
    def stride(self, dim: int | None = None) -> Any:
        strides = [2 * TOKENS * 8, TOKENS, 8, 1]
        return strides if dim is None else strides[dim]


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

    def test_attention_back_end(self) -> None:
        """And on a processor what it writes depends on that."""
        def back_end(*name: str) -> None:
            fake_vllm.BACKENDS[:] = [types.SimpleNamespace(full_cls_name=lambda: name)]

        self.addCleanup(fake_vllm.BACKENDS.clear)
        self.addCleanup(fake_vllm.CPU.update, dict(fake_vllm.CPU))
        for name in ("a.Flash", "a.Other", "cpu.Attention"):
            back_end(name)
            self.open(self.pipeline)
            self.assert_found(name, 0)
        self.engine.run(Request("c", [1, 2, 3, 4]))
        for flag in fake_vllm.CPU:
            fake_vllm.CPU[flag] = not fake_vllm.CPU[flag]
            self.open(self.pipeline)
            self.assert_found(flag, 0)
            fake_vllm.CPU[flag] = not fake_vllm.CPU[flag]
        self.open(self.pipeline)
        self.assert_found("as it was", 4)

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

    def test_decode_context_parallelism(self) -> None:
        told = config("null()").parallel_config
        told.decode_context_parallel_size = 2
        self.refused("decode context parallelism", parallel_config=told)

    def test_layers_with_steps_that_overlap(self) -> None:
        told = config("null()", load="layerwise")
        told.max_concurrent_batches = 2
        with self.assertRaisesRegex(ValueError, "--no-async-scheduling"):
            CairnConnector(told, ROLE.SCHEDULER, cache_config())

    def test_options(self) -> None:
        for extra, words in (({"pipelin": 1}, "no 'pipelin'"), ({"load": "x"}, "load is"),
                             ({"durability": "x"}, "durability is")):
            with self.assertRaisesRegex(ValueError, words):
                CairnConnector(config("null()", **extra), ROLE.WORKER, cache_config())
        with self.assertRaisesRegex(ValueError, "needs \"pipeline\""):
            CairnConnector(config(""), ROLE.WORKER, cache_config())

    def test_tensors(self) -> None:
        whole = fake_vllm.Tensor(BLOCKS, 2, TOKENS, 8)
        elsewhere = fake_vllm.Tensor(BLOCKS, 2, TOKENS, 8)
        elsewhere.device = types.SimpleNamespace(type="cuda")
        engine = self.open()
        one, *others = engine.caches
        for tensor, words in (
            (elsewhere, "on cuda"), ([whole], "no single tensor"),
            (Wider(BLOCKS, 2, TOKENS, 8), "different layouts"),
            (fake_vllm.Tensor(BLOCKS + 1, 2, TOKENS, 8), "65 pages for 64 blocks"),
            (Apart(BLOCKS, 65, TOKENS, 8), "65 runs a block"),
            (Overlapping(BLOCKS, 2, TOKENS, 8), "overlap"),
        ):
            with self.assertRaisesRegex(ValueError, words):
                engine.worker.register_kv_caches({one: tensor, **dict.fromkeys(others, whole)})
        tensors = {name: Apart(BLOCKS, 64, TOKENS, 8) for name in engine.caches}
        engine.worker.register_kv_caches(tensors)

    def test_pages_of_a_block(self) -> None:
        """A block may be several pages of the kernel's."""
        engine = self.open()
        tensors = {name: fake_vllm.Tensor(2 * BLOCKS, 2, TOKENS // 2, 8) for name in engine.caches}
        engine.worker.register_kv_caches(tensors)
        pages = engine.worker._worker.pages
        self.assertIn("K2 H2 N8 C8", pages.text)
        base = tensors["layer.0"].data_ptr()
        size = 2 * TOKENS * 8 * 4
        self.assertEqual(pages.layers[0].items([0, 3]), [(base, size), (base + 3 * size, size)])


class Options(test_vllm.Case):
    def test_they_reach_the_store(self) -> None:
        for load in ("async", "layerwise"):
            engine = self.open(durability="written", deadline=20, load=load, salt=load)
            worker = engine.worker._worker
            worker.ns = spy = Spy(worker.ns)
            self.assert_run(Request("a", [1, 2]), 0)
            self.assert_run(Request("b", [1, 2]), 2)
            self.assertEqual(spy.of("durability"), {("dump", "written")})
            self.assertEqual(spy.of("deadline"), {("dump", 20), ("load", 20)})

    def test_ranks(self) -> None:
        """Each has a store, of each engine."""
        for engine, world, folders in ((0, 2, ["0", "1"]), (1, 2, ["0", "1", "2", "3"]),
                                       (4, 1, ["0", "1", "2", "3", "4"])):
            self.open(f"posix(path={self.path}/{{rank}})", world=world,
                      change=setting("parallel_config.data_parallel_rank", engine))
            self.assertEqual(sorted(os.listdir(self.path)), folders)


class Counts(unittest.TestCase):
    """What vLLM makes of our counts."""

    def stats(self) -> CairnStats:
        stats = CairnStats()
        stats.add("load_blocks", 3)
        for i in range(100):
            stats.loaded_in(i / 1000)
        return stats

    def test_log_line(self) -> None:
        reduced = self.stats().aggregate(self.stats()).reduce()
        self.assertEqual(
            reduced, {"load_blocks": 6, "load_ms_p50": 50.0, "load_ms_p99": 99.0})
        self.assertEqual(CairnStats().reduce(), {})

    def test_metrics(self) -> None:
        made: dict[str, fake_vllm.Metric] = {}

        def metric(name: str, **told: Any) -> fake_vllm.Metric:
            made[name] = fake_vllm.Metric()
            return made[name]

        kinds: Any = dict.fromkeys(("counter", "gauge", "histogram"), metric)
        prom = CairnConnector.build_prom_metrics(None, kinds, ["engine"], {0: ["0"], 1: ["1"]})
        prom.observe(self.stats().data, 1)
        prom.observe({"load_blocks": 2, "nothing of ours": 7}, 0)
        self.assertEqual(made["vllm:cairn_load_blocks"].seen, [(("1",), 3), (("0",), 2)])
        self.assertEqual(made["vllm:cairn_load_seconds"].seen,
                         [(("1",), i / 1000) for i in range(100)])
        self.assertEqual(len(made), 13)

    def test_a_run(self) -> None:
        """Loads are observed once each, with the time that they took."""
        case = test_vllm.Case()
        case.setUp()
        self.addCleanup(case.doCleanups)
        case.open()
        case.assert_run(Request("a", [1, 2, 3]), 0)
        case.assert_run(Request("b", [1, 2, 3]), 3)
        told = case.engine.worker.get_kv_connector_stats().data
        self.assertEqual((told["load_blocks"], told["save_blocks"]), (3, 3))
        self.assertEqual(len(told["load_seconds"]), 1)
        self.assertGreater(told["load_seconds"][0], 0)
        self.assertIsNone(case.engine.worker.get_kv_connector_stats())


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
