# SPDX-License-Identifier: Apache-2.0
"""For tests alone: vLLM's tiering spec with plain copies in place of its CUDA worker, so that its
real manager runs here. Streams, pinning and the order of a store after compute are not exercised.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from vllm.v1.kv_offload.base import OffloadingWorker, TransferResult
from vllm.v1.kv_offload.cpu.shared_offload_region import SharedOffloadRegion
from vllm.v1.kv_offload.tiering.spec import TieringOffloadingSpec


class CopyWorker(OffloadingWorker):
    def __init__(self, spec: TieringOffloadingSpec, kv_caches: Any) -> None:
        assert spec.blocks_per_chunk == 1
        self.region = SharedOffloadRegion(
            engine_id=spec.config.engine_id, num_chunks=spec.num_chunks, rank=0,
            kv_bytes_per_chunk=spec.kv_bytes_per_chunk,
            cpu_page_size=spec.cpu_page_size_per_worker,
        )
        self.pairs = []
        for one in kv_caches.tensors:
            page = one.page_size_bytes
            cache = one.tensor.view(torch.int8).view((-1, page))
            self.pairs.append((cache, self.region.create_next_worker_view(page)))
        self.done: list[TransferResult] = []

    def _copy(self, job_id: int, blocks: Any, chunks: Any, load: bool) -> bool:
        for cache, host in self.pairs:
            for block, chunk in zip(blocks.tolist(), chunks.tolist(), strict=True):
                if load:
                    cache[block].copy_(host[chunk])
                else:
                    host[chunk].copy_(cache[block])
        self.done.append(TransferResult(job_id=job_id, success=True))
        return True

    def submit_store(self, job_id: int, src_spec: Any, dst_spec: Any) -> bool:
        return self._copy(job_id, src_spec.block_ids, dst_spec.block_ids, load=False)

    def submit_load(self, job_id: int, src_spec: Any, dst_spec: Any) -> bool:
        return self._copy(job_id, dst_spec.block_ids, src_spec.block_ids, load=True)

    def get_finished(self) -> list[TransferResult]:
        done, self.done = self.done, []
        return done

    def wait(self, job_ids: set[int]) -> None:
        return

    def shutdown(self) -> None:
        self.pairs.clear()
        self.region.cleanup()


class CopySpec(TieringOffloadingSpec):
    def get_worker(self, kv_caches: Any) -> OffloadingWorker:
        if self._worker is None:
            self._worker = CopyWorker(self, kv_caches)
        return self._worker


os.environ.setdefault("PYTHONPATH", os.path.dirname(os.path.abspath(__file__)))
