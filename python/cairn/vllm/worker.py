# SPDX-License-Identifier: Apache-2.0
"""A worker's side of CairnConnector: loads and saves of one rank, in the model runner's thread.

Invariants:
 1. Every task is detached and has a deadline: it ends by then, and nothing touches the KV cache
    after it. So no request waits for a sick device, and a block is free when its tasks have ended.
 2. A load is reported once, when all of it has ended; a block of which a layer failed is reported
    as invalid in the same pass.
 3. A layer is saved after the forward has written it, and a block counts as taken only when each
    of its layers was.
 4. Nothing here raises into the model runner: what fails is a miss, and counted.
"""

from __future__ import annotations

import time
from typing import Any, Final

from vllm.logger import init_logger

import cairn

from . import layout, stores
from .messages import CairnMetadata, CairnWorkerMetadata, Load, Save
from .stats import CairnStats

logger = init_logger("vllm.cairn")  # other trees than vLLM's have no handler

DRAIN_MAX: Final = 256
FLUSH_SECONDS: Final = 0.05  # for saves of a preempted request, before they are cancelled
CLOSE_SECONDS: Final = 10.0
ENOENT: Final = -2
EBADMSG: Final = -74


class _Loading:
    """A load under way: one task, or one a layer."""

    __slots__ = ("blocks", "futures", "keys", "lookup", "request", "started", "void")

    def __init__(self, load: Load, keys: bytes) -> None:
        self.request = load.request
        self.lookup = load.lookup
        self.blocks = load.blocks
        self.keys = keys
        self.futures: list[cairn.Future] = []
        self.started = time.monotonic()
        self.void = False  # the namespace was cleared meanwhile


class _Saving:
    """The saves of one step: a task a layer, of all blocks."""

    __slots__ = ("attrs", "bad", "blocks", "closed", "futures", "keys", "left", "present", "saves",
                 "unsent")

    def __init__(self, saves: list[Save], keys: bytes, attrs: list[cairn.Attr],
                 layers: int) -> None:
        self.saves = saves
        self.keys = keys
        self.attrs: list[cairn.Attr] | None = attrs
        self.blocks = [block for save in saves for block in save.blocks]
        self.futures: list[cairn.Future] = []
        self.unsent = set(range(layers))
        self.bad: set[int] = set()
        self.present: set[int] = set()
        self.left = 0
        self.closed = False  # nothing more is sent


class WorkerSide:
    def __init__(self, vllm_config: Any, kv_cache_config: Any, workers: dict[str, WorkerSide],
                 extra: dict[str, Any]) -> None:
        layout.block_tokens(vllm_config, kv_cache_config)
        config = vllm_config.kv_transfer_config
        self.vllm_config = vllm_config
        self.kv_cache_config = kv_cache_config
        self.extra = {**extra, "revision": layout.revision(vllm_config, extra.get("revision"))}
        self.rank = layout.global_rank(vllm_config)
        deadline = extra.get("deadline")
        self.deadline = None if deadline is None else float(deadline)
        self.hold_seconds = float(extra.get("hold", 30.0))
        self.durability = extra.get("durability", "memory")
        self.store = stores.acquire(
            extra.get("pipeline"), layout.store_rank(vllm_config, self.rank)
        )
        self.queue = self.store.queue()
        self.ns: Any = None
        self.pages: Any = None
        self.stats = CairnStats()
        self.holds: dict[int, Any] = {}  # lookup -> hold, where the scheduler is elsewhere
        self.answers = CairnWorkerMetadata()
        self.loads: list[_Loading] = []  # under way
        self.layerwise: list[_Loading] = []  # of this step
        self.savings: dict[str, int] = {}  # request -> saves under way
        self.active: list[_Saving] = []
        self.step: _Saving | None = None
        self.finishing: set[str] = set()
        self.invalid: set[int] = set()
        self.unclear = False  # the namespace was to be emptied and is not: nothing is found in it
        workers[config.engine_id] = self
        self.workers, self.engine = workers, config.engine_id

    def register(self, kv_caches: dict[str, Any]) -> None:
        self.pages = layout.Pages(self.kv_cache_config, kv_caches)
        told = layout.describe(
            self.vllm_config, self.kv_cache_config, self.pages, self.rank, self.extra
        )
        self.ns = self.store.namespace(**told)
        logger.info("cairn: %s; layout %s", self.store.spec, told["layout"])

    # ---- lookups -------------------------------------------------------------------------------

    def hold(self, names: list[bytes], seconds: float) -> Any:
        """A hold on the leading blocks that are there; None: none is."""
        if self.ns is None or self.unclear:
            return None
        try:
            hold = self.ns.hold(self.ns.keys(names), seconds)
        except cairn.CairnError as error:
            logger.warning("cairn: lookup: %s", error)
            return None
        return hold if hold.count else None

    def begin(self, meta: CairnMetadata) -> None:
        """Before the forward, and before any block is written again."""
        if meta.begun:
            return
        meta.begun = True
        if meta.clear and self.clear():
            self.answers.cleared[meta.clear] = 1
        if meta.flush:
            self._flush(set(meta.flush))
        for lookup in meta.drops:
            self._release(lookup)
        for lookup, names in meta.lookups:
            hold = self.hold(names, self.hold_seconds)
            if hold is not None:
                self.holds[lookup] = hold
            self.answers.lookups[lookup] = (1, 0 if hold is None else hold.count)
        self.finishing.update(meta.finishing)
        self.step = self._plan(meta.saves) if meta.saves else None

    def _release(self, lookup: int) -> None:
        hold = self.holds.pop(lookup, None)
        if hold is not None:
            hold.release()

    # ---- loads ---------------------------------------------------------------------------------

    def start_loads(self, meta: CairnMetadata) -> None:
        for load in meta.loads:
            loading = _Loading(load, self.ns.keys(load.names))
            if load.layerwise:
                self._load_by_layer(loading)
            else:
                self._load(loading)

    def _load(self, loading: _Loading) -> None:
        layers, blocks = len(self.pages.layers), loading.blocks
        keys = loading.keys
        try:
            future = self.ns.load(
                [keys[i : i + 16] for i in range(0, len(keys), 16) for _ in range(layers)],
                self.pages.items(blocks),
                shards=list(range(layers)) * len(blocks),
                deadline=self.deadline, detach=True, queue=self.queue, context=loading,
            )
        except cairn.CairnError as error:
            self._load_failed(loading, error)
            return
        loading.futures.append(future)
        self.loads.append(loading)

    def _load_failed(self, loading: _Loading, error: Exception) -> None:
        logger.warning("cairn: load: %s", error)
        self.invalid.update(loading.blocks)
        self.stats.add("load_failed_blocks", len(loading.blocks))
        self.loads.append(loading)  # without a task: it has ended

    def _load_by_layer(self, loading: _Loading) -> None:
        self.layerwise.append(loading)
        for i, layer in enumerate(self.pages.layers):
            try:
                future = self.ns.load(
                    loading.keys, layer.items(loading.blocks), shards=i, deadline=self.deadline,
                    detach=True, urgent=True,
                )
            except cairn.CairnError as error:
                logger.warning("cairn: load: %s", error)
                self.invalid.update(loading.blocks)
                return
            loading.futures.append(future)

    def wait_for_layer(self, layer_name: str) -> None:
        i = self.pages.index.get(layer_name)
        if i is None:
            return
        for loading in self.layerwise:
            if i < len(loading.futures):
                loading.futures[i].wait()  # its deadline ends it

    def _end_layerwise(self) -> None:
        for loading in self.layerwise:
            bad: dict[int, int] = {}
            for future in loading.futures:
                future.wait()
                self._collect(loading, future, 1, bad)
            self._count_load(loading, bad)
            self._release(loading.lookup)
        self.layerwise = []

    def _collect(self, loading: _Loading, future: cairn.Future, layers: int,
                 bad: dict[int, int]) -> None:
        """Adds the blocks of which an item failed, with the first error of each."""
        if not future.failed:
            return
        for i, status in enumerate(future.statuses):
            if status < 0:
                bad.setdefault(i // layers, status)

    def _count_load(self, loading: _Loading, bad: dict[int, int]) -> None:
        count = len(loading.blocks)
        if loading.void:
            bad = dict.fromkeys(range(count), ENOENT)
        self.invalid.update(loading.blocks[i] for i in bad)
        self.stats.add("load_failed_blocks", len(bad))
        self.stats.add("load_blocks", count - len(bad))
        layers = len(self.pages.layers)
        self.stats.add("load_bytes", (count - len(bad)) * layers * self.pages.page_bytes)
        self.stats.loaded_in(time.monotonic() - loading.started)
        damaged = [i for i, status in bad.items() if status == EBADMSG]
        if damaged:
            # So that what is computed in its place is taken.
            keys = b"".join(loading.keys[16 * i : 16 * i + 16] for i in damaged)
            try:
                self.ns.remove(keys, deadline=self.deadline)
            except cairn.CairnError as error:
                logger.warning("cairn: remove: %s", error)

    # ---- saves ---------------------------------------------------------------------------------

    def _plan(self, saves: list[Save]) -> _Saving:
        ns = self.ns
        keys, attrs = [], []
        for save in saves:
            packed = ns.keys(save.names)
            keys.append(packed)
            parent = ns.key(save.parent) if save.parent else b""
            for i in range(len(save.names)):
                attrs.append(cairn.Attr(parent=parent, depth=save.depth + i))
                parent = packed[16 * i : 16 * i + 16]
            self.savings[save.request] = self.savings.get(save.request, 0) + 1
        saving = _Saving(saves, b"".join(keys), attrs, len(self.pages.layers))
        self.active.append(saving)
        return saving

    def save_layer(self, layer_name: str) -> None:
        saving = self.step
        if saving is not None:
            i = self.pages.index.get(layer_name)
            if i is not None and i in saving.unsent:
                self._send(saving, i)

    def _send(self, saving: _Saving, i: int) -> None:
        try:
            future = self.ns.dump(
                saving.keys, self.pages.layers[i].items(saving.blocks), shards=i,
                attrs=saving.attrs, durability=self.durability, deadline=self.deadline,
                detach=True, queue=self.queue, context=saving,
            )
        except cairn.CairnError as error:  # of no task slot: it is tried again after the forward
            logger.debug("cairn: save: %s", error)
            return
        saving.unsent.discard(i)
        saving.attrs = None  # told once
        saving.futures.append(future)
        saving.left += 1

    def end_saves(self) -> None:
        """After the forward: what no layer has sent goes now, or not at all."""
        if self.layerwise:
            self._end_layerwise()
        saving, self.step = self.step, None
        if saving is None:
            return
        for i in sorted(saving.unsent):
            self._send(saving, i)
        if saving.unsent:
            saving.bad.update(range(len(saving.blocks)))
        saving.closed = True
        if saving.left == 0:
            self._save_ended(saving)

    def _save_ended(self, saving: _Saving) -> None:
        self.active.remove(saving)
        at = 0
        for save in saving.saves:
            count = len(save.blocks)
            taken = next((i for i in range(count) if at + i in saving.bad), count)
            ranks, least = self.answers.saves.get(save.id, (0, taken))
            self.answers.saves[save.id] = (ranks + 1, min(least, taken))
            at += count
            left = self.savings[save.request] - 1
            if left:
                self.savings[save.request] = left
            else:
                del self.savings[save.request]
        good = at - len(saving.bad)
        present = len(saving.present - saving.bad)
        self.stats.add("save_failed_blocks", len(saving.bad))
        self.stats.add("save_present_blocks", present)
        self.stats.add("save_blocks", good - present)
        layers = len(self.pages.layers)
        self.stats.add("save_bytes", (good - present) * layers * self.pages.page_bytes)

    def _flush(self, requests: set[str]) -> None:
        """Blocks of these requests are about to be written again: their saves end here."""
        until = time.monotonic() + FLUSH_SECONDS
        for saving in self.active:
            if not any(save.request in requests for save in saving.saves):
                continue
            for future in saving.futures:
                if not future.wait(max(0.0, until - time.monotonic())):
                    future.cancel()
                    future.wait()  # a detached task ends when it is cancelled
        self.stats.add("flushed_requests", len(requests))

    # ---- what has ended ------------------------------------------------------------------------

    def _drain(self) -> set[str]:
        """Takes what has ended; the requests whose loads have."""
        while True:
            futures = self.queue.drain(DRAIN_MAX)
            for future in futures:
                self._take(future)
            if len(futures) < DRAIN_MAX:
                break
        received = set()
        for loading in self.loads:
            if not loading.futures:
                received.add(loading.request)
                self._release(loading.lookup)
        if received:
            self.loads = [loading for loading in self.loads if loading.futures]
        return received

    def _take(self, future: cairn.Future) -> None:
        context = future.context
        if isinstance(context, _Loading):
            bad: dict[int, int] = {}
            self._collect(context, future, len(self.pages.layers), bad)
            self._count_load(context, bad)
            context.futures.clear()
            return
        context.left -= 1
        if future.failed:
            context.bad.update(i for i, status in enumerate(future.statuses) if status < 0)
        elif future.id and cairn.PRESENT in future.statuses:
            context.present.update(
                i for i, status in enumerate(future.statuses) if status == cairn.PRESENT
            )
        if context.closed and context.left == 0:
            self._save_ended(context)

    def finished(self) -> tuple[set[str] | None, set[str] | None]:
        # Most steps move nothing: they ask for nothing.
        if not (self.loads or self.active or self.finishing):
            return None, None
        received = self._drain() if self.loads or self.active else None
        sent = None
        if self.finishing:
            sent = {request for request in self.finishing if request not in self.savings}
            self.finishing -= sent
        return sent or None, received or None

    def take_invalid(self) -> set[int]:
        invalid, self.invalid = self.invalid, set()
        return invalid

    def take_answers(self) -> CairnWorkerMetadata | None:
        answers = self.answers
        if not (answers.lookups or answers.saves or answers.cleared):
            return None
        self.answers = CairnWorkerMetadata()
        return answers

    # ---- the rest ------------------------------------------------------------------------------

    def clear(self) -> bool:
        """Empties the namespace: what is there, and what is on its way in or out. False: it could
        not be, and nothing is found in it until it could."""
        for loading in self.loads:
            loading.void = True
        for saving in self.active:
            for future in saving.futures:
                future.cancel()
        for saving in self.active:
            for future in saving.futures:
                future.wait()
        for lookup in list(self.holds):
            self._release(lookup)
        self.unclear = True
        try:
            self.ns.clear("written")
        except cairn.CairnError as error:
            logger.error(
                "cairn: the cache could not be emptied, and nothing is loaded from it until a reset"
                " succeeds: %s", error
            )
            return False
        self.unclear = False
        return True

    def shutdown(self) -> None:
        if self.workers.get(self.engine) is self:
            del self.workers[self.engine]
        if self.queue.closed:
            return
        until = time.monotonic() + CLOSE_SECONDS
        while (self.active or self.loads) and time.monotonic() < until:
            for future in self.queue.drain(DRAIN_MAX, 0.1):
                self._take(future)
            self.loads = [loading for loading in self.loads if loading.futures]
        for lookup in list(self.holds):
            self._release(lookup)
        try:
            self.queue.close()
            stores.release(self.store)
        except cairn.CairnError as error:
            logger.warning("cairn: close: %s", error)
