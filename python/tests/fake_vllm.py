# SPDX-License-Identifier: Apache-2.0
"""As much of vLLM as cairn.vllm's connector asks for, so that it is tested where there is no vLLM;
what the real one asks for is compared in python/tests/engines/vllm/test_contract.py."""

from __future__ import annotations

import ctypes
import enum
import sys
import types
from dataclasses import dataclass, field
from typing import Any


class KVConnectorRole(enum.Enum):
    SCHEDULER = 0
    WORKER = 1


class Base:
    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any) -> None:
        self._kv_transfer_config = vllm_config.kv_transfer_config
        self._connector_metadata: Any = None

    def bind_connector_metadata(self, connector_metadata: Any) -> None:
        self._connector_metadata = connector_metadata

    def _get_connector_metadata(self) -> Any:
        return self._connector_metadata


@dataclass
class Stats:
    data: dict[str, Any] = field(default_factory=dict)


class FullAttentionSpec:
    def __init__(self, block_size: int) -> None:
        self.block_size = block_size


class Tensor:
    """One layer of a KV cache in memory of its own: (blocks, heads, tokens, content)."""

    device = types.SimpleNamespace(type="cpu")
    dtype = "torch.float32"

    def __init__(self, *shape: int) -> None:
        self.shape = shape
        self.bytes = ctypes.create_string_buffer(self.numel() * 4)
        self.page = self.numel() * 4 // shape[0]

    def numel(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count

    def dim(self) -> int:
        return len(self.shape)

    def element_size(self) -> int:
        return 4

    def data_ptr(self) -> int:
        return ctypes.addressof(self.bytes)

    def stride(self, dim: int | None = None) -> Any:
        strides, run = [], 1
        for size in reversed(self.shape):
            strides.append(run)
            run *= size
        strides.reverse()
        return strides if dim is None else strides[dim]

    def block(self, i: int) -> bytes:
        return self.bytes.raw[i * self.page : (i + 1) * self.page]

    def fill(self, i: int, content: bytes) -> None:
        ctypes.memmove(self.data_ptr() + i * self.page, content, self.page)


def _module(name: str, **names: Any) -> None:
    module = types.ModuleType(name)
    module.__dict__.update(names)
    module.__path__ = []
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    if parent:
        if parent not in sys.modules:
            _module(parent)
        setattr(sys.modules[parent], last, module)


RANK = types.SimpleNamespace(rank_in_group=0, world_size=1)


def install() -> None:
    kv = "vllm.distributed.kv_transfer.kv_connector"
    _module("vllm", __version__="fake")
    _module("vllm.distributed.parallel_state", get_pp_group=lambda: types.SimpleNamespace(
        rank_in_group=0, world_size=1), get_tp_group=lambda: RANK)
    empty = {name: type(name, (), {}) for name in ("KVConnectorMetadata",
             "KVConnectorWorkerMetadata", "SupportsHMA")}
    _module(f"{kv}.v1.base", KVConnectorBase_V1=Base, KVConnectorRole=KVConnectorRole, **empty)
    _module(f"{kv}.v1.metrics", KVConnectorStats=Stats, KVConnectorPromMetrics=object)
    _module(f"{kv}.utils", get_current_attn_backends=lambda config, layers: [])
    _module("vllm.v1.kv_cache_interface", FullAttentionSpec=FullAttentionSpec,
            MLAAttentionSpec=type("MLAAttentionSpec", (), {}),
            UniformTypeKVCacheSpecs=type("UniformTypeKVCacheSpecs", (), {}))
