# SPDX-License-Identifier: Apache-2.0
"""What the installed SGLang asks of a storage back end, against what ours has: drift fails here."""

from __future__ import annotations

import inspect
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness  # noqa: F401
from sglang.srt.managers import cache_controller
from sglang.srt.mem_cache.hicache_storage import (
    HiCacheStorage,
    HiCacheStorageConfig,
    PoolTransferResult,
)
from sglang.srt.mem_cache.storage.backend_factory import StorageBackendFactory

from cairn.sglang import CairnHiCache

# Of SGLang 0.5.23.
ABSTRACT = {"get", "batch_get", "set", "batch_set", "exists"}
INHERITED = {"on_host_pools_registered"}  # what theirs does is right for us
FIELDS = {
    "tp_rank", "tp_size", "pp_rank", "pp_size", "attn_cp_rank", "attn_cp_size", "is_mla_model",
    "enable_storage_metrics", "is_page_first_layout", "model_name", "tp_lcm_size",
    "should_split_heads", "dp_rank", "extra_config", "dcp_size", "dcp_rank", "logical_page_size",
}  # fmt: skip


def names(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


class Drift(unittest.TestCase):
    def test_abstract_methods(self) -> None:
        self.assertEqual(set(HiCacheStorage.__abstractmethods__), ABSTRACT)
        self.assertEqual(CairnHiCache.__abstractmethods__, frozenset())

    def test_signatures(self) -> None:
        """Every public method of theirs is ours too, with parameters of the same names."""
        for name, theirs in inspect.getmembers(HiCacheStorage, inspect.isfunction):
            if name.startswith("_") or name in INHERITED:
                continue
            self.assertIn(name, vars(CairnHiCache), name)
            self.assertEqual(names(getattr(CairnHiCache, name)), names(theirs), name)

    def test_configuration(self) -> None:
        """A field that is new may tell ranks or layouts apart: then the namespace needs it."""
        self.assertEqual(set(HiCacheStorageConfig.__dataclass_fields__), FIELDS)
        self.assertEqual(PoolTransferResult.empty().kv_hit_pages, 0)

    def test_factory(self) -> None:
        source = inspect.getsource(StorageBackendFactory._create_dynamic_backend)
        self.assertIn("backend_class(storage_config, kwargs)", source)

    def test_calls(self) -> None:
        """What the cache controller calls, as it calls it."""
        source = "".join(inspect.getsource(cache_controller).split())
        for call in (
            "self.storage_backend.batch_get_v1(hash_values,host_indices,extra_info)",
            "self.storage_backend.batch_set_v1(hash_values,host_indices,extra_info)",
            "self.storage_backend.batch_exists(batch_hashes,extra_info)",
            "self.storage_backend.register_mem_pool_host(self.storage_host_pool)",
            'self.storage_config.extra_config.get("interface_v1",0)',
            "self.storage_backend.close()",
        ):
            self.assertIn(call, source)


if __name__ == "__main__":
    unittest.main(verbosity=2)
