# SPDX-License-Identifier: Apache-2.0
"""CairnConnector: vLLM's interface, with the scheduler's and the worker's side behind it.

In vLLM a connector is two objects: one in the scheduler, one in each worker. Where there is one
worker and it is in the scheduler's process, they share the store by `workers`: a lookup is a probe
and a hold. Elsewhere the scheduler has no store: it sends names down with a step's metadata, every
rank looks them up in its own, on hold, and answers with the step's output. Until then the request
waits, and the shortest answer counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    SupportsHMA,
)

from .messages import CairnMetadata, CairnWorkerMetadata
from .scheduler import SchedulerSide
from .stats import CairnPromMetrics, CairnStats
from .worker import WorkerSide

try:
    from vllm.v1.metrics.cache_hit_source import CacheHitSource

    HIT_SOURCE: Any = CacheHitSource.DISK
except ImportError:  # older ones do not ask
    HIT_SOURCE = None

if TYPE_CHECKING:
    import torch
    from vllm.config import VllmConfig
    from vllm.distributed.kv_events import KVCacheEvent
    from vllm.distributed.kv_transfer.kv_connector.v1.metrics import (
        KVConnectorPromMetrics,
        KVConnectorStats,
        PromMetric,
        PromMetricT,
    )
    from vllm.forward_context import ForwardContext
    from vllm.v1.attention.backend import AttentionMetadata
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.kv_cache_interface import KVCacheConfig
    from vllm.v1.outputs import KVConnectorOutput
    from vllm.v1.request import Request

_workers: dict[str, WorkerSide] = {}  # of this process, by engine

OPTIONS = ("pipeline", "deadline", "hold", "durability", "load", "revision", "tenant", "salt")


def _checked(extra: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(extra) - set(OPTIONS))
    if unknown:
        raise ValueError(
            f"CairnConnector: kv_connector_extra_config has no {unknown[0]!r}; it takes"
            f" {', '.join(OPTIONS)}"
        )
    if extra.get("load", "async") not in ("async", "layerwise"):
        raise ValueError('CairnConnector: load is "async" or "layerwise"')
    if extra.get("durability", "memory") not in ("memory", "written", "durable"):
        raise ValueError('CairnConnector: durability is "memory", "written" or "durable"')
    return extra


class CairnConnector(KVConnectorBase_V1, SupportsHMA):
    """SupportsHMA says that a hybrid model is ours to refuse, which we do in our own words."""

    if HIT_SOURCE is not None:
        _cache_hit_source = HIT_SOURCE

    def __init__(
        self, vllm_config: VllmConfig, role: KVConnectorRole, kv_cache_config: KVCacheConfig
    ) -> None:
        super().__init__(
            vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config
        )
        extra = _checked(dict(self._kv_transfer_config.kv_connector_extra_config))
        self._scheduler: Any = None  # of the two, the one that this object is
        self._worker: Any = None
        self._by_layer = False  # this step's forward loads or saves by layers
        if role == KVConnectorRole.SCHEDULER:
            self._scheduler = SchedulerSide(vllm_config, kv_cache_config, _workers, extra)
        else:
            self._worker = WorkerSide(vllm_config, kv_cache_config, _workers, extra)
        self._stats: CairnStats = (self._worker or self._scheduler).stats

    @property
    def requires_kv_delivery(self) -> bool:
        return False  # a save that is lost is a miss

    @classmethod
    def requires_piecewise_for_cudagraph(cls, extra_config: dict[str, Any]) -> bool:
        return True  # a layer is saved as it ends

    # ---- worker --------------------------------------------------------------------------------
    #
    # Between two of these calls the model has had all of the processor's caches: what a call costs
    # is what it touches. So each looks first whether the step has anything for it.

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        self._worker.register(kv_caches)

    def handle_preemptions(self, kv_connector_metadata: KVConnectorMetadata) -> None:
        assert isinstance(kv_connector_metadata, CairnMetadata)
        if not kv_connector_metadata.begun:
            self._worker.begin(kv_connector_metadata)

    def bind_connector_metadata(self, connector_metadata: KVConnectorMetadata) -> None:
        assert isinstance(connector_metadata, CairnMetadata)
        self._connector_metadata = connector_metadata
        if not connector_metadata.begun:
            self._worker.begin(connector_metadata)
        self._by_layer = bool(connector_metadata.saves)

    def has_connector_metadata(self) -> bool:
        """vLLM asks before each layer: in most steps none is loaded or saved."""
        return self._by_layer

    def start_load_kv(self, forward_context: ForwardContext, **kwargs: Any) -> None:
        meta = self._connector_metadata
        assert isinstance(meta, CairnMetadata)
        if meta.loads:
            self._worker.start_loads(meta)
            self._by_layer = self._by_layer or bool(self._worker.layerwise)

    def wait_for_layer_load(self, layer_name: str) -> None:
        if self._worker.layerwise:
            self._worker.wait_for_layer(layer_name)

    def save_kv_layer(
        self,
        layer_name: str,
        kv_layer: torch.Tensor,
        attn_metadata: AttentionMetadata,
        **kwargs: Any,
    ) -> None:
        self._worker.save_layer(layer_name)

    def wait_for_save(self) -> None:
        if self._by_layer:
            self._by_layer = False
            self._worker.end_saves()

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        sent, received = self._worker.finished()
        return sent, received

    def get_block_ids_with_load_errors(self) -> set[int]:
        worker = self._worker
        invalid: set[int] = worker.take_invalid() if worker.invalid else set()
        return invalid

    def build_connector_worker_meta(self) -> CairnWorkerMetadata | None:
        answers: CairnWorkerMetadata | None = self._worker.take_answers()
        return answers

    # ---- scheduler -----------------------------------------------------------------------------

    def get_num_new_matched_tokens(
        self, request: Request, num_computed_tokens: int
    ) -> tuple[int | None, bool]:
        count, asynchronous = self._scheduler.match(request, num_computed_tokens)
        return count, asynchronous

    def update_state_after_alloc(
        self, request: Request, blocks: KVCacheBlocks, num_external_tokens: int
    ) -> None:
        self._scheduler.allocated(request, blocks, num_external_tokens)

    def build_connector_meta(self, scheduler_output: SchedulerOutput) -> KVConnectorMetadata:
        meta: CairnMetadata = self._scheduler.build(scheduler_output)
        return meta

    def update_connector_output(self, connector_output: KVConnectorOutput) -> None:
        self._scheduler.output(connector_output)

    def request_finished(
        self, request: Request, block_ids: list[int]
    ) -> tuple[bool, dict[str, Any] | None]:
        return self._scheduler.finished(request), None

    def request_finished_all_groups(
        self, request: Request, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        return self._scheduler.finished(request), None

    def take_events(self) -> Iterable[KVCacheEvent]:
        events: list[KVCacheEvent] = self._scheduler.take_events()
        return events

    def has_pending_push_work(self) -> bool:
        return bool(self._scheduler.has_work())

    def reset_cache(self) -> bool | None:
        return bool(self._scheduler.clear())

    # ---- both ----------------------------------------------------------------------------------

    def get_kv_connector_stats(self) -> KVConnectorStats | None:
        stats = self._stats
        return stats.take() if stats.data else None

    @classmethod
    def build_kv_connector_stats(
        cls, data: dict[str, Any] | None = None
    ) -> KVConnectorStats | None:
        return CairnStats(data=data or {})

    @classmethod
    def build_prom_metrics(
        cls,
        vllm_config: VllmConfig,
        metric_types: dict[type[PromMetric], type[PromMetricT]],
        labelnames: list[str],
        per_engine_labelvalues: dict[int, list[object]],
    ) -> KVConnectorPromMetrics:
        return CairnPromMetrics(vllm_config, metric_types, labelnames, per_engine_labelvalues)

    def shutdown(self) -> None:
        if self._worker is not None:
            self._worker.shutdown()
