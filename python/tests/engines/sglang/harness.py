# SPDX-License-Identifier: Apache-2.0
"""SGLang's own host pools on the CPU, and its factory of back ends, over stores of the tests."""
from __future__ import annotations

import ctypes
import hashlib
import sys
import types
from importlib.machinery import ModuleSpec
from typing import Any



class _StandIn(types.ModuleType):
    """A package in which every name is a class that does nothing."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__getattr__": lambda self, _: None})


class _NoTorchvision:
    """SGLang imports torchvision for pictures only, and its wheels are for accelerators."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.partition(".")[0] != "torchvision":
            return None
        return ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


import transformers  # noqa: E402, F401

sys.meta_path.append(_NoTorchvision())

import torch  # noqa: E402
from sglang.srt.mem_cache.device_pool_info import (  # noqa: E402
    KVBufferLayout,
    KVBuffers,
    MHABufferInfo,
)
from sglang.srt.mem_cache.hicache_storage import HiCacheStorageConfig  # noqa: E402
from sglang.srt.mem_cache.pool_host.mha import MHATokenToKVPoolHost  # noqa: E402
from sglang.srt.mem_cache.storage.backend_factory import StorageBackendFactory  # noqa: E402

KIB = 1024
PAGE = 64  # tokens
LAYERS, HEADS, DIM = 4, 8, 128  # a page of 2 x 512 KiB in 16 bits
PAGES = 40


def pool_of(
    layout: str = "page_first", dtype: Any = torch.bfloat16, page: int = PAGE, dim: int = DIM
) -> Any:
    """A host pool, made as SGLang makes it for a device pool of these tensors."""
    tensors = [torch.zeros(page, HEADS, dim, dtype=dtype) for _ in range(2 * LAYERS)]
    keys, values = tensors[:LAYERS], tensors[LAYERS:]
    buffers = KVBuffers(
        k=tuple(keys),
        v=tuple(values),
        k_data_ptrs=torch.tensor([one.data_ptr() for one in keys], dtype=torch.uint64),
        v_data_ptrs=torch.tensor([one.data_ptr() for one in values], dtype=torch.uint64),
        layout=KVBufferLayout.NHD,
    )
    return MHATokenToKVPoolHost(
        MHABufferInfo(
            buffers=buffers,
            page_size=page,
            head_num=HEADS,
            head_dim=dim,
            v_head_dim=dim,
            dtype=dtype,
            device=torch.device("cpu"),
        ),
        host_to_device_ratio=1.0,
        host_size=0,
        page_size=page,
        layout=layout,
        pin_memory=False,
        device="cpu",
        device_capacity_tokens=PAGES * page,
        start_layer=0,
        end_layer=LAYERS,
    )


def config_of(pipeline: str, **changes: Any) -> HiCacheStorageConfig:
    extra = {
        "backend_name": "cairn",
        "module_path": "cairn.sglang",
        "class_name": "CairnHiCache",
        "interface_v1": 1,
        "pipeline": pipeline,
        **changes.pop("extra", {}),
    }
    fields: dict[str, Any] = {
        "tp_rank": 0,
        "tp_size": 1,
        "pp_rank": 0,
        "pp_size": 1,
        "attn_cp_rank": 0,
        "attn_cp_size": 1,
        "is_mla_model": False,
        "enable_storage_metrics": False,
        "is_page_first_layout": True,
        "model_name": "org/model",
        "extra_config": extra,
        **changes,
    }
    return HiCacheStorageConfig(**fields)


def backend_of(pipeline: str, pool: Any, **changes: Any) -> Any:
    """The back end, made by SGLang's factory from what a user configures."""
    made = StorageBackendFactory.create_backend("dynamic", config_of(pipeline, **changes), pool)
    made.register_mem_pool_host(pool)
    return made


def page_hash(number: int) -> str:
    return hashlib.sha256(b"page %d" % number).hexdigest()


def indices(pages: list[int], page: int = PAGE) -> Any:
    """The token indices of pages of the pool."""
    return torch.cat([torch.arange(n * page, (n + 1) * page) for n in pages])


def fill(pool: Any, pages: list[int], numbers: list[int]) -> None:
    """Writes to each of `pages` bytes that are a function of its number, as each part lies."""
    pointers, sizes = pool.get_page_buffer_meta(indices(pages, pool.page_size))
    parts = len(pointers) // len(pages)
    for i, (pointer, size) in enumerate(zip(pointers, sizes, strict=True)):
        ctypes.memmove(pointer, part_bytes(numbers[i // parts], i % parts, size), size)


def part_bytes(number: int, part: int, size: int) -> bytes:
    seed = hashlib.sha256(b"%d part %d" % (number, part)).digest()
    return (seed * (size // len(seed) + 1))[:size]


def holds(pool: Any, pages: list[int], numbers: list[int]) -> list[bool]:
    """Which of `pages` hold, byte for byte, what fill() writes for their numbers."""
    pointers, sizes = pool.get_page_buffer_meta(indices(pages, pool.page_size))
    parts = len(pointers) // len(pages)
    same = [True] * len(pages)
    for i, (pointer, size) in enumerate(zip(pointers, sizes, strict=True)):
        wanted = part_bytes(numbers[i // parts], i % parts, size)
        same[i // parts] &= ctypes.string_at(pointer, size) == wanted
    return same
