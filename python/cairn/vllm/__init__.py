# SPDX-License-Identifier: Apache-2.0
"""vLLM over cairn: what its configuration names.

    vllm serve MODEL --kv-transfer-config '{"kv_connector": "CairnConnector",
        "kv_connector_module_path": "cairn.vllm", "kv_role": "kv_both", "kv_connector_extra_config":
        {"pipeline": "flash(path=/var/lib/cairn.{rank}, size=200GiB)"}}'

or, below vLLM's own host cache, the secondary tier {"type": "CairnTier", "module_path":
"cairn.vllm", "pipeline": ...}. docs/vllm.md says what a user sees of either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .connector import CairnConnector
    from .tier import CairnTier

__all__ = ["CairnConnector", "CairnTier"]


def __getattr__(name: str) -> object:
    # Each needs another part of vLLM: where one has changed, the other still loads.
    if name == "CairnConnector":
        from .connector import CairnConnector

        return CairnConnector
    if name == "CairnTier":
        from .tier import CairnTier

        return CairnTier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
