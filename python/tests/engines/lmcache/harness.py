# SPDX-License-Identifier: Apache-2.0
"""LMCache's own adapters and storage manager over stores of the tests' own."""

from __future__ import annotations

import argparse
import ctypes
import glob
import hashlib
import json
import os
import select
import time
from typing import Any

import torch
from lmcache.v1.distributed.api import MemoryLayoutDesc, ObjectKey
from lmcache.v1.distributed.config import (
    EvictionConfig,
    L1ManagerConfig,
    L1MemoryManagerConfig,
    StorageManagerConfig,
)
from lmcache.v1.distributed.internal_api import L1MemoryDesc
from lmcache.v1.distributed.l2_adapters import create_l2_adapter
from lmcache.v1.distributed.l2_adapters.config import (
    add_l2_adapters_args,
    parse_args_to_l2_adapters_config,
)
from lmcache.v1.memory_allocators.tensor_memory_allocator import TensorMemoryAllocator

KIB = 1024
MIB = 1024 * KIB
PIPELINES = {
    "posix": "posix(path={path}/kv, size=256MiB, direct=no)",
    "flash": "flash(path={path}/kv, size=256MiB)",
    "cache": "cache(size=32MiB) | flash(path={path}/kv, size=256MiB)",
}


def spec(pipeline: str, params: dict[str, Any] | None = None, **more: Any) -> str:
    """The JSON that a user gives to --l2-adapter."""
    return json.dumps(
        {
            "type": "native_plugin",
            "module_path": "cairn.lmcache",
            "class_name": "CairnPlugin",
            "adapter_params": {"pipeline": pipeline, **(params or {})},
            **more,
        }
    )


def plugin_spec(pipeline: str, **params: Any) -> str:
    """The same by LMCache's type `plugin`, which tells of LMCache's memory."""
    return json.dumps(
        {
            "type": "plugin",
            "module_path": "cairn.lmcache",
            "class_name": "CairnL2Adapter",
            "adapter_params": {"pipeline": pipeline, **params},
        }
    )


def adapters_config(*specs: str) -> Any:
    parser = add_l2_adapters_args(argparse.ArgumentParser())
    words = [word for one in specs for word in ("--l2-adapter", one)]
    return parse_args_to_l2_adapters_config(parser.parse_args(words))


def key(
    number: int,
    *,
    model: str = "org/model",
    rank: int = 0,
    world: int = 1,
    group: int = 0,
    salt: str = "",
) -> ObjectKey:
    return ObjectKey(
        chunk_hash=hashlib.sha256(str(number).encode()).digest(),
        model_name=model,
        kv_rank=ObjectKey.ComputeKVRank(world, rank, world, rank),
        object_group_id=group,
        cache_salt=salt,
    )


def content(number: int, size: int) -> bytes:
    """The bytes of a block are a function of its number."""
    seed = hashlib.sha256(b"content %d" % number).digest()
    return (seed * (size // len(seed) + 1))[:size]


class Memory:
    """LMCache's allocator over one tensor, and objects of it."""

    def __init__(self, size: int) -> None:
        self.arena = torch.zeros(size + 4096, dtype=torch.uint8)
        skip = -self.arena.data_ptr() % 4096  # as LMCache's own arenas begin at a page
        self.used = self.arena[skip : skip + size]
        self.allocator = TensorMemoryAllocator(self.used)

    def desc(self) -> L1MemoryDesc:
        """Where it is, as LMCache tells adapters."""
        return L1MemoryDesc(ptr=self.used.data_ptr(), size=self.used.numel(), align_bytes=4096)

    def object(self, size: int, fill: bytes | None = None) -> Any:
        made = self.allocator.allocate(torch.Size([size]), torch.uint8)
        assert made is not None
        ctypes.memmove(made.data_ptr, fill if fill is not None else b"\xee" * size, size)
        return made

    @staticmethod
    def bytes_of(made: Any) -> bytes:
        return ctypes.string_at(made.data_ptr, made.get_size())


class Adapter:
    """An adapter, called as LMCache's controllers call it."""

    def __init__(self, text: str, memory: Memory | None = None) -> None:
        told = memory.desc() if memory else None
        self.it = create_l2_adapter(adapters_config(text).adapters[0], told)

    def close(self) -> None:
        self.it.close()

    @staticmethod
    def wait(fd: int, ask: Any) -> Any:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        end = time.monotonic() + 120
        while time.monotonic() < end:
            answer = ask()
            if answer is not None:
                return answer
            if poller.poll(1000):
                os.read(fd, 8)
        raise AssertionError("no completion in two minutes")

    def store(self, keys: list[ObjectKey], objects: list[Any]) -> bool:
        task = self.it.submit_store_task(keys, objects)
        done: dict[int, Any] = {}

        def ask() -> Any:
            done.update(self.it.pop_completed_store_tasks())
            return done.get(task)

        return bool(self.wait(self.it.get_store_event_fd(), ask).is_successful())

    def lookup(self, keys: list[ObjectKey]) -> list[bool]:
        task = self.it.submit_lookup_and_lock_task(keys, {})
        bits = self.wait(self.it.get_lookup_and_lock_event_fd(),
                         lambda: self.it.query_lookup_and_lock_result(task))
        self.it.submit_unlock(keys)
        return [bool(bits.test(i)) for i in range(len(keys))]

    def load(self, keys: list[ObjectKey], objects: list[Any]) -> list[bool]:
        task = self.it.submit_load_task(keys, objects)
        bits = self.wait(self.it.get_load_event_fd(), lambda: self.it.query_load_result(task))
        return [bool(bits.test(i)) for i in range(len(keys))]

    def delete(self, keys: list[ObjectKey]) -> None:
        self.it.delete(keys)


def manager_config(*specs: str, l1_bytes: int = 64 * MIB) -> StorageManagerConfig:
    return StorageManagerConfig(
        l1_manager_config=L1ManagerConfig(
            memory_config=L1MemoryManagerConfig(
                size_in_bytes=l1_bytes, use_lazy=False, shm_name=""
            )
        ),
        eviction_config=EvictionConfig(eviction_policy="LRU"),
        l2_adapter_config=adapters_config(*specs),
    )


def layout(size: int) -> MemoryLayoutDesc:
    return MemoryLayoutDesc(shapes=[torch.Size([size])], dtypes=[torch.uint8])


def files_of(path: str) -> list[str]:
    """The files that hold blocks under a posix tier at `path`, or the one of a flash tier."""
    if os.path.isfile(path):
        return [path]
    found = sorted(filter(os.path.isfile, glob.glob(os.path.join(path, "**"), recursive=True)))
    return [name for name in found if os.path.getsize(name) > 60 * KIB]


def damage(path: str, needle: bytes) -> int:
    """Flips a byte in each place of the files where `needle` stands; how many there were."""
    count = 0
    for name in files_of(path):
        with open(name, "r+b") as file:
            data = file.read()
            at = data.find(needle)
            while at >= 0:
                file.seek(at + 7)
                file.write(bytes([data[at + 7] ^ 0x10]))
                count += 1
                at = data.find(needle, at + len(needle))
            os.fsync(file.fileno())
    return count
