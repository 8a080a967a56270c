# SPDX-License-Identifier: Apache-2.0
"""What the tests against the real vLLM share: a small random Llama made here, and engines on it.

float32 throughout: tokens of bf16 depend on how a prefill was split.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any, ClassVar

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_DO_NOT_TRACK", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

BLOCK = 32  # tokens
VOCABULARY = 512
SIZE = "64MiB"  # of the store
SIZES = {  # hidden, layers, heads, key-value heads, intermediate
    "tiny": (256, 4, 4, 2, 512),
    "small": (768, 12, 12, 4, 2048),
}


def folder() -> Path:
    """A folder of this process, which goes at its end."""
    path = Path(tempfile.mkdtemp(prefix="cairn-vllm-"))
    import atexit

    owner = os.getpid()
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(path, ignore_errors=True))
    return path


def make_model(path: Path, size: str = "tiny", seed: int = 1) -> str:
    """A random Llama, float32, without a tokenizer: prompts are tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, layers, heads, kv_heads, intermediate = SIZES[size]
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=intermediate,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads,
        max_position_embeddings=4096, dtype="float32", bos_token_id=1, eos_token_id=2,
        initializer_range=0.08,
    )
    model = LlamaForCausalLM(config).to(torch.float32)
    model.save_pretrained(path, safe_serialization=True)
    return str(path)


def prompt(seed: int, length: int) -> list[int]:
    """Tokens that are a function of the seed."""
    state, tokens = seed * 2654435761 % 2**32 or 1, []
    for _ in range(length):
        state = (state * 1103515245 + 12345) % 2**31
        tokens.append(3 + (state >> 8) % (VOCABULARY - 3))
    return tokens


def connector_config(pipeline: str | None, **extra: Any) -> dict[str, Any] | None:
    if pipeline is None:
        return None
    return {
        "kv_connector": "CairnConnector",
        "kv_connector_module_path": "cairn.vllm",
        "kv_role": "kv_both",
        "kv_connector_extra_config": {"pipeline": pipeline, **extra},
    }


def flash(path: Path, size: str = SIZE) -> str:
    return f"flash(path={path}, size={size})"


def engine(model: str, pipeline: str | None, *, extra: dict[str, Any] | None = None,
           **options: Any) -> Any:
    """An offline engine; in this process where VLLM_ENABLE_V1_MULTIPROCESSING is 0."""
    from vllm import LLM

    options = {
        "dtype": "float32", "max_model_len": 4096, "block_size": BLOCK, "enforce_eager": True,
        "skip_tokenizer_init": True, "seed": 0, "disable_log_stats": False,
        "max_num_batched_tokens": 1024, **options,
    }
    config = connector_config(pipeline, **(extra or {}))
    if config is not None:
        options["kv_transfer_config"] = config
    return LLM(model=model, **options)


def generate(llm: Any, prompts: list[list[int]], count: int = 8, salt: str | None = None,
             **options: Any) -> list[list[int]]:
    from vllm import SamplingParams

    params = SamplingParams(temperature=0.0, max_tokens=count, ignore_eos=True, detokenize=False)
    inputs = [
        {"prompt_token_ids": tokens, **({"cache_salt": salt} if salt else {})}
        for tokens in prompts
    ]
    outputs = llm.generate(inputs, params, use_tqdm=False, **options)
    return [list(output.outputs[0].token_ids) for output in outputs]


def metric(llm: Any, name: str) -> int:
    """A counter of vLLM's own /metrics."""
    return sum(int(m.value) for m in llm.get_metrics() if m.name == name and hasattr(m, "value"))


def stored(llm: Any) -> dict[str, int]:
    """Our counters, by vLLM's /metrics."""
    names = ("lookups", "lookup_hit_blocks", "load_blocks", "load_failed_blocks", "save_blocks",
             "save_present_blocks", "save_failed_blocks", "waits", "flushed_requests")
    return {name: metric(llm, f"vllm:cairn_{name}") for name in names}


def settle(llm: Any) -> None:
    """Until all blocks are free: an engine in this process steps only while there are requests."""
    import time

    core = getattr(llm.llm_engine.engine_core, "engine_core", None)
    until = time.monotonic() + 60
    if core is None:
        while not llm.reset_prefix_cache():
            assert time.monotonic() < until
            time.sleep(0.05)
        return
    while core.scheduler.has_requests():
        llm.llm_engine.step()
        assert time.monotonic() < until


def reset(llm: Any) -> None:
    """Empties vLLM's own prefix cache, and not the store."""
    settle(llm)
    assert llm.reset_prefix_cache()


def close(llm: Any) -> None:
    """Ends an engine in this process, so that the next one may own its store."""
    import gc

    from vllm.distributed.kv_transfer.kv_transfer_state import ensure_kv_transfer_shutdown

    llm.llm_engine.engine_core.shutdown()
    ensure_kv_transfer_shutdown()
    del llm
    gc.collect()


def flip(path: Path, every: int) -> None:
    """Flips a byte in each `every` of a file, past its first MiB of metadata."""
    with open(path, "r+b", buffering=0) as file:
        for at in range(1 << 20, path.stat().st_size, every):
            byte = os.pread(file.fileno(), 1, at)
            os.pwrite(file.fileno(), bytes([byte[0] ^ 0x5A]), at)


class Case(unittest.TestCase):
    """Tests on one model, with the tokens that vLLM gives without a connector; an engine at a
    time."""

    here: ClassVar[Path]
    model: ClassVar[str]
    prompts: ClassVar[list[list[int]]]
    expected: ClassVar[list[list[int]]]
    llm: Any = None

    @classmethod
    def setUpClass(cls) -> None:
        cls.here = folder()
        cls.model = make_model(cls.here / "model")
        llm = engine(cls.model, None)
        cls.expected = generate(llm, cls.prompts)
        close(llm)

    @classmethod
    def tearDownClass(cls) -> None:
        shutil.rmtree(cls.here, ignore_errors=True)

    def open(self, pipeline: str | None, **options: Any) -> None:
        self.close()
        self.llm = engine(self.model, pipeline, **options)

    def close(self) -> None:
        if self.llm is not None:
            close(self.llm)
            self.llm = None

    def tearDown(self) -> None:
        self.close()


class ConnectorCase(Case):
    """By the connector's counters, and vLLM's own of what came from outside its cache."""

    blocks: ClassVar[int]  # full blocks of the prompts, what they share once
    saved: ClassVar[int]  # likewise, with what is generated

    def round(self, **options: Any) -> dict[str, int]:
        """Generates with vLLM's own cache empty; what our counters grew by."""
        reset(self.llm)
        before = stored(self.llm)
        hits = metric(self.llm, "vllm:external_prefix_cache_hits")
        self.assertEqual(generate(self.llm, self.prompts, **options), self.expected)
        settle(self.llm)
        generate(self.llm, [prompt(99, 4)], 1)  # a step more: its counts
        after = stored(self.llm)
        grown = {name: after[name] - before[name] for name in after}
        grown["external"] = metric(self.llm, "vllm:external_prefix_cache_hits") - hits
        report(test=self.id(), **grown)
        return grown

    def assert_hits(self, grown: dict[str, int]) -> None:
        self.assertGreaterEqual(grown["load_blocks"], self.blocks)
        self.assertEqual(grown["load_failed_blocks"], 0)
        self.assertEqual(grown["external"], grown["load_blocks"] * BLOCK)

    def assert_heals(self) -> None:
        """Damage is found when it is loaded; what is computed in its place is saved again."""
        for _ in range(3):
            grown = self.round()
            if grown["load_failed_blocks"] == 0 and grown["load_blocks"] >= self.blocks:
                break
        self.assert_hits(grown)

    def assert_misses(self, grown: dict[str, int]) -> None:
        self.assertEqual((grown["load_blocks"], grown["external"]), (0, 0))
        self.assertGreater(grown["lookups"], 0)


def shared_prompts() -> tuple[list[list[int]], int, int]:
    """Three prompts, two with one prefix; their full blocks, and those that are saved."""
    shared = prompt(1, 300)
    prompts = [shared, prompt(2, 200), [*shared[:160], *prompt(3, 60)]]
    blocks = 300 // BLOCK + 200 // BLOCK + 220 // BLOCK - 5
    return prompts, blocks, blocks + 1  # 220 and 7 more of those computed


def report(**facts: Any) -> None:
    print(json.dumps(facts, default=str), file=sys.stderr, flush=True)
