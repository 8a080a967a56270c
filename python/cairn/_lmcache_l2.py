# SPDX-License-Identifier: Apache-2.0
"""CairnL2Adapter: CairnPlugin by LMCache's type `plugin`, which tells of LMCache's memory."""

from __future__ import annotations

from typing import Any

from lmcache.v1.distributed.l2_adapters.native_connector_l2_adapter import (
    NativeConnectorL2Adapter,
)

from .lmcache import CairnPlugin

__all__ = ["CairnL2Adapter"]


class CairnL2Adapter(NativeConnectorL2Adapter):
    """What `native_plugin` makes around a CairnPlugin, with LMCache's memory (L1) registered.

    config          adapter_params: those of CairnPlugin, and max_capacity_gb
    l1_memory_desc  where that memory is; None: LMCache does not say
    """

    def __init__(self, config: dict[str, Any], l1_memory_desc: Any = None) -> None:
        params = dict(config)
        capacity = float(params.pop("max_capacity_gb", 0))
        plugin = CairnPlugin(**params)
        try:
            if l1_memory_desc is not None:
                size = l1_memory_desc.stable_registration_size or l1_memory_desc.size
                plugin.register(int(l1_memory_desc.ptr), int(size))
            super().__init__(plugin, max_capacity_gb=capacity, type_name="CairnL2Adapter")
        except BaseException:
            plugin.close()
            raise
