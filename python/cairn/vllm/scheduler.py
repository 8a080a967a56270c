# SPDX-License-Identifier: Apache-2.0
"""The scheduler's side of CairnConnector: what to load, what to save, what may be freed when.

Invariants:
 1. Nothing here waits: a lookup is a probe of memory, or a question that workers answer. Of an
    adapter the hub may be asked, once a load of it, as workers ask it.
 2. A request is counted as a hit only for full blocks that a hold keeps until its load ends.
 3. A name is loaded by one request at a time: others wait for it and then find the blocks in
    vLLM's own cache. When that load ends, however it ends, they are asked again.
 4. Blocks of a finished request are freed when no save reads them any more. A request that loads
    is freed by the end of its load alone.
 5. What failed to load is not asked for again by the same request.
 6. A running request is looked at in each step in which a block of it may get full: in one that
    computes more than one token of it, and else in the step for which it is in `due`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from .layout import Refused, block_tokens, check_hashes, suffix_of
from .messages import NOTHING, CairnMetadata, CairnWorkerMetadata, Load, Save
from .stats import CairnStats

if TYPE_CHECKING:
    from .worker import WorkerSide

ANSWER_SECONDS: Final = 5.0  # a lookup that not all ranks have answered by then is a miss
KNOWN_MAX: Final = 16384  # names that were saved lately and need not be saved again
NEVER: Final = 1 << 60

Answer = tuple[int | None, bool]


class _Request:
    __slots__ = ("asked", "blocks", "cap", "due", "first", "hits", "hold", "least", "limit",
                 "loading", "lookup", "ranks", "request", "saved", "saves", "suffix")

    def __init__(self, request: Any, suffix: bytes) -> None:
        self.request = request
        self.suffix = suffix
        self.blocks: list[int] = []
        self.cap = NEVER  # blocks from here on failed to load
        self.lookup = 0  # the question under way, or whose hold is kept; 0: none
        self.hold: Any = None  # where this is one process with the worker
        self.hits: int | None = None  # the answer to it; None: not known yet
        self.asked = 0.0
        self.ranks = 0  # that have answered it
        self.least = NEVER  # of their answers
        self.limit = 0  # blocks that were asked for
        self.first = 0  # blocks that vLLM itself has
        self.loading: tuple[int, list[int]] | None = None  # (first block, block ids)
        self.saved = 0  # blocks that need no save: there, or on their way
        self.saves: set[int] = set()  # under way
        self.due = 0  # the step in which to look at it again

    def name(self, i: int) -> bytes:
        return bytes(self.request.block_hashes[i]) + self.suffix

    def names(self, first: int, end: int) -> list[bytes]:
        suffix = self.suffix
        return [bytes(name) + suffix for name in self.request.block_hashes[first:end]]


class _Save:
    """One that workers have not all ended yet."""

    __slots__ = ("event", "names", "ranks", "request", "taken")

    def __init__(self, request: _Request, names: list[bytes], event: Any) -> None:
        self.request = request
        self.names = names
        self.ranks = 0
        self.taken = len(names)
        self.event = event


class SchedulerSide:
    def __init__(self, vllm_config: Any, kv_cache_config: Any, workers: dict[str, WorkerSide],
                 extra: dict[str, Any]) -> None:
        check_hashes(vllm_config)
        config = vllm_config.kv_transfer_config
        self.tokens = block_tokens(vllm_config, kv_cache_config)
        self.hold_seconds = float(extra.get("hold", 30.0))
        self.layerwise = extra.get("load", "async") == "layerwise"
        if self.layerwise and getattr(vllm_config, "max_concurrent_batches", 1) > 1:
            raise Refused("load=layerwise needs steps one after the other: --no-async-scheduling")
        self.loads = config.is_kv_consumer
        self.saving = config.is_kv_producer
        self.world = int(vllm_config.parallel_config.world_size)
        self.workers = workers
        self.engine = config.engine_id
        self.stats = CairnStats()
        self.requests: dict[str, _Request] = {}
        self.loading: dict[bytes, str] = {}  # name -> the request that loads it
        self.pending: dict[int, _Save] = {}
        self.in_saves: set[bytes] = set()  # names of pending saves
        self.known: OrderedDict[bytes, None] = OrderedDict()
        self.asked: dict[int, _Request] = {}  # lookups that workers have to answer
        self.ended: list[str] = []  # layerwise loads of the step under way
        self.next_id = 1
        self.meta = CairnMetadata()
        self.clearing = 0  # the number of the last clear, until all ranks are empty by it
        self.cleared = 0  # ranks that are
        self.now = 0  # steps that were built
        self.due: dict[int, list[str]] = {}  # step -> requests to look at in it
        self.suffixes: dict[tuple[str, str, int], bytes] = {}
        events = vllm_config.kv_events_config
        self.events: list[Any] | None = (
            [] if events is not None and events.enable_kv_cache_events else None
        )
        # Without this a block that fails to load ends the request with an error.
        if config.kv_load_failure_policy != "recompute":
            config.kv_load_failure_policy = "recompute"

    # ---- matching ------------------------------------------------------------------------------

    def _worker(self) -> WorkerSide | None:
        """The worker, where it is in this process and the only one."""
        return self.workers.get(self.engine) if self.world == 1 else None

    def _state(self, request: Any) -> _Request:
        state = self.requests.get(request.request_id)
        if state is None or state.request is not request:
            state = _Request(request, self._suffix(request))
            self.requests[request.request_id] = state
        return state

    def _suffix(self, request: Any) -> bytes:
        lora = request.lora_request
        if lora is None:
            return b""
        # vLLM gives another number to one that was unloaded and is loaded again.
        key = (lora.lora_name, lora.lora_path, lora.lora_int_id)
        if key not in self.suffixes or lora.load_inplace:
            self.suffixes[key] = suffix_of(request)
        return self.suffixes[key]

    def match(self, request: Any, computed: int) -> Answer:
        state = self._state(request)
        state.first = first = computed // self.tokens
        state.saved = first
        if not self.loads or request.skip_reading_prefix_cache or computed % self.tokens:
            return 0, False
        # One token at least is computed, for its logits.
        limit = min((request.num_tokens - 1) // self.tokens, len(request.block_hashes), state.cap)
        if limit <= first:
            self._drop(state)
            return 0, False
        if self.loading.get(state.name(first), request.request_id) != request.request_id:
            self.stats.add("waits", 1)
            return None, False
        hits = self._ask(state, limit)
        if hits is None:
            return None, False
        state.saved = hits
        if hits <= first:
            return 0, False
        return (hits - first) * self.tokens, not self.layerwise

    def _ask(self, state: _Request, limit: int) -> int | None:
        """Leading blocks that are there, of `limit`; None: not known yet."""
        age = time.monotonic() - state.asked
        if state.limit == limit and (state.lookup or state.hits == 0):
            if state.hits is not None and age < self.hold_seconds / 2:
                return state.hits
            if state.hits is None and age < ANSWER_SECONDS:
                return None
            if state.hits is None:
                self._answer(state, 0)
                return 0
        self._drop(state)
        state.asked = time.monotonic()
        state.limit = limit
        state.ranks, state.least = 0, NEVER
        state.lookup = self.next_id
        self.next_id += 1
        names = state.names(0, limit)
        worker = self._worker()
        if worker is None:
            self.asked[state.lookup] = state
            self.meta.lookups.append((state.lookup, names))
            return None
        state.hold = worker.hold(names, self.hold_seconds)
        self._answer(state, 0 if state.hold is None else state.hold.count)
        return state.hits

    def _answer(self, state: _Request, hits: int) -> None:
        self.asked.pop(state.lookup, None)
        state.hits = min(hits, state.limit)
        self.stats.add("lookups", 1)
        self.stats.add("lookup_hit_blocks", state.hits)
        self.stats.add("lookup_miss_blocks", state.limit - state.hits)
        if self.known and state.hits < state.limit:
            for name in state.names(state.hits, state.limit):
                self.known.pop(name, None)  # gone meanwhile

    def _drop(self, state: _Request) -> None:
        """Lets go of a lookup's answer and of its hold."""
        if state.hold is not None:
            state.hold.release()
            state.hold = None
        elif state.lookup:
            self.asked.pop(state.lookup, None)
            self.meta.drops.append(state.lookup)
        state.lookup = 0
        state.hits = None
        state.limit = 0

    def allocated(self, request: Any, blocks: Any, external: int) -> None:
        """Blocks are there; `external` tokens of them are to be loaded."""
        state = self._state(request)
        state.blocks = list(blocks.get_block_ids()[0])
        count = external // self.tokens
        if count == 0:
            if state.loading is None:
                self._drop(state)
            return
        first, end = state.first, state.first + count
        assert state.hits is not None and end <= state.hits
        names = state.names(first, end)
        state.loading = (first, state.blocks[first:end])
        state.saved = max(state.saved, end)
        for name in names:
            self.loading.setdefault(name, request.request_id)
        load = Load(request.request_id, state.lookup, names, state.loading[1], self.layerwise)
        self.meta.loads.append(load)
        if self.layerwise:
            self.ended.append(request.request_id)

    def _load_ended(self, request_id: str, invalid: set[int]) -> None:
        state = self.requests.get(request_id)
        if state is None or state.loading is None:
            return
        first, blocks = state.loading
        state.loading = None
        for name in state.names(first, first + len(blocks)):
            if self.loading.get(name) == request_id:
                del self.loading[name]
        for i, block in enumerate(blocks):
            if block in invalid:
                state.cap = state.saved = first + i
                if self.layerwise:  # it is running
                    self._look_in(state, 1)
                for name in state.names(first + i, first + len(blocks)):
                    self.known.pop(name, None)
                break
        self._drop(state)
        if state.request.is_finished():
            self.requests.pop(request_id, None)

    # ---- a step --------------------------------------------------------------------------------

    def build(self, output: Any) -> CairnMetadata:
        meta = self.meta
        for request_id in output.preempted_req_ids or ():
            state = self.requests.get(request_id)
            if state is not None:
                state.blocks = []
                state.saved = NEVER  # until it is matched and allocated again
                if state.saves:
                    meta.flush.append(request_id)
        if self.saving:
            self._plan_saves(output, meta)
        if meta.is_empty():
            return NOTHING
        self.meta = CairnMetadata()
        return meta

    def _plan_saves(self, output: Any, meta: CairnMetadata) -> None:
        """Looks at the requests of which a block may be full by the end of this step, and touches
        no other."""
        self.now += 1
        scheduled = output.num_scheduled_tokens
        for new in output.scheduled_new_reqs:
            state = self.requests.get(new.req_id)
            if state is not None:
                state.blocks = list(new.block_ids[0])
                self._look_at(state, new.num_computed_tokens + scheduled[new.req_id], meta)
        cached = output.scheduled_cached_reqs
        if cached.new_block_ids.count(None) != len(cached.new_block_ids):
            self._take_blocks(cached)
        states = self._take_due() if self.now in self.due else []
        if cached.resumed_req_ids or output.total_num_scheduled_tokens != len(scheduled):
            names = [name for name, count in scheduled.items() if count > 1]
            names.extend(cached.resumed_req_ids)
            states.extend(self.requests[name] for name in names if name in self.requests)
        if not states:
            return
        computed = dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        for state in states:
            request_id = state.request.request_id
            if request_id in computed:
                self._look_at(state, computed[request_id] + scheduled[request_id], meta)
            elif state.due == self.now:  # it sits this step out
                self._look_in(state, 1)

    def _take_due(self) -> list[_Request]:
        """Requests for which this step was said last."""
        states = [self.requests.get(name) for name in self.due.pop(self.now, ())]
        return [state for state in states if state is not None and state.due == self.now]

    def _take_blocks(self, cached: Any) -> None:
        """Blocks that running requests were given in this step."""
        for request_id, blocks in zip(cached.req_ids, cached.new_block_ids, strict=True):
            if blocks is None:
                continue
            state = self.requests.get(request_id)
            if state is None:
                continue
            if request_id in cached.resumed_req_ids:
                state.blocks = list(blocks[0])
            else:
                state.blocks.extend(blocks[0])

    def _look_at(self, state: _Request, computed: int, meta: CairnMetadata) -> None:
        """Saves what is full with `computed` tokens; by a token a step no more is before `due`."""
        self._advance(state, computed, meta)
        if state.saved < NEVER:
            self._look_in(state, max(1, (state.saved + 1) * self.tokens - computed))

    def _look_in(self, state: _Request, steps: int) -> None:
        step = self.now + steps
        if state.due != step:
            state.due = step
            self.due.setdefault(step, []).append(state.request.request_id)

    def _advance(self, state: _Request, computed: int, meta: CairnMetadata) -> None:
        """Blocks that are full by the end of this step are saved in it, but those on their way."""
        end = min(computed // self.tokens, len(state.request.block_hashes), len(state.blocks))
        first = state.saved
        if end <= first:
            return
        state.saved = end
        names = state.names(first, end)
        start = None
        for i, name in enumerate([*names, b""]):
            take = name != b"" and name not in self.in_saves and name not in self.known
            if take and start is None:
                start = i
            elif not take and start is not None:
                self._save(state, first + start, names[start:i], meta)
                start = None

    def _save(self, state: _Request, first: int, names: list[bytes], meta: CairnMetadata) -> None:
        parent = state.name(first - 1) if first else b""
        blocks = state.blocks[first : first + len(names)]
        save = Save(self.next_id, state.request.request_id, first, parent, names, blocks)
        self.next_id += 1
        meta.saves.append(save)
        event = None if self.events is None else self._stored_event(state, first, len(names))
        self.pending[save.id] = _Save(state, names, event)
        self.in_saves.update(names)
        state.saves.add(save.id)

    def output(self, output: Any) -> None:
        """What the workers did in the step that has ended."""
        answers = output.kv_connector_worker_meta
        if answers is not None:
            assert isinstance(answers, CairnWorkerMetadata)
            for lookup, (ranks, hits) in answers.lookups.items():
                state = self.asked.get(lookup)
                if state is None:
                    continue
                state.ranks += ranks
                state.least = min(state.least, hits)
                if state.ranks >= self.world:
                    self._answer(state, state.least)
            self.cleared += answers.cleared.get(self.clearing, 0)
            if self.clearing and self.cleared >= self.world:
                self.clearing = 0
                self._tell_cleared()
            for save, (ranks, taken) in answers.saves.items():
                self._save_ended(save, ranks, taken)
        for request_id in output.finished_recving or ():
            self._load_ended(request_id, output.invalid_block_ids)
        if self.ended:
            for request_id in self.ended:
                self._load_ended(request_id, output.invalid_block_ids)
            self.ended = []

    def _save_ended(self, save_id: int, ranks: int, taken: int) -> None:
        save = self.pending.get(save_id)
        if save is None:
            return
        save.ranks += ranks
        save.taken = min(save.taken, taken)
        if save.ranks < self.world:
            return
        del self.pending[save_id]
        save.request.saves.discard(save_id)
        self.in_saves.difference_update(save.names)
        for name in save.names[: save.taken]:
            self.known[name] = None
        while len(self.known) > KNOWN_MAX:
            self.known.popitem(last=False)
        if self.events is not None and save.event is not None and save.taken:
            self.events.append(self._shortened(save.event, save.taken))

    def finished(self, request: Any) -> bool:
        """Whether the request's blocks have to wait for its saves."""
        state = self.requests.get(request.request_id)
        if state is None:
            return False
        if state.loading is not None:
            return False  # its load's end frees it
        del self.requests[request.request_id]
        self._drop(state)
        if not state.saves:
            return False
        self.meta.finishing.append(request.request_id)
        return True

    # ---- the rest ------------------------------------------------------------------------------

    def clear(self) -> bool:
        """Empties the store. Elsewhere than in this process workers do it before their next step,
        and True says that they are told; the event follows when all of them have."""
        for state in self.requests.values():
            if state.loading is None:
                self._drop(state)
            state.saved = NEVER  # what was computed before is not saved any more
        for save in self.pending.values():
            save.taken = 0  # those that have ended, and were not told yet, are emptied, too
        self.known.clear()
        worker = self._worker()
        if worker is None:
            self.meta.clear = self.clearing = self.next_id
            self.next_id += 1
            self.cleared = 0
            return True
        if not worker.clear():
            return False
        self._tell_cleared()
        return True

    def _tell_cleared(self) -> None:
        if self.events is not None:
            from vllm.distributed.kv_events import AllBlocksCleared

            self.events.append(AllBlocksCleared())

    def has_work(self) -> bool:
        """Whether workers have to hear something although there is no request."""
        return self.meta.clear != 0

    def take_events(self) -> list[Any]:
        if not self.events:
            return []
        events, self.events = self.events, []
        return events

    def _stored_event(self, state: _Request, first: int, count: int) -> Any:
        from vllm.distributed.kv_events import MEDIUM_STORAGE, BlockStored
        from vllm.v1.core import kv_cache_utils as utils

        request, tokens = state.request, self.tokens
        hashes = request.block_hashes
        extra = [
            utils.generate_block_hash_extra_keys(request, i * tokens, (i + 1) * tokens, 0)[0]
            for i in range(first, first + count)
        ]
        lora = request.lora_request
        return BlockStored(
            block_hashes=[utils.maybe_convert_block_hash(h) for h in hashes[first : first + count]],
            parent_block_hash=utils.maybe_convert_block_hash(hashes[first - 1]) if first else None,
            token_ids=list(request.all_token_ids[first * tokens : (first + count) * tokens]),
            block_size=tokens,
            lora_id=lora.adapter_id if lora else None,
            lora_name=lora.name if lora else None,
            medium=MEDIUM_STORAGE,
            extra_keys=utils.to_event_extra_keys(extra),
            group_idx=0,
        )

    def _shortened(self, event: Any, count: int) -> Any:
        """The event of the leading blocks that every rank took."""
        event.block_hashes = event.block_hashes[:count]
        event.token_ids = event.token_ids[: count * self.tokens]
        if event.extra_keys:
            event.extra_keys = event.extra_keys[:count]
        return event
