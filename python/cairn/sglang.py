# SPDX-License-Identifier: Apache-2.0
"""SGLang over cairn: the class that its `dynamic` HiCache back end loads.

    --enable-hierarchical-cache --hicache-mem-layout page_first
    --hicache-storage-backend dynamic --hicache-storage-backend-extra-config
        '{"backend_name": "cairn", "module_path": "cairn.sglang", "class_name": "CairnHiCache",
          "interface_v1": 1, "pipeline": "flash(path=/var/lib/cairn.{rank}, size=200GiB)"}'

How it maps (docs/sglang.md says what a user sees of it):

1. A page is a block of one shard, its parts (K and V, of each layer where the layout is by layer)
   segments of it where they lie in the host pool: whole or absent. No I/O is aimed at the pool and
   a page is copied once, but by the configuration's wish (detach). Pages are stored as a chain.
2. SGLang's page hash says nothing but tokens. The namespace says the rest: model, what share of it
   this rank has, dtype, the pool's class and layout, tokens and bytes of a page, and what the extra
   configuration adds (revision, tenant, salt). Another layout is a miss.
3. Nothing is raised out of a call for a batch, nothing is None, and there are as many answers as
   keys: SGLang's ranks wait for each other's answers. What went wrong is told once, to the log.
4. Every call ends by its deadline, and the host pool is not touched afterwards, not even where a
   device hangs: tasks are detached, but by the configuration's wish.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from sglang.srt.mem_cache.hicache_storage import HiCacheStorage, PoolTransferResult

import cairn

__all__ = ["CairnHiCache"]

logger = logging.getLogger("cairn.sglang")

CLOSE_SECONDS: Final = 30.0
SHARD_BYTES_MAX: Final = 64 << 20
Answer = TypeVar("Answer")


def _rank_of(config: Any) -> str:
    """What {rank} becomes: the tensor-parallel rank, and what else tells processes apart."""
    text = str(config.tp_rank)
    if getattr(config, "pp_size", 1) > 1:
        text += f"-pp{config.pp_rank}"
    if getattr(config, "attn_cp_size", 1) > 1:
        text += f"-cp{config.attn_cp_rank}"
    if getattr(config, "dp_rank", 0):
        text += f"-dp{config.dp_rank}"
    return text


def _share_of(config: Any) -> dict[str, Any]:
    """Which share of the model's cache this process has: what every rank has alike is one share."""
    pp = (getattr(config, "pp_rank", 0), getattr(config, "pp_size", 1))
    cp = (getattr(config, "attn_cp_rank", 0), getattr(config, "attn_cp_size", 1))
    if config.is_mla_model:
        tp = (getattr(config, "dcp_rank", 0), getattr(config, "dcp_size", 1))
    else:
        tp = (config.tp_rank, config.tp_size)
    return {
        "rank": (pp[0] * cp[1] + cp[0]) * tp[1] + tp[0],
        "world": pp[1] * cp[1] * tp[1],
        "parallel": f"{'dcp' if config.is_mla_model else 'tp'}={tp[1]},pp={pp[1]},cp={cp[1]}",
    }


class CairnHiCache(HiCacheStorage):
    """A store behind SGLang's HiCacheStorage. The constructor raises, with one line that says what
    is wrong; nothing else does.

    The extra configuration, besides SGLang's own entries:
    pipeline    what the store is made of, hot to cold; {rank} in it is this process's rank
    revision    of the weights          tenant, salt   who may hit
    deadline    seconds a batch may take; absent: the store's (30 s)
    durability  what a finished store outlives: "memory", "written" or "durable" (power loss)
    detach      false: I/O goes straight to the host pool, which is registered for that, and a call
                waits for a device that hangs
    rank        instead of the one that SGLang tells
    stage_path  folders of stages outside the package
    """

    def __init__(self, storage_config: Any, kwargs: Any = None) -> None:
        extra = dict(storage_config.extra_config or {})
        pipeline = extra.get("pipeline")
        if not isinstance(pipeline, str) or not pipeline:
            raise ValueError('cairn: the extra configuration has no "pipeline"')
        if storage_config.is_mla_model and storage_config.tp_size > 1 and "{rank}" in pipeline:
            raise ValueError(
                "cairn: where all ranks have the same cache (MLA) SGLang lets one of them write: "
                "they need one store, posix(..., shared=yes), without {rank}"
            )
        self._config = storage_config
        self._task: dict[str, Any] = {
            "deadline": extra.get("deadline"),
            "detach": bool(extra.get("detach", True)),
        }
        self._durability = str(extra.get("durability", "memory"))
        if self._durability not in ("memory", "written", "durable"):
            raise ValueError(f'cairn: no durability "{self._durability}"')
        salt = extra.get("salt", "")
        self._describe = {
            "model": storage_config.model_name or "",
            "revision": str(extra.get("revision", "")),
            "tenant": str(extra.get("tenant", "")),
            "salt": salt.encode() if isinstance(salt, str) else bytes(salt),
            **_share_of(storage_config),
        }
        self._lock = threading.Lock()
        self._told: set[str] = set()
        self._registered: list[Any] = []  # memory of the host pool's
        self._paged: tuple[Any, int] | None = None  # the namespace of pages, bytes of one
        self._flat: dict[int, Any] = {}  # those of the copying interface, by bytes of a page
        self._metrics = _Metrics() if storage_config.enable_storage_metrics else None
        rank = extra.get("rank", _rank_of(storage_config))
        try:
            self._store = cairn.Store(pipeline, rank=rank, stage_path=extra.get("stage_path"))
        except cairn.CairnError as error:
            hint = ""
            if error.errno == errno.EBUSY and "{rank}" not in pipeline:
                hint = "; each rank needs a store of its own: put {rank} into the path"
            raise ValueError(f"cairn: {error}{hint}") from error
        self._open = True

    # ---- SGLang's interface_v1: pages where they lie ---------------------------------------------

    def register_mem_pool_host(self, mem_pool_host: Any) -> None:
        """Takes the host pool; what it is like makes the namespace. Raises what it cannot name."""
        super().register_mem_pool_host(mem_pool_host)
        self._paged = None
        while self._registered:  # those of the pool before
            self._registered.pop().close()
        extra = self._config.extra_config or {}
        if not extra.get("interface_v1"):
            logger.warning('cairn: without "interface_v1": 1 SGLang copies each page once more')
            return
        tokens = getattr(mem_pool_host, "logical_page_size", mem_pool_host.page_size)
        pointers, sizes = mem_pool_host.get_page_buffer_meta(_first_page(tokens))
        if not sizes or len(pointers) != len(sizes):
            raise ValueError(f"cairn: {type(mem_pool_host).__name__} names no parts of a page")
        size = sum(sizes)
        if size > SHARD_BYTES_MAX:
            raise ValueError(
                f"cairn: a page of {size} bytes; at most {SHARD_BYTES_MAX} are kept: a smaller "
                "--page-size"
            )
        self._paged = self._namespace(mem_pool_host, tokens, sizes), size
        self._register(mem_pool_host)

    def batch_exists(self, keys: list[str], extra_info: Any = None) -> int:
        """How many leading pages are there, whole. Memory probes."""

        def body() -> int:
            namespace = self._pages()
            return int(namespace.lookup_prefix(namespace.keys(_names(keys))))

        return self._safely("exists", 0, body) if keys else 0

    def batch_get_v1(
        self, keys: list[str], host_indices: Any, extra_info: Any = None
    ) -> list[bool]:
        """Loads pages into the host pool, from the indices of their tokens. False: not there, or
        damaged; what the page holds is then undefined."""
        started = time.monotonic()
        answers = self._move(keys, host_indices, store=False)
        if self._metrics and self._paged:
            self._metrics.prefetched(answers.count(True), self._paged[1], started)
        return answers

    def batch_set_v1(
        self, keys: list[str], host_indices: Any, extra_info: Any = None
    ) -> list[bool]:
        """Stores pages of the host pool; what is there already counts as stored."""
        started = time.monotonic()
        answers = self._move(keys, host_indices, store=True, extra_info=extra_info)
        if self._metrics and self._paged:
            self._metrics.backed_up(answers.count(True), self._paged[1], started)
        return answers

    def exists(self, key: str) -> bool:
        """Whether one page is there, whole."""
        return self.batch_exists([key]) == 1

    # ---- the copying interface, where interface_v1 is not set ------------------------------------

    def get(self, key: str, target_location: Any = None, target_sizes: Any = None) -> Any:
        """Loads a page into the tensor `target_location`, and returns it; None: not there."""
        return self.batch_get([key], [target_location])[0]

    def batch_get(
        self, keys: list[str], target_locations: Any = None, target_sizes: Any = None
    ) -> list[Any]:
        """Loads pages, each into its tensor: that, or None."""

        def body() -> list[Any]:
            namespace, items = self._tensors(target_locations, len(keys))
            packed = namespace.keys(_names(keys))
            there = _whole(namespace.load_sync(packed, items, **self._task))
            rows = zip(target_locations, there, strict=True)
            return [target if whole else None for target, whole in rows]

        return self._safely("get", [None] * len(keys), body) if keys else []

    def set(
        self,
        key: str,
        value: Any = None,
        target_location: Any = None,
        target_sizes: Any = None,
    ) -> bool:
        """Stores the tensor of a page."""
        return self.batch_set([key], [value])

    def batch_set(
        self,
        keys: list[str],
        values: Any = None,
        target_locations: Any = None,
        target_sizes: Any = None,
    ) -> bool:
        """Stores the tensors of pages: True if all are there now."""

        def body() -> bool:
            contiguous = [value.contiguous() for value in values]
            namespace, items = self._tensors(contiguous, len(keys))
            packed = namespace.keys(_names(keys))
            statuses = namespace.dump_sync(
                packed, items, durability=self._durability, **self._task
            )
            self._complain("set", statuses)
            return all(_whole(statuses))

        return self._safely("set", False, body) if keys else True

    # ---- pools besides the KV cache's: not kept, so never hit ------------------------------------

    def register_mem_host_pool_v2(self, host_pool: Any, host_pool_name: Any) -> None:
        """Pools of hybrid models are not kept: with them nothing is ever found."""
        super().register_mem_host_pool_v2(host_pool, host_pool_name)
        if str(host_pool_name) != "kv":
            self._tell(f'the pool "{host_pool_name}" is not kept: prompts of this model miss')

    def batch_exists_v2(
        self, keys: list[str], pool_transfers: Any = None, extra_info: Any = None
    ) -> Any:
        """Pages of the KV cache; none where another pool would have to go with them."""

        def body() -> Any:
            if any(str(transfer.name) != "kv" for transfer in pool_transfers or ()):
                return PoolTransferResult.empty()
            return PoolTransferResult(self.batch_exists(keys, extra_info), {})

        return self._safely("exists", PoolTransferResult.empty(), body)

    def batch_get_v2(self, transfers: Any, extra_info: Any = None) -> dict[Any, list[bool]]:
        """False for each page of each pool."""
        return self._none_of("get", transfers)

    def batch_set_v2(self, transfers: Any, extra_info: Any = None) -> dict[Any, list[bool]]:
        """False for each page of each pool."""
        return self._none_of("set", transfers)

    def _none_of(self, kind: str, transfers: Any) -> dict[Any, list[bool]]:
        answers: dict[Any, list[bool]] = {}

        def none(transfer: Any) -> None:
            answers[transfer.name] = [False] * len(transfer.keys or ())

        def body() -> None:
            for transfer in transfers:
                self._safely(kind, None, lambda: none(transfer))

        self._safely(kind, None, body)
        return answers

    # ---- the rest --------------------------------------------------------------------------------

    def clear(self) -> bool:
        """Empties what this model and rank have in the store, in no time whatever it holds."""

        def body() -> bool:
            with self._lock:
                namespaces = [self._paged[0]] if self._paged else []
                namespaces += self._flat.values()
            for namespace in namespaces:
                namespace.clear()
            return True

        return self._safely("clear", False, body)

    def get_stats(self) -> Any:
        """Pages and GB/s since the last call, as SGLang's metrics take them; None without them."""
        return self._safely("stats", None, self._metrics.take) if self._metrics else None

    def stat(self) -> Any:
        """cairn.Store.stat() of the store."""
        return self._store.stat()

    def counters(self) -> dict[str, int]:
        """cairn.Store.counters() of the store."""
        counters: dict[str, int] = self._store.counters()
        return counters

    def close(self) -> None:
        """Waits for what runs, and closes the store. Again: nothing."""
        with self._lock:
            if not self._open:
                return
            self._open = False
        try:
            self._store.close(CLOSE_SECONDS)
        except OSError as error:
            # It stays open, with its memory, until the process ends.
            logger.warning("cairn: the store did not close: %s", error)

    # ---- inside ----------------------------------------------------------------------------------

    def _tell(self, what: str) -> None:
        """Each kind of mishap is told once."""
        if len(self._told) < 64 and what not in self._told:
            self._told.add(what)
            logger.warning("cairn: %s (told once)", what)

    def _complain(self, kind: str, statuses: Sequence[int]) -> None:
        worst = min(statuses)
        if worst == -errno.ENOSPC:
            self._tell(f"{kind}: not taken: no room, or more at once than the device takes")
        elif worst < 0:
            self._tell(f"{kind}: {os.strerror(-worst)}")

    def _safely(self, kind: str, otherwise: Answer, body: Callable[[], Answer]) -> Answer:
        try:
            return body()
        except Exception as error:  # whatever it is, it must not end SGLang's thread
            self._tell(f"{kind}: {error}")
            return otherwise

    def _namespace(self, pool: Any, tokens: int, sizes: Sequence[int]) -> Any:
        layout = (
            f"sglang {type(pool).__name__} {pool.layout} tokens={tokens} "
            f"parts={len(sizes)}x{sizes[0]} tag={getattr(pool, 'storage_format_tag', None) or ''}"
        )
        heads = [
            f"{name}={getattr(pool, name)}"
            for name in ("layer_num", "head_num", "head_dim", "v_head_dim")
            if isinstance(getattr(pool, name, None), int)
        ]
        return self._store.namespace(
            dtype=str(pool.dtype).removeprefix("torch."),
            layout=" ".join([layout, *heads]),
            shard_count=1,
            shard_bytes=sum(sizes),
            **self._describe,
        )

    def _register(self, pool: Any) -> None:
        """Tells the store of the host pool's memory, if I/O may be aimed at it. It stays until the
        store is closed; what cannot be registered is copied to, as without."""
        if self._task["detach"]:
            return
        buffers = getattr(pool, "kv_buffer", None)
        buffers = list(buffers) if isinstance(buffers, (list, tuple)) else [buffers]
        for one in buffers:
            try:
                if not one.is_contiguous():
                    raise ValueError("it is not contiguous")
                size = int(one.numel() * one.element_size())
                self._registered.append(self._store.register(int(one.data_ptr()), size))
            except (AttributeError, TypeError, OSError, ValueError) as error:
                self._tell(f"the host pool is not registered: {error}")
                return

    def _pages(self) -> Any:
        if self._paged:
            return self._paged[0]
        with self._lock:
            if len(self._flat) == 1:  # pages of the copying interface
                return next(iter(self._flat.values()))
        if (self._config.extra_config or {}).get("interface_v1"):
            raise ValueError("no host pool was registered")
        pool = self.mem_pool_host
        page = pool.get_dummy_flat_data_page()
        return self._flat_namespace(page.numel() * page.element_size())

    def _flat_namespace(self, size: int) -> Any:
        with self._lock:
            namespace = self._flat.get(size)
            if namespace is None:
                pool = getattr(self, "mem_pool_host", None)
                namespace = self._store.namespace(
                    dtype=str(getattr(pool, "dtype", "")).removeprefix("torch."),
                    layout=f"sglang {type(pool).__name__} {getattr(pool, 'layout', '')} flat "
                    f"tokens={getattr(pool, 'page_size', 0)}",
                    shard_count=1,
                    shard_bytes=size,
                    **self._describe,
                )
                self._flat[size] = namespace
            return namespace

    def _tensors(self, tensors: Any, count: int) -> tuple[Any, list[tuple[int, int]]]:
        """(namespace, (address, length) of each) of tensors of one size."""
        if not tensors or len(tensors) != count:
            raise ValueError(f"{count} keys, {len(tensors or ())} tensors")
        items = [(int(one.data_ptr()), int(one.numel() * one.element_size())) for one in tensors]
        if len({size for _, size in items}) != 1:
            raise ValueError("pages of several sizes")
        if not all(one.is_contiguous() for one in tensors):
            raise ValueError("a tensor that is not contiguous")
        return self._flat_namespace(items[0][1]), items

    def _chain(self, namespace: Any, count: int, extra_info: Any) -> dict[str, Any]:
        """A batch's pages are a prefix in order, which goes on where prefix_keys end: so the end of
        a prefix is evicted before its beginning."""
        before = getattr(extra_info, "prefix_keys", None)
        if not before:
            return {"chain": True}
        first = cairn.Attr(parent=namespace.key(before[-1]), depth=len(before))
        return {"chain": True, "attrs": [first, *[None] * (count - 1)]}

    def _move(
        self, keys: list[str], host_indices: Any, store: bool, extra_info: Any = None
    ) -> list[bool]:
        kind = "set" if store else "get"

        def body() -> list[bool]:
            if not self._paged:
                raise ValueError("no host pool was registered")
            namespace, size = self._paged
            pointers, sizes = self.mem_pool_host.get_page_buffer_meta(host_indices)
            parts = len(pointers) // len(keys)
            if parts * len(keys) != len(pointers) or sum(sizes[:parts]) != size:
                raise ValueError(f"{len(keys)} keys, {len(pointers)} parts of {size} bytes a page")
            cuts = list(zip(pointers, sizes, strict=True))
            items = [cuts[i : i + parts] for i in range(0, len(cuts), parts)]
            packed = namespace.keys(_names(keys))
            if not store:
                statuses = namespace.load_sync(packed, items, **self._task)
                return _whole(statuses)
            chain = self._chain(namespace, len(keys), extra_info)
            statuses = namespace.dump_sync(
                packed, items, durability=self._durability, **chain, **self._task
            )
            self._complain(kind, statuses)
            return _whole(statuses)

        return self._safely(kind, [False] * len(keys), body) if keys else []


class _Metrics:
    """What SGLang's collector takes: a figure a batch."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lists: list[list[Any]] = [[], [], [], []]

    def _note(self, first: int, pages: int, page_bytes: int, started: float) -> None:
        spent = max(time.monotonic() - started, 1e-9)
        with self._lock:
            self._lists[first].append(pages)
            self._lists[first + 2].append(pages * page_bytes / spent / 1e9)

    def prefetched(self, pages: int, page_bytes: int, started: float) -> None:
        self._note(0, pages, page_bytes, started)

    def backed_up(self, pages: int, page_bytes: int, started: float) -> None:
        self._note(1, pages, page_bytes, started)

    def take(self) -> Any:
        from sglang.srt.observability.metrics_collector import StorageMetrics

        with self._lock:
            lists, self._lists = self._lists, [[], [], [], []]
        return StorageMetrics(
            prefetch_pgs=lists[0],
            backup_pgs=lists[1],
            prefetch_bandwidth=lists[2],
            backup_bandwidth=lists[3],
        )


def _names(keys: Sequence[str]) -> list[bytes]:
    return [key.encode() for key in keys]


def _whole(statuses: Sequence[int]) -> list[bool]:
    return [status >= 0 for status in statuses]


def _first_page(tokens: int) -> Any:
    """The indices of the first page's tokens, as a tensor where SGLang has torch."""
    try:
        import torch
    except ImportError:
        return range(tokens)
    return torch.arange(tokens)
