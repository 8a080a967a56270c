# SPDX-License-Identifier: Apache-2.0
"""What the scheduler's side and the workers' side tell each other, once a step; pickled where they
are different processes. A *name* is a block's hash in vLLM's chain, with what that leaves out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorMetadata,
    KVConnectorWorkerMetadata,
)


@dataclass
class Load:
    """Blocks that a worker reads into its own; `lookup` has them on hold."""

    request: str
    lookup: int
    names: list[bytes]
    blocks: list[int]
    layerwise: bool = False  # in this step's forward, each layer before it is needed


@dataclass
class Save:
    """Full blocks of a request that are computed by the end of this step's forward."""

    id: int
    request: str
    depth: int  # blocks before the first one
    parent: bytes  # the name of the block before it; empty: none
    names: list[bytes]
    blocks: list[int]


@dataclass
class CairnMetadata(KVConnectorMetadata):
    clear: int = 0  # before anything else: the namespace is emptied; the number of that, 0: no
    flush: list[str] = field(default_factory=list)  # requests whose blocks are about to go
    drops: list[int] = field(default_factory=list)  # lookups whose hold nobody needs any more
    lookups: list[tuple[int, list[bytes]]] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    saves: list[Save] = field(default_factory=list)
    finishing: list[str] = field(default_factory=list)  # freed when their saves have ended
    begun: bool = False  # a worker has seen to all but loads and saves

    def is_empty(self) -> bool:
        """Whether there is nothing in it that a worker has to hear."""
        return not (
            self.saves or self.loads or self.lookups or self.drops or self.finishing
            or self.flush or self.clear
        )


NOTHING: Final = CairnMetadata(begun=True)  # of most steps; nobody writes to it


@dataclass
class CairnWorkerMetadata(KVConnectorWorkerMetadata):
    """Answers of one rank, or of several."""

    # lookup -> (ranks that have answered, leading blocks that are there in all of them)
    lookups: dict[int, tuple[int, int]] = field(default_factory=dict)
    # save -> (ranks that are done with it, leading blocks that all of them have taken)
    saves: dict[int, tuple[int, int]] = field(default_factory=dict)
    cleared: dict[int, int] = field(default_factory=dict)  # clear -> ranks that are empty by it

    def aggregate(self, other: KVConnectorWorkerMetadata) -> CairnWorkerMetadata:
        assert isinstance(other, CairnWorkerMetadata)
        return CairnWorkerMetadata(
            _together(self.lookups, other.lookups), _together(self.saves, other.saves),
            dict(Counter(self.cleared) + Counter(other.cleared)),
        )


def _together(
    one: dict[int, tuple[int, int]], other: dict[int, tuple[int, int]]
) -> dict[int, tuple[int, int]]:
    """Ranks add up, and the least counts."""
    both = dict(one)
    for key, (ranks, count) in other.items():
        mine = both.get(key, (0, count))
        both[key] = (mine[0] + ranks, min(mine[1], count))
    return both
