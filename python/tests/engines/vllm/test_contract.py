# SPDX-License-Identifier: Apache-2.0
"""What the installed vLLM asks of a connector and a tier, against what ours have: drift fails."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
import fake_vllm
import harness  # noqa: F401  (its environment)
from vllm.distributed.kv_transfer.kv_connector.v1 import base
from vllm.v1.kv_offload.tiering.base import SecondaryTierManager

from cairn.vllm import CairnConnector, CairnTier

# Of vLLM 0.32.0.
CONNECTOR = {
    "start_load_kv", "wait_for_layer_load", "save_kv_layer", "wait_for_save",
    "get_num_new_matched_tokens", "update_state_after_alloc", "build_connector_meta",
    "request_finished_all_groups",
}
TIER = {"drain_jobs", "get_finished_jobs", "lookup", "on_new_request", "submit_load",
        "submit_store"}
# What we leave to the base, and why: anything else that appears has to be looked at.
LEFT = {
    "set_host_xfer_buffer_ops", "get_mem_pool_context",  # of accelerators
    "get_handshake_metadata", "set_xfer_handshake_metadata",
    "set_xfer_handshake_metadata_pp_aware", "get_finished_count",  # of peers
    "finish_forward", "reset_capture_state",  # nothing to do
    "clear_connector_metadata", "get_transfer_results", "role",
    "get_kv_connector_kv_cache_events",  # the scheduler's side tells them
    "bind_kv_cache_manager", "bind_gpu_block_pool", "get_loaded_kv_cache_group_ids",
    "get_external_cache_hit_sources", "on_new_request", "register_finished_partial_tail",
    "has_pending_block_frees", "get_required_kvcache_layout",
    "supports_divergent_local_hybrid_hits",
}

LEFT_OF_TIERS = {
    "bp_detector",  # the base has it
    "has_pending_work",  # a job under way is vLLM's to know; no other work is left
    "on_request_finished", "on_schedule_end",  # nothing is kept of a request or a step
    "serve_external_requests",  # of tiers that peers ask
    "build_metric_definitions", "get_stats",
}


class Drift(unittest.TestCase):
    def test_abstract_methods(self) -> None:
        abstract = set(base.KVConnectorBase_V1.__abstractmethods__)
        self.assertEqual(abstract | set(base.SupportsHMA.__abstractmethods__), CONNECTOR)
        self.assertEqual(set(SecondaryTierManager.__abstractmethods__), TIER)
        for ours in (CairnConnector, CairnTier):
            self.assertEqual(set(ours.__abstractmethods__), set())

    def test_nothing_new(self) -> None:
        public = {name for name in vars(base.KVConnectorBase_V1) if not name.startswith("_")}
        ours = {name for name in vars(CairnConnector) if not name.startswith("_")}
        self.assertEqual(public - ours, LEFT)
        self.assertEqual({name for name in vars(base.SupportsHMA) if name[0] != "_"},
                         {"request_finished_all_groups"})
        tier = {name for name in vars(SecondaryTierManager) if name[0] != "_"}
        self.assertEqual(tier - set(vars(CairnTier)) - {"block_size_bytes"}, LEFT_OF_TIERS)

    def test_signatures(self) -> None:
        pairs = [
            (base.KVConnectorBase_V1, CairnConnector), (base.SupportsHMA, CairnConnector),
            (SecondaryTierManager, CairnTier),
        ]
        for theirs, ours in pairs:
            for name, method in vars(ours).items():
                if not callable(getattr(theirs, name, None)) or name.startswith("__"):
                    continue
                with self.subTest(f"{ours.__name__}.{name}"):
                    wanted = inspect.signature(getattr(theirs, name)).parameters
                    have = inspect.signature(getattr(ours, name)).parameters
                    self.assertEqual(
                        [(p.name, p.kind) for p in wanted.values()],
                        [(p.name, p.kind) for p in have.values()],
                    )
                    self.assertTrue(callable(method) or isinstance(method, classmethod))


class StandIns(unittest.TestCase):
    """What the tests without vLLM have in its place is a part of what it has."""

    def test_tier(self) -> None:
        for module, names in (
            ("base", ("LookupResult", "Medium", "OffloadingEvent", "ReqContext",
                      "RequestOffloadingContext")),
            ("file_mapper", ("FileMapper",)),
            ("tiering.base", ("JobResult", "TransferJob", "SecondaryTierManager")),
        ):
            theirs = importlib.import_module("vllm.v1.kv_offload." + module)
            for name in names:
                with self.subTest(name):
                    self.compare(getattr(theirs, name), getattr(fake_vllm, name))

    def compare(self, real: type, ours: type) -> None:
        if dataclasses.is_dataclass(real):
            fields = [field.name for field in dataclasses.fields(real)]
            have = [field.name for field in dataclasses.fields(ours)]  # the first of them
            self.assertEqual(have, fields[: len(have)])
            without = dataclasses.MISSING
            for field in dataclasses.fields(real)[len(have):]:
                self.assertFalse(field.default is without and field.default_factory is without)
        elif issubclass(real, enum.Enum):
            self.assertEqual(list(real.__members__), list(ours.__members__))
        else:
            for name in vars(ours):
                if name == "__init__" and ours is fake_vllm.FileMapper:
                    continue
                if callable(getattr(ours, name)) and (name == "__init__" or name[0] != "_"):
                    have, wanted = (
                        list(inspect.signature(getattr(one, name)).parameters)
                        for one in (ours, real)
                    )
                    self.assertEqual(have, wanted, name)


class Names(unittest.TestCase):
    def test_configuration(self) -> None:
        """The names of docs/vllm.md, as vLLM resolves them."""
        from vllm.config import KVTransferConfig
        from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
        from vllm.v1.kv_offload.tiering.factory import SecondaryTierFactory

        config = KVTransferConfig(
            kv_connector="CairnConnector", kv_connector_module_path="cairn.vllm", kv_role="kv_both"
        )
        self.assertIs(KVConnectorFactory.get_connector_class(config), CairnConnector)
        tier = {"type": "CairnTier", "module_path": "cairn.vllm"}
        self.assertIs(SecondaryTierFactory.get_tier_class(tier), CairnTier)


if __name__ == "__main__":
    unittest.main()
