# SPDX-License-Identifier: Apache-2.0
"""What the installed LMCache asks of a native plugin, against what ours has: drift fails here."""

from __future__ import annotations

import ast
import inspect
import os
import sys
import textwrap
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import key
from lmcache.v1.distributed.l2_adapters import native_connector_l2_adapter as connector
from lmcache.v1.distributed.l2_adapters import native_plugin_l2_adapter as plugin

from cairn.lmcache import CairnPlugin

# What LMCache 0.5.6 calls on the client, and with how many arguments.
CALLS = {
    "event_fd": 0,
    "submit_batch_get": 2,
    "submit_batch_set": 2,
    "submit_batch_exists": 1,
    "submit_batch_delete": 1,
    "drain_completions": 0,
    "close": 0,
}


def tree_of(thing: object) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(thing)))


class Drift(unittest.TestCase):
    def test_required_methods(self) -> None:
        required: list[str] = []
        for node in ast.walk(tree_of(plugin._create_native_plugin_l2_adapter)):
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == (
                "required_methods"
            ):
                required = ast.literal_eval(node.value)
        self.assertEqual(set(required) | {"submit_batch_delete"}, set(CALLS))

    def test_calls(self) -> None:
        """Every call that LMCache makes on its client is one we know, with those arguments."""
        seen: dict[str, int] = {}
        for node in ast.walk(tree_of(connector.NativeConnectorL2Adapter)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value
                if isinstance(owner, ast.Attribute) and owner.attr == "_client":
                    seen[node.func.attr] = len(node.args) + len(node.keywords)
                elif isinstance(owner, ast.Name) and owner.id == "native_client":
                    seen[node.func.attr] = len(node.args) + len(node.keywords)
        self.assertEqual(seen, CALLS)

    def test_ours(self) -> None:
        for name, count in CALLS.items():
            parameters = inspect.signature(getattr(CairnPlugin, name)).parameters
            self.assertEqual(len(parameters) - 1, count, name)

    def test_constructor(self) -> None:
        """adapter_params come as keywords."""
        parameters = inspect.signature(CairnPlugin).parameters
        required = [n for n, p in parameters.items() if p.default is inspect.Parameter.empty]
        self.assertEqual(required, ["pipeline"])

    def test_key_text(self) -> None:
        """model@rank@group@hash[@salt], which our namespaces are made of."""
        plain = connector._object_key_to_string(key(1, rank=1, world=2, group=10))
        model, rank, group, chunk = plain.split("@")
        self.assertEqual((model, rank, group), ("org/model", "02010201", "a"))
        self.assertEqual(len(chunk), 64)
        salted = connector._object_key_to_string(key(1, rank=1, world=2, group=10, salt="s"))
        self.assertEqual(salted, plain + "@s")

    def test_completions(self) -> None:
        """The tuple of a completion is taken apart in this order."""
        source = inspect.getsource(connector.NativeConnectorL2Adapter._demux_loop)
        flat = "".join(source.split())
        self.assertIn("for(future_id,ok,error,result_bools,)incompletions", flat)


if __name__ == "__main__":
    unittest.main(verbosity=2)
