# SPDX-License-Identifier: Apache-2.0
"""cairn: a store for LLM inference state. KV-cache blocks, computed once and found again.

    with cairn.Store("flash(path=/var/lib/cairn.kv, size=200GiB)") as store:
        ns = store.namespace(model="example-7b", dtype="bf16", shard_bytes=len(block))
        key = ns.key(b"the engine's hash of the prefix")
        ns.dump([key], [block]).check()
        ns.load([key], [bytearray(len(block))]).check()
"""

from typing import NamedTuple

from ._cairn import (
    KEY_BYTES,
    PRESENT,
    SHARD_BYTES_MAX,
    SHARD_COUNT_MAX,
    Found,
    Future,
    Hold,
    Namespace,
    Pin,
    Queue,
    Registration,
    Slot,
    Stat,
    Store,
    define,
    version,
)
from ._error import CairnError

Error = CairnError
__version__ = version


class Attr(NamedTuple):
    """What the engine knows of a block, stored with it; the first that is told stays."""

    parent: bytes = b""  # the key of the block that this one continues; empty: none
    depth: int = 0  # blocks before this one in its prefix
    priority: int = 0  # 0 (goes first) to 100
    ttl: float = 0.0  # seconds; 0: none
    cost: float = 0.0  # seconds to compute it again; 0: not said


__all__ = [
    "Attr", "CairnError", "Error", "Found", "Future", "Hold", "KEY_BYTES", "Namespace", "PRESENT",
    "Pin", "Queue", "Registration", "SHARD_BYTES_MAX", "SHARD_COUNT_MAX", "Slot", "Stat", "Store",
    "define", "version",
]
