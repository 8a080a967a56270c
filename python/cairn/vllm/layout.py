# SPDX-License-Identifier: Apache-2.0
"""What a block of this engine is: where its bytes lie, and all that makes them comparable.

Whatever differs between two engines and could change a byte of their KV goes into the namespace,
so that it makes a miss. What cannot be named is refused, in one line, at start.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import vllm
from vllm.v1.kv_cache_interface import FullAttentionSpec, MLAAttentionSpec, UniformTypeKVCacheSpecs

from .weights import adapter, revision_of

SEGMENTS_MAX: Final = 64  # of a layer of a block: more runs are not worth a call
FORMAT_VERSION: Final = 1  # of what names and shards are; raise it when they change

Item = tuple[int, int] | list[tuple[int, int]]


class Refused(ValueError):
    """The one line that says what this connector cannot do right, and what would be right."""

    def __init__(self, text: str) -> None:
        super().__init__("CairnConnector: " + text)


def block_tokens(vllm_config: Any, kv_cache_config: Any) -> int:
    """Tokens of a block, where this is a cache that we know; else Refused."""
    groups = kv_cache_config.kv_cache_groups
    if len(groups) != 1:
        raise Refused(
            f"this model has {len(groups)} KV cache groups (hybrid attention); it can store one"
            " group of full attention: try --disable-hybrid-kv-cache-manager, or no connector"
        )
    group = groups[0]
    spec = group.kv_cache_spec
    specs = spec.kv_cache_specs.values() if isinstance(spec, UniformTypeKVCacheSpecs) else [spec]
    for one in specs:
        if type(one) not in (FullAttentionSpec, MLAAttentionSpec):
            raise Refused(
                f"a KV cache of {type(one).__name__} is not known; only full attention and MLA are"
            )
    if getattr(group, "is_eagle_group", False) or _has_draft_layers(vllm_config):
        raise Refused(
            "speculative decoding by a draft model shares the KV cache; use ngram, or none"
        )
    if vllm_config.parallel_config.decode_context_parallel_size > 1:
        raise Refused("decode context parallelism splits blocks over ranks, which is not known")
    return int(spec.block_size)


def _has_draft_layers(vllm_config: Any) -> bool:
    spec = vllm_config.speculative_config
    return spec is not None and not str(spec.method).startswith(("ngram", "suffix"))


def check_hashes(vllm_config: Any) -> None:
    """Block hashes are our names: they have to mean the same in every process."""
    algorithm = str(vllm_config.cache_config.prefix_caching_hash_algo)
    if algorithm.startswith("xxhash") and os.getenv("PYTHONHASHSEED") is None:
        raise Refused(
            f"prefix_caching_hash_algo={algorithm} has a random seed in each process: use sha256,"
            " or set PYTHONHASHSEED"
        )


# ---- where the bytes lie ------------------------------------------------------------------------


def _runs(sizes: list[int], strides: list[int], names: str, item: int) -> tuple[Any, int, str]:
    """(byte offsets of the runs, bytes of each, the order as text) of one block of one layer."""
    rows = zip(strides, sizes, names, strict=True)
    dims = sorted(((stride * item, size, name) for stride, size, name in rows), reverse=True)
    text = " ".join(f"{name}{size}" for _, size, name in dims)
    run = item
    while dims and (dims[-1][1] == 1 or dims[-1][0] == run):
        run *= dims.pop()[1]
    outer = [(stride, size) for stride, size, _ in dims if size > 1]
    if any(stride < run for stride, _ in outer):
        raise Refused(f"a layout whose blocks overlap is not known ({text})")
    offsets = [
        sum(stride * i for (stride, _), i in zip(outer, at, strict=True))
        for at in product(*(range(size) for _, size in outer))
    ]
    return offsets, run, text


@dataclass(frozen=True)
class Layer:
    base: int  # address of block 0
    stride: int  # bytes from block to block
    offsets: tuple[int, ...]  # of the runs in a block
    run: int  # bytes of each

    def items(self, blocks: list[int]) -> list[Item]:
        """The memory of this layer of each block, in order."""
        base, stride, run = self.base, self.stride, self.run
        if len(self.offsets) == 1:
            return [(base + stride * block, run) for block in blocks]
        return [
            [(base + stride * block + offset, run) for offset in self.offsets] for block in blocks
        ]


class Pages:
    """The KV cache of this rank: a shard of a block is one layer of it, in the group's order."""

    def __init__(self, kv_cache_config: Any, kv_caches: dict[str, Any]) -> None:
        self.tensors = kv_caches  # kept: the addresses are theirs
        self.index: dict[str, int] = {}
        self.layers: list[Layer] = []
        texts = set()
        for name in kv_cache_config.kv_cache_groups[0].layer_names:
            layer, text = self._layer(name, kv_caches[name], kv_cache_config.num_blocks)
            self.index[name] = len(self.layers)
            self.layers.append(layer)
            texts.add(text)
        if len(texts) != 1:
            raise Refused(f"layers of different layouts are not known ({sorted(texts)})")
        self.text = texts.pop()
        self.page_bytes = self.layers[0].run * len(self.layers[0].offsets)

    @staticmethod
    def _layer(name: str, tensor: Any, blocks: int) -> tuple[Layer, str]:
        if not hasattr(tensor, "data_ptr"):
            raise Refused(f"the KV cache of {name} is no single tensor, which is not known")
        if tensor.device.type != "cpu":
            raise Refused(
                f"the KV cache is on {tensor.device.type}; this connector reads and writes host"
                " memory only. Use CairnTier under OffloadingConnector (docs/vllm.md)"
            )
        if tensor.shape[0] % blocks:
            raise Refused(f"the KV cache of {name} has {tensor.shape[0]} pages for {blocks} blocks")
        pages = tensor.shape[0] // blocks  # kernel blocks of a block
        names = "PQRSTUVW"[: tensor.dim() - 1] if tensor.dim() != 4 else "HNC"
        sizes, strides = list(tensor.shape[1:]), list(tensor.stride()[1:])
        if pages > 1:
            names, sizes = "K" + names, [pages, *sizes]
            strides = [tensor.stride(0), *strides]
        item = tensor.element_size()
        offsets, run, text = _runs(sizes, strides, names, item)
        if len(offsets) > SEGMENTS_MAX:
            raise Refused(f"a layout of {len(offsets)} runs a block is not known ({text})")
        stride = tensor.stride(0) * item * pages
        return Layer(tensor.data_ptr(), stride, tuple(offsets), run), f"{tensor.dtype} {text}"

    def items(self, blocks: list[int]) -> list[Item]:
        """All shards of each block, block by block."""
        rows = [layer.items(blocks) for layer in self.layers]
        return [item for block in zip(*rows, strict=True) for item in block]


# ---- what makes blocks comparable ---------------------------------------------------------------


def revision(vllm_config: Any, stated: Any) -> str:
    """Of the weights: the one that is stated, else one that is found out; or Refused."""
    if stated is not None:
        return str(stated)
    model = vllm_config.model_config
    other = getattr(model, "hf_config_path", None)  # then the configuration is not the model's
    found = revision_of(model.model, model.revision, None if other else model.hf_config)
    if found is None:
        raise Refused(
            f"the commit of {model.model} (revision {model.revision}) cannot be known: say"
            ' "revision" in kv_connector_extra_config, another one for other weights'
        )
    return found


def _config_text(vllm_config: Any) -> str:
    """A digest of the model's configuration, overrides included."""
    model = vllm_config.model_config
    config = json.loads(model.hf_config.to_json_string(use_diff=False))
    for name in ("transformers_version", "_name_or_path", "name_or_path"):
        config.pop(name, None)
    text = json.dumps(config, sort_keys=True, default=str)
    if "longrope" in text or "dynamic" in text:
        text += f" max_model_len={model.max_model_len}"  # these depend on it
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _backends(vllm_config: Any, layers: list[str]) -> str:
    """Who writes the bytes of a page, and may order them as it likes."""
    from vllm.distributed.kv_transfer.kv_connector.utils import get_current_attn_backends

    names = {backend.full_cls_name() for backend in get_current_attn_backends(vllm_config, layers)}
    text = ",".join(sorted(str(name) for name in names))
    if "cpu" in text.lower():
        import torch

        flags = (torch.cpu._is_amx_tile_supported(), torch.cpu._is_avx512_supported())
        text += f" {platform.machine()} amx={flags[0]:d} avx512={flags[1]:d}"
    return text


def global_rank(vllm_config: Any) -> int:
    """Of this process in the engine: tensor and pipeline parallel."""
    from vllm.distributed.parallel_state import get_pp_group, get_tp_group

    tp = get_tp_group()
    return int(get_pp_group().rank_in_group * tp.world_size + tp.rank_in_group)


def store_rank(vllm_config: Any, rank: int) -> int:
    """What {rank} becomes: data parallel engines have stores of their own, too."""
    parallel = vllm_config.parallel_config
    return int(parallel.data_parallel_rank) * int(parallel.world_size) + rank


def describe(vllm_config: Any, kv_cache_config: Any, pages: Pages, rank: int,
             extra: dict[str, Any]) -> dict[str, Any]:
    """The namespace's description, as Store.namespace() takes it."""
    model, cache = vllm_config.model_config, vllm_config.cache_config
    parallel = vllm_config.parallel_config
    layers = list(pages.index)
    tokens = block_tokens(vllm_config, kv_cache_config)
    return {
        "model": f"{model.model} {_config_text(vllm_config)} {model.quantization or ''}".strip(),
        "revision": str(extra["revision"]),
        "dtype": f"{model.dtype} {cache.cache_dtype}",
        "layout": f"vllm {vllm.__version__} {pages.text} block={tokens}"
        f" hash={cache.prefix_caching_hash_algo} {_backends(vllm_config, layers)}",
        "parallel": f"tp={parallel.tensor_parallel_size},pp={parallel.pipeline_parallel_size}",
        "tenant": str(extra.get("tenant", "")),
        "salt": str(extra.get("salt", "")).encode(),
        "rank": rank,
        "world": int(parallel.world_size),
        "format_version": FORMAT_VERSION,
        "shard_count": len(pages.layers),
        "shard_bytes": pages.page_bytes,
    }


def suffix_of(request: Any) -> bytes:
    """What a block's hash leaves out: it has an adapter's name only, not what is in it; and a salt
    only in the first block's, from where it goes on by the chain."""
    lora = request.lora_request
    return b"" if lora is None else adapter(lora.lora_name, lora.lora_path)
