# SPDX-License-Identifier: Apache-2.0
"""As much of vLLM as cairn.vllm asks for, so that it is tested where there is no vLLM; what the
real one has is compared in python/tests/engines/vllm/test_contract.py."""

from __future__ import annotations

import ctypes
import enum
import logging
import os
import re
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


class PromMetrics:
    def __init__(self, vllm_config: Any, metric_types: Any, labelnames: list[str],
                 per_engine_labelvalues: dict[int, list[object]]) -> None:
        self.per_engine_labelvalues = per_engine_labelvalues
        self._counter_cls, self._histogram_cls = metric_types["counter"], metric_types["histogram"]


class Metric:
    """One of prometheus_client's, which notes what it is told."""

    def __init__(self, labels: tuple[object, ...] = (), seen: list[Any] | None = None) -> None:
        self.seen: list[Any] = [] if seen is None else seen
        self.values = labels

    def labels(self, *values: object) -> Metric:
        return Metric(values, self.seen)

    def inc(self, count: float) -> None:
        self.seen.append((self.values, count))

    observe = inc


@dataclass
class AllBlocksCleared:
    pass


@dataclass
class BlockStored:
    block_hashes: list[bytes]
    parent_block_hash: bytes | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None
    medium: str | None
    lora_name: str | None
    extra_keys: Any = None
    group_idx: int | None = None


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


# ---- what the tier asks for ---------------------------------------------------------------------


class Medium(enum.Enum):
    CPU = "CPU"
    STORAGE = "STORAGE"


class LookupResult(enum.Enum):
    MISS = enum.auto()
    HIT = enum.auto()
    HIT_PENDING = enum.auto()
    RETRY = enum.auto()


@dataclass
class ReqContext:
    req_id: str


@dataclass
class RequestOffloadingContext:
    policy: Any = None


@dataclass
class OffloadingEvent:
    keys: list[bytes]
    medium: Medium
    removed: bool


@dataclass
class TransferJob:
    job_id: int
    keys: list[bytes]
    chunk_ids: list[int]
    is_promotion: bool
    req_context: ReqContext


@dataclass
class JobResult:
    job_id: int
    success: bool
    successful_keys: Any = None
    transfer_time: float | None = None
    transfer_bytes: int | None = None


class SecondaryTierManager:
    def __init__(self, offloading_spec: Any, primary_kv_view: memoryview, tier_type: str,
                 backpressure_detector: Any = None) -> None:
        assert primary_kv_view.strides is not None
        self.block_size_bytes = primary_kv_view.strides[0]
        self.tier_type = tier_type


class FileMapper:
    """The names under which vLLM's own fs tier keeps chunks."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields

    @classmethod
    def from_offloading_spec(cls, root_dir: str, offloading_spec: Any, blocks_per_file: int = 1,
                             parallel_agnostic: bool = False) -> FileMapper:
        config = offloading_spec.config
        sizes = ("tp_size", "pp_size", "pcp_size", "dcp_size")
        same = parallel_agnostic and config.parallel.is_parallelism_agnostic
        return cls({
            "model_name": config.model.name, "tokens_per_hash": config.cache.tokens_per_hash,
            "blocks_per_file": blocks_per_file, "dtype": str(config.model.dtype),
            "kv_cache_groups": [], "inference_engine": "vllm",
            **{name: 1 if same else getattr(config.parallel, name) for name in sizes},
            **({} if same else {"parallel_agnostic": False}),
        })

    def get_run_config(self) -> dict[str, Any]:
        return dict(self.fields)


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


BACKENDS: list[Any] = []  # of attention
CPU = {"amx": True, "avx512": True}  # what it has
RANK = types.SimpleNamespace(rank_in_group=0, world_size=1)


class Revision(str):
    """huggingface_hub's ResolvedRevision: what was asked for, with the commit that it was."""

    resolved: str

    def __new__(cls, resolved: str, asked: str = "main") -> Revision:
        revision = super().__new__(cls, asked)
        revision.resolved = resolved
        return revision

    def __reduce__(self) -> Any:
        return Revision, (self.resolved, str(self))


HUB = types.SimpleNamespace(HF_HUB_CACHE="/nonexistent")  # huggingface_hub.constants
ADAPTERS: dict[str, str] = {}  # names of the hub -> folders in its cache


def put_in_hub(name: str, commit: str, ref: str = "main") -> str:
    """A folder of HUB's cache for that commit, which the reference is of from now on."""
    repository = os.path.join(HUB.HF_HUB_CACHE, "models--" + name.replace("/", "--"))
    snapshot = os.path.join(repository, "snapshots", commit)
    for folder in (snapshot, os.path.join(repository, "refs")):
        os.makedirs(folder, exist_ok=True)
    for path, text in ((os.path.join(snapshot, "config.json"), "{}"),
                       (os.path.join(repository, "refs", ref), commit)):
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    return snapshot


def cached_file(name: str, filename: str, **options: Any) -> str:
    assert options["local_files_only"]
    repository = os.path.join(HUB.HF_HUB_CACHE, "models--" + name.replace("/", "--"))
    with open(os.path.join(repository, "refs", options["revision"] or "main")) as file:
        return os.path.join(repository, "snapshots", file.read(), filename)


def extract_commit_hash(path: str | None, commit: str | None) -> str | None:
    found = re.search(r"snapshots/([0-9a-f]{40})/", path or "")
    return commit or (found and found.group(1))


def get_adapter_absolute_path(path: str) -> str:
    if os.path.isabs(path) or path.startswith("~") or os.path.exists(path):
        return os.path.abspath(os.path.expanduser(path))
    return ADAPTERS.get(path, path)


def install() -> None:
    kv = "vllm.distributed.kv_transfer.kv_connector"
    _module("vllm", __version__="fake")
    _module("torch", cpu=types.SimpleNamespace(
        _is_amx_tile_supported=lambda: CPU["amx"], _is_avx512_supported=lambda: CPU["avx512"]))
    _module("vllm.logger", init_logger=logging.getLogger)
    _module("vllm.lora.utils", get_adapter_absolute_path=get_adapter_absolute_path)
    _module("transformers.utils.hub", cached_file=cached_file,
            extract_commit_hash=extract_commit_hash)
    _module("huggingface_hub", constants=HUB)
    _module("vllm.distributed.parallel_state", get_pp_group=lambda: types.SimpleNamespace(
        rank_in_group=0, world_size=1), get_tp_group=lambda: RANK)
    empty = {name: type(name, (), {}) for name in ("KVConnectorMetadata",
             "KVConnectorWorkerMetadata", "SupportsHMA")}
    _module(f"{kv}.v1.base", KVConnectorBase_V1=Base, KVConnectorRole=KVConnectorRole, **empty)
    _module(f"{kv}.v1.metrics", KVConnectorStats=Stats, KVConnectorPromMetrics=PromMetrics)
    _module(f"{kv}.utils", get_current_attn_backends=lambda config, layers: BACKENDS)
    _module("vllm.v1.kv_cache_interface", FullAttentionSpec=FullAttentionSpec,
            MLAAttentionSpec=type("MLAAttentionSpec", (), {}),
            UniformTypeKVCacheSpecs=type("UniformTypeKVCacheSpecs", (), {}))
    _module("vllm.distributed.kv_events", AllBlocksCleared=AllBlocksCleared,
            BlockStored=BlockStored, MEDIUM_STORAGE="STORAGE")
    _module("vllm.v1.core.kv_cache_utils", maybe_convert_block_hash=lambda name: name,
            generate_block_hash_extra_keys=lambda request, start, end, first: (None, first),
            to_event_extra_keys=list)
    offload = "vllm.v1.kv_offload"
    _module(f"{offload}.base", LookupResult=LookupResult, Medium=Medium, OffloadKey=bytes,
            OffloadingEvent=OffloadingEvent, ReqContext=ReqContext,
            RequestOffloadingContext=RequestOffloadingContext)
    _module(f"{offload}.file_mapper", FileMapper=FileMapper)
    _module(f"{offload}.tiering.base", JobResult=JobResult, TransferJob=TransferJob,
            SecondaryTierManager=SecondaryTierManager)
