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
from pathlib import Path
from typing import Any

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


def report(**facts: Any) -> None:
    print(json.dumps(facts, default=str), file=sys.stderr, flush=True)
