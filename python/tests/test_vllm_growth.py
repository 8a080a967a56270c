# SPDX-License-Identifier: Apache-2.0
"""What the scheduler's side of cairn.vllm's connector saves of requests that run on, without vLLM
and without a store."""

from __future__ import annotations

import collections
import hashlib
import random
import types
import unittest
from typing import Any

from test_vllm import ROLE, TOKENS, Request, cache_config, config

from cairn.vllm import CairnConnector, messages


class Growing(unittest.TestCase):
    """Requests of which blocks get full while they run, at whatever pace: each full block is saved
    in the step that fills it, once, although most steps look at no request."""

    def setUp(self) -> None:
        self.random = random.Random(5)
        told = CairnConnector(config("null()"), ROLE.SCHEDULER, cache_config())
        self.connector, self.side = told, told._scheduler
        self.running: dict[str, list[Any]] = {}  # name -> [request, tokens computed, blocks]
        self.saved: collections.Counter[tuple[str, int]] = collections.Counter()
        self.next = 0

    def start(self, name: str, blocks: int) -> Any:
        request = Request(name, [])
        request.skip_reading_prefix_cache = True
        self.grow(request, blocks)
        self.running[name] = [request, 0, 0]
        self.place(name)
        return request

    def grow(self, request: Request, blocks: int) -> None:
        for _ in range(blocks):
            self.next += 1
            request.block_hashes.append(hashlib.sha256(b"%d" % self.next).digest())

    def place(self, name: str) -> None:
        """As the scheduler does before a request's first step, and after its preemption."""
        request = self.running[name][0]
        ask = self.connector.get_num_new_matched_tokens
        self.assertEqual(ask(request, 0), (0, False))
        blocks = types.SimpleNamespace(get_block_ids=lambda: ([],))
        self.connector.update_state_after_alloc(request, blocks, 0)

    def given(self, name: str, end: int) -> Any:
        """The blocks that `end` tokens need beyond those that the request has; None: none."""
        row = self.running[name]
        first, row[2] = row[2], max(row[2], -(-end // TOKENS))
        return (list(range(first, row[2])),) if row[2] > first else None

    def step(self, counts: dict[str, int], new: set[str], resumed: set[str],
             preempted: set[str]) -> Any:
        """The metadata of a step of so many tokens of each request."""
        ns = types.SimpleNamespace
        computed = {name: self.running[name][1] for name in counts}
        blocks = {name: self.given(name, computed[name] + counts[name]) for name in counts}
        cached = [name for name in counts if name not in new]
        meta = self.connector.build_connector_meta(ns(
            scheduled_new_reqs=[
                ns(req_id=name, block_ids=blocks[name], num_computed_tokens=0) for name in new],
            scheduled_cached_reqs=ns(
                req_ids=cached, new_block_ids=[blocks[name] for name in cached],
                num_computed_tokens=[computed[name] for name in cached], resumed_req_ids=resumed),
            num_scheduled_tokens=counts, total_num_scheduled_tokens=sum(counts.values()),
            finished_req_ids=set(), preempted_req_ids=preempted,
        ))
        for save in meta.saves:
            self.assertEqual(save.blocks, list(range(save.depth, save.depth + len(save.blocks))))
            self.saved.update((save.request, save.depth + i) for i in range(len(save.blocks)))
        for name, count in counts.items():
            row = self.running[name]
            row[1] += count
            for i in range(min(row[1] // TOKENS, len(row[0].block_hashes))):
                self.assertEqual(self.saved[name, i], 1, (name, i))
        self.assertEqual(sum(self.saved.values()), len(self.saved))
        return meta

    def test_at_any_pace(self) -> None:
        for i in range(8):
            self.start(f"r{i}", 2)
        new = set(self.running)
        waiting: set[str] = set()
        for _ in range(400):
            preempted = {name for name in self.running.keys() - new - waiting
                         if self.random.random() < 0.01}
            for name in preempted:
                self.running[name][1:] = [0, 0]
            names = [name for name in self.running if name in new or (
                name not in preempted and self.random.random() < 0.9)]
            resumed = waiting & set(names)
            for name in resumed:
                self.place(name)
            many = self.random.random() < 0.2
            counts = {name: self.random.randrange(1, 40) if many else 1 for name in names}
            self.step(counts, new, resumed, preempted)
            waiting = (waiting | preempted) - resumed
            new = set()
            entries = sum(map(len, self.side.due.values()))
            self.assertLessEqual(entries, 2 * TOKENS * len(self.running))
            for row in self.running.values():
                # Of the last block the hash is known a step later, or more.
                lacking = row[1] // TOKENS - len(row[0].block_hashes)
                self.grow(row[0], max(0, lacking - self.random.randrange(2)))
        self.assertGreater(len(self.saved), 200)
        for row in self.running.values():
            self.connector.request_finished(row[0], [])
        for _ in range(3 * TOKENS):
            self.step({}, set(), set(), set())
        self.assertEqual((self.side.due, self.side.requests), ({}, {}))

    def test_emptied_meanwhile(self) -> None:
        """What was computed before is not saved any more; what is computed again, is."""
        self.start("a", 4)
        self.step({"a": TOKENS}, {"a"}, set(), set())
        self.assertTrue(self.connector.reset_cache())
        with self.assertRaises(AssertionError):  # the second block is full, and is not saved
            for _ in range(TOKENS):
                self.step({"a": 1}, set(), set(), set())
        self.assertEqual((sum(self.saved.values()), self.side.due), (1, {}))
        self.side.in_saves.clear()  # as if the saves had ended, and were gone
        self.saved.clear()
        self.running["a"][1:] = [0, 0]
        self.step({}, set(), set(), {"a"})
        self.place("a")
        self.step({"a": 1}, set(), {"a"}, set())
        for _ in range(2 * TOKENS):
            self.step({"a": 1}, set(), set(), set())
        self.assertEqual(len(self.saved), 2)

    def test_a_step_with_nothing_to_say(self) -> None:
        """It is told by one object, which stays as it is."""
        self.start("a", 2)
        self.step({"a": TOKENS - 1}, {"a"}, set(), set())
        told = [self.step({"a": 1}, set(), set(), set()) for _ in range(2 * TOKENS)]
        self.assertEqual([bool(meta.saves) for meta in told].count(True), 2)
        self.assertEqual(len({id(meta) for meta in told}), 3)
        self.assertTrue(messages.NOTHING.begun and messages.NOTHING.is_empty())


if __name__ == "__main__":
    unittest.main()
