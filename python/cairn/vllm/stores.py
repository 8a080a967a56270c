# SPDX-License-Identifier: Apache-2.0
"""Stores of this process. A flash file has one owner: who asks twice gets the same store."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import cairn

CLOSE_SECONDS: Final = 10.0

_lock = threading.Lock()
_open: dict[tuple[str, str], list[object]] = {}  # (pipeline, rank) -> [Store, users]


def _cpus() -> set[int]:
    """The processors of this process; where vLLM started it, those of vLLM's."""
    cpus = os.sched_getaffinity(0)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        try:
            cpus |= os.sched_getaffinity(parent.pid)
        except OSError:
            pass
    return cpus


# As this is imported: on CPU, vLLM then binds its model runner to one processor, and a store's
# threads would inherit that and wait for the thread that waits for them.
_all_cpus = _cpus()


@contextmanager
def _unbound() -> Iterator[None]:
    bound = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, _all_cpus | bound)
        yield
    finally:
        os.sched_setaffinity(0, bound)


def acquire(pipeline: object, rank: int) -> cairn.Store:
    if not isinstance(pipeline, str) or not pipeline.strip():
        raise ValueError(
            'cairn: kv_connector_extra_config needs "pipeline", for example'
            ' "flash(path=/var/lib/cairn.{rank}, size=200GiB)"'
        )
    with _lock:
        entry = _open.get((pipeline, str(rank)))
        if entry is None:
            with _unbound():
                entry = _open[pipeline, str(rank)] = [cairn.Store(pipeline, rank=rank), 0]
        assert isinstance(entry[1], int) and isinstance(entry[0], cairn.Store)
        entry[1] += 1
        return entry[0]


def release(store: cairn.Store) -> None:
    with _lock:
        for key, entry in list(_open.items()):
            if entry[0] is store:
                assert isinstance(entry[1], int)
                entry[1] -= 1
                if entry[1]:
                    return
                del _open[key]
    if not store.closed:
        store.close(CLOSE_SECONDS)
