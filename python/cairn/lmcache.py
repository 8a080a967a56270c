# SPDX-License-Identifier: Apache-2.0
"""LMCache over cairn: the class that its `native_plugin` L2 adapter loads.

    lmcache server ... --l2-adapter '{"type": "native_plugin",
        "module_path": "cairn.lmcache", "class_name": "CairnPlugin",
        "adapter_params": {"pipeline": "flash(path=/var/lib/cairn.kv, size=200GiB)"}}'

How it maps (docs/lmcache.md says what a user sees of it):

1. LMCache's key is text, `model@kv_rank@group@chunk hash[@salt]`. The model makes the namespace,
   with what adapter_params say of revision, dtype, layout and tenant; the rest, whole, is the name
   in it. So a key of another world size, rank, group or salt is another block.
2. Chunks differ in size, and LMCache asks for what exists without saying a size: the namespaces
   are of variable geometry. A load first compares the size of what is there with the buffer's, and
   another one is a miss; a store of another size takes its place. A chunk above 16 MiB is several
   shards; it is there when all of them are.
3. No thread of ours: stores, loads and deletes are tasks whose completions come through a queue of
   the store; lookups are answered at once. One epoll descriptor tells of both.
4. I/O goes to LMCache's buffers themselves, without a copy, and a buffer is LMCache's again when
   its completion was drained: that waits for the task's release, so nothing touches it afterwards.
   A tier around the page cache reads elsewhere and copies, but where LMCache says where its memory
   is, so that it can be registered: to CairnL2Adapter, by its type `plugin`, and not to this one.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import cairn

__all__ = ["CairnPlugin"]  # and CairnL2Adapter, where LMCache is installed

logger = logging.getLogger("cairn.lmcache")

# The unit of transfer of large chunks: several overlap, and a region of any flash tier holds one.
SHARD_BYTES_MAX: Final = 16 << 20
DRAIN_MAX: Final = 256  # completions a drain takes; what is left keeps the descriptor readable
CLOSE_SECONDS: Final = 30.0  # how long close() waits for what is in flight
ENOENT: Final = -errno.ENOENT

Completion = tuple[int, bool, str, "list[bool] | None"]


def _geometry(size: int) -> tuple[int, int]:
    """(shards, bytes of all but the last) of a chunk of `size` bytes."""
    if size <= SHARD_BYTES_MAX:
        return 1, size
    return -(-size // SHARD_BYTES_MAX), SHARD_BYTES_MAX


class _Batch:
    """One submission: its answers, and how many still bring some: its tasks, itself at first."""

    __slots__ = ("answers", "error", "future_id", "kind", "pending")

    def __init__(self, future_id: int, kind: str, count: int) -> None:
        self.future_id = future_id
        self.kind = kind
        self.answers = [False] * count
        self.pending = 1
        self.error = ""

    def completion(self) -> Completion:
        # A store's protocol carries one verdict: it succeeded if every chunk is there.
        ok = not self.error and (self.kind != "set" or all(self.answers))
        return self.future_id, ok, self.error, self.answers

    def take(self, places: Sequence[int], good: list[bool]) -> None:
        """A task answers `places`; a chunk of several shards is there several times."""
        if places == range(len(self.answers)):
            self.answers = good
            return
        for i in places:
            self.answers[i] = True
        for i, whole in zip(places, good, strict=True):
            self.answers[i] = self.answers[i] and whole


class CairnPlugin:
    """A store behind LMCache's native connector protocol. Any thread may call anything but close()
    beside it; nothing raises but the constructor, which says what is wrong with the pipeline.

    pipeline    what the store is made of, hot to cold: "flash(path=/var/lib/kv, size=200GiB)"
    revision, dtype, layout, tenant
                what LMCache's keys do not tell and two deployments on one store may differ in
    deadline    seconds a store, load or delete may take; None: the store's (30 s)
    durability  what a finished store outlives: "memory", "written" or "durable" (power loss)
    detach      False: a completion waits for a device that hangs, as long as it does. True: it
                comes by the deadline, for no I/O targets LMCache's memory; that is one copy more
    rank        what {rank} in the pipeline becomes; None: $RANK, else 0
    stage_path  folders of stages outside the package
    """

    def __init__(
        self,
        pipeline: str,
        *,
        revision: str = "",
        dtype: str = "",
        layout: str = "",
        tenant: str = "",
        deadline: float | None = None,
        durability: str = "memory",
        detach: bool = False,
        rank: str | int | None = None,
        stage_path: str | None = None,
    ) -> None:
        if durability not in ("memory", "written", "durable"):
            raise ValueError(
                f'durability is "memory", "written" or "durable", not "{durability}"'
            )
        self._describe: dict[str, Any] = {
            "revision": revision,
            "dtype": dtype,
            "layout": f"lmcache {layout}".rstrip(),
            "tenant": tenant,
        }
        self._task: dict[str, Any] = {"deadline": deadline, "detach": bool(detach)}
        self._durability = durability
        self._store = cairn.Store(pipeline, rank=rank, stage_path=stage_path)
        self._queue = self._store.queue()
        self._namespaces: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._tasks: set[Any] = set()  # in flight
        self._ready: deque[Completion] = deque()  # what needs no task
        self._told: set[str] = set()
        self._registered: Any = None  # LMCache's memory; until the store is closed
        self._open = True
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._bell, select.EPOLLIN)
        self._epoll.register(self._queue.fileno(), select.EPOLLIN)

    # ---- what LMCache calls ----------------------------------------------------------------------

    def event_fd(self) -> int:
        """Readable while completions wait: poll it, do not read it."""
        return self._epoll.fileno()

    def submit_batch_set(self, keys: Sequence[str], views: Sequence[memoryview]) -> int:
        """Stores views[i] under keys[i]; what is there already counts as stored."""
        return self._submit("set", keys, lambda batch: self._set(batch, keys, views))

    def submit_batch_get(self, keys: Sequence[str], views: Sequence[memoryview]) -> int:
        """Loads keys[i] into views[i]. False: not there, of another size, or damaged; then what the
        buffer holds is undefined."""
        return self._submit("get", keys, lambda batch: self._get(batch, keys, views))

    def submit_batch_exists(self, keys: Sequence[str]) -> int:
        """Says which keys are there, whole. Memory probes, made before it returns."""
        return self._submit("exists", keys, lambda batch: self._exists(batch, keys))

    def submit_batch_delete(self, keys: Sequence[str]) -> int:
        """Removes keys. True: it is gone now, whoever removed it."""
        return self._submit("delete", keys, lambda batch: self._delete(batch, keys))

    def drain_completions(self) -> list[Completion]:
        """(id, ok, error, answers by key) of what has ended, each once. Waits for nothing."""
        done: list[Completion] = []
        with self._lock:
            if self._open and self._ready:
                os.eventfd_read(self._bell)
            while self._ready:
                done.append(self._ready.popleft())
            open_still = self._open
        if open_still:
            self._drain(done, 0.0)
        return done

    def close(self) -> None:
        """Ends what is in flight, then the store; nothing touches a buffer afterwards."""
        with self._lock:
            if not self._open:
                return
            self._open = False
        self._end_tasks()
        try:
            self._queue.close()
            self._store.close(CLOSE_SECONDS)
        except OSError as error:
            # It stays open, with its memory, until the process ends.
            logger.warning("cairn: the store did not close: %s", error)
        self._epoll.close()
        os.close(self._bell)

    def register(self, address: int, length: int) -> bool:
        """Tells the store of LMCache's memory, which stays where it is until close(): reads are
        aimed at it, where else they would be copied there. False: it goes on without."""
        if self._task["detach"]:
            return False  # which promises that nothing is aimed there
        try:
            self._registered = self._store.register(address, length)
        except (OSError, ValueError) as error:
            logger.warning("cairn: LMCache's memory is not registered: %s", error)
            return False
        return True

    # ---- figures ---------------------------------------------------------------------------------

    def stat(self) -> Any:
        """cairn.Store.stat() of the store."""
        return self._store.stat()

    def counters(self) -> dict[str, int]:
        """cairn.Store.counters() of the store."""
        counters: dict[str, int] = self._store.counters()
        return counters

    # ---- submitting ------------------------------------------------------------------------------

    def _submit(self, kind: str, keys: Sequence[str], start: Callable[[_Batch], None]) -> int:
        batch = _Batch(next(self._ids), kind, len(keys))
        # A drain that sees a task end before all of the batch is submitted waits here.
        with self._lock:
            try:
                if not self._open:
                    raise ValueError("the store is closed")
                start(batch)
            except Exception as error:  # whatever it is, it must not end LMCache's thread
                self._failed(batch, str(error))
            batch.pending -= 1
            if not batch.pending:
                self._ready.append(batch.completion())
                if self._open:
                    os.eventfd_write(self._bell, 1)
        return batch.future_id

    def _failed(self, batch: _Batch, why: str) -> None:
        """LMCache drops the text of an error, so each kind is told once."""
        batch.error = batch.error or f"{batch.kind}: {why}"
        if len(self._told) < 64 and batch.error not in self._told:
            self._told.add(batch.error)
            logger.warning("cairn: %s (told once)", batch.error)

    def _namespace(self, model: str) -> Any:
        namespace = self._namespaces.get(model)
        if namespace is None:
            namespace = self._store.namespace(
                model=model, shard_count=0, shard_bytes=0, **self._describe
            )
            self._namespaces[model] = namespace
        return namespace

    def _by_model(self, keys: Sequence[str]) -> list[tuple[Any, Sequence[int], bytes]]:
        """(namespace, places in `keys`, packed keys) of each model; nearly always one."""
        if not keys:
            return []
        prefix = keys[0].partition("@")[0] + "@"
        cut = len(prefix)
        if all(key.startswith(prefix) for key in keys):
            namespace = self._namespace(prefix[:-1])
            return [(namespace, range(len(keys)), namespace.keys([key[cut:] for key in keys]))]
        places: dict[str, list[int]] = {}
        for i, key in enumerate(keys):
            places.setdefault(key.partition("@")[0], []).append(i)
        parts: list[tuple[Any, Sequence[int], bytes]] = []
        for model, at in places.items():
            namespace = self._namespace(model)
            names = [keys[i].partition("@")[2] for i in at]
            parts.append((namespace, at, namespace.keys(names)))
        return parts

    def _start(self, batch: _Batch, task: Any) -> None:
        batch.pending += 1
        self._tasks.add(task)

    def _exists(self, batch: _Batch, keys: Sequence[str]) -> None:
        for namespace, places, packed in self._by_model(keys):
            found = namespace.lookup(packed)
            if len(found) == len(keys):
                batch.answers = found
            else:
                for i, whole in zip(places, found, strict=True):
                    batch.answers[i] = whole

    def _delete(self, batch: _Batch, keys: Sequence[str]) -> None:
        deadline = self._task["deadline"]
        for namespace, places, packed in self._by_model(keys):
            context = (batch, places)
            self._start(
                batch,
                namespace.remove(packed, deadline=deadline, queue=self._queue, context=context),
            )

    def _set(self, batch: _Batch, keys: Sequence[str], views: Sequence[memoryview]) -> None:
        if len(views) != len(keys):
            raise ValueError(f"{len(keys)} keys, {len(views)} buffers")
        for namespace, places, packed in self._by_model(keys):
            found = namespace.found(packed)
            for size, some in self._by_size(places, views):
                other = [j for j in some if found[j] is not None and not _is_of(found[j], size)]
                if other:  # it would count as present, and be a miss for ever
                    namespace.remove_sync(_pick(packed, other))
                self._move(namespace.dump, batch, places, packed, some, size, views)

    def _get(self, batch: _Batch, keys: Sequence[str], views: Sequence[memoryview]) -> None:
        if len(views) != len(keys):
            raise ValueError(f"{len(keys)} keys, {len(views)} buffers")
        for namespace, places, packed in self._by_model(keys):
            found = namespace.found(packed)
            for size, some in self._by_size(places, views):
                there = [j for j in some if _is_of(found[j], size)]
                if there:
                    self._move(namespace.load, batch, places, packed, there, size, views)

    @staticmethod
    def _by_size(
        places: Sequence[int], views: Sequence[memoryview]
    ) -> list[tuple[int, Sequence[int]]]:
        """(bytes, which of `places`) of each size; nearly always one."""
        sizes = [views[i].nbytes for i in places]
        if sizes.count(sizes[0]) == len(sizes):
            return [(sizes[0], range(len(sizes)))]
        groups: dict[int, list[int]] = {}
        for j, size in enumerate(sizes):
            groups.setdefault(size, []).append(j)
        return list(groups.items())

    def _move(
        self,
        call: Callable[..., Any],
        batch: _Batch,
        places: Sequence[int],
        packed: bytes,
        some: Sequence[int],
        size: int,
        views: Sequence[memoryview],
    ) -> None:
        """Dumps or loads `some` of `places`, all of `size` bytes, as one task."""
        options = dict(self._task)
        shards, shard_bytes = _geometry(size)
        if batch.kind == "set":
            options.update(
                durability=self._durability, shard_count=shards, shard_bytes=shard_bytes
            )
        if len(some) != len(places):
            packed = _pick(packed, some)
            places = [places[j] for j in some]
        items = [views[i] for i in places]
        if shards > 1:
            cuts = range(0, size, shard_bytes)
            packed = _pick(packed, [j for j in range(len(places)) for _ in cuts])
            # LMCache's views are of bytes, but of a format that only slices.
            items = [view[at : at + shard_bytes] for view in items for at in cuts]
            options["shards"] = list(range(shards)) * len(places)
            places = [i for i in places for _ in cuts]
        context = (batch, places)
        self._start(batch, call(packed, items, queue=self._queue, context=context, **options))

    # ---- completing ------------------------------------------------------------------------------

    def _drain(self, done: list[Completion], timeout: float) -> None:
        tasks = self._queue.drain(DRAIN_MAX, timeout)
        if not tasks:
            return
        with self._lock:
            for task in tasks:
                self._tasks.discard(task)
                batch, places = task.context
                self._take(batch, places, task.statuses)
                batch.pending -= 1
                if not batch.pending:
                    done.append(batch.completion())

    def _take(self, batch: _Batch, places: Sequence[int], statuses: Sequence[int]) -> None:
        if batch.kind == "delete":
            batch.take(places, [status in (0, ENOENT) for status in statuses])
            return
        batch.take(places, [status >= 0 for status in statuses])
        if batch.kind == "set" and min(statuses) < 0:
            self._failed(batch, _why(min(statuses)))

    def _end_tasks(self) -> None:
        """Waits for the tasks in flight, and cancels what takes too long."""
        ignored: list[Completion] = []
        for seconds in (CLOSE_SECONDS / 2, CLOSE_SECONDS / 2):
            slices = int(seconds / 0.25)
            while self._tasks and slices > 0:
                self._drain(ignored, 0.25)
                slices -= 1
            for task in list(self._tasks):
                task.cancel()


def __getattr__(name: str) -> Any:
    """CairnL2Adapter is a class of LMCache's: it is made where somebody asks for it."""
    if name != "CairnL2Adapter":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ._lmcache_l2 import CairnL2Adapter

    return CairnL2Adapter


def _why(status: int) -> str:
    if status == -errno.ENOSPC:
        return "not taken: no room, or more at once than the device takes"
    return os.strerror(-status)


def _pick(packed: bytes, which: Sequence[int]) -> bytes:
    """The keys at the places `which` of packed keys."""
    return b"".join([packed[16 * j : 16 * j + 16] for j in which])


def _is_of(found: Any, size: int) -> bool:
    """Whether what a lookup found is a whole chunk of `size` bytes, cut as we cut it."""
    if found is None:
        return False
    shards, shard_bytes = _geometry(size)
    last = size - (shards - 1) * shard_bytes
    return bool(
        found.shard_count == shards
        and found.last_bytes == last
        and (shards == 1 or found.shard_bytes == shard_bytes)
    )
