# SPDX-License-Identifier: Apache-2.0
"""What the connector counts, by vLLM's own hooks: its log line and its /metrics."""

from __future__ import annotations

from typing import Any, Final

from vllm.distributed.kv_transfer.kv_connector.v1.metrics import (
    KVConnectorPromMetrics,
    KVConnectorStats,
)

# name -> its line of help; of /metrics each is vllm:cairn_NAME_total
COUNTERS: Final = {
    "lookups": "Requests looked up in the store.",
    "lookup_hit_blocks": "Leading blocks that lookups found in the store.",
    "lookup_miss_blocks": "Blocks that lookups asked for and did not find.",
    "waits": "Times a request waited for another one that loads the same prefix.",
    "load_blocks": "Blocks loaded from the store.",
    "load_bytes": "Bytes loaded from the store.",
    "load_failed_blocks": "Blocks that were found and could not be loaded; they are computed.",
    "save_blocks": "Blocks saved to the store.",
    "save_bytes": "Bytes saved to the store.",
    "save_present_blocks": "Blocks that the store had when they were saved.",
    "save_failed_blocks": "Blocks that the store did not take.",
    "flushed_requests": "Preempted requests whose saves had to end at once.",
}
SECONDS: Final = "load_seconds"  # a list of observations
BUCKETS: Final = (1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class CairnStats(KVConnectorStats):
    """Of one interval: counts by name, and seconds from a load's start to its end. Only names and
    numbers travel, so that whatever serialises them will do."""

    data: dict[str, Any]

    def reset(self) -> None:
        self.data = {}

    def add(self, name: str, count: int) -> None:
        if count:
            self.data[name] = self.data.get(name, 0) + count

    def loaded_in(self, seconds: float) -> None:
        self.data.setdefault(SECONDS, []).append(seconds)

    def aggregate(self, other: KVConnectorStats) -> KVConnectorStats:
        for name, value in other.data.items():
            if name == SECONDS:
                self.data.setdefault(SECONDS, []).extend(value)
            else:
                self.add(name, value)
        return self

    def reduce(self) -> dict[str, int | float]:
        reduced: dict[str, int | float] = {k: v for k, v in self.data.items() if k != SECONDS}
        seconds = sorted(self.data.get(SECONDS, ()))
        if seconds:
            reduced["load_ms_p50"] = round(1e3 * seconds[len(seconds) // 2], 3)
            reduced["load_ms_p99"] = round(1e3 * seconds[len(seconds) * 99 // 100], 3)
        return reduced

    def is_empty(self) -> bool:
        return not self.data

    def take(self) -> CairnStats | None:
        """What was counted since the last call; None: nothing."""
        if not self.data:
            return None
        taken = CairnStats(data=self.data)
        self.data = {}
        return taken


class CairnPromMetrics(KVConnectorPromMetrics):
    def __init__(
        self,
        vllm_config: Any,
        metric_types: Any,
        labelnames: list[str],
        per_engine_labelvalues: dict[int, list[object]],
    ) -> None:
        super().__init__(vllm_config, metric_types, labelnames, per_engine_labelvalues)
        self._counters = {
            name: self._counter_cls(
                name=f"vllm:cairn_{name}", documentation=text, labelnames=labelnames
            )
            for name, text in COUNTERS.items()
        }
        self._seconds = self._histogram_cls(
            name="vllm:cairn_load_seconds",
            documentation="Seconds from a load's start to its end, a request each.",
            buckets=BUCKETS,
            labelnames=labelnames,
        )
        self._children: dict[tuple[str, int], Any] = {}

    def _child(self, metric: Any, name: str, engine: int) -> Any:
        child = self._children.get((name, engine))
        if child is None:
            child = metric.labels(*self.per_engine_labelvalues[engine])
            self._children[name, engine] = child
        return child

    def observe(self, transfer_stats_data: dict[str, Any], engine_idx: int = 0) -> None:
        for name, value in transfer_stats_data.items():
            if name == SECONDS:
                child = self._child(self._seconds, name, engine_idx)
                for seconds in value:
                    child.observe(seconds)
            elif name in self._counters:
                self._child(self._counters[name], name, engine_idx).inc(value)
