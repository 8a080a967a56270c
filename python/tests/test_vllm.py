# SPDX-License-Identifier: Apache-2.0
"""cairn.vllm's connector by the order in which vLLM calls it, without vLLM."""

from __future__ import annotations

import collections
import hashlib
import os
import pickle
import shutil
import tempfile
import types
import unittest
from collections.abc import Callable
from typing import Any

import fake_vllm

fake_vllm.install()
import cairn  # noqa: E402
import vllm  # noqa: E402

from cairn.vllm import CairnConnector, connector, scheduler  # noqa: E402

TOKENS, LAYERS, BLOCKS = 16, 3, 64
ROLE = fake_vllm.KVConnectorRole
COMMIT = fake_vllm.Revision("c0ffee")


def config(pipeline: str, *, world: int = 1, salt: str = "", engine: str = "e",
           **extra: Any) -> Any:
    ns = types.SimpleNamespace
    hf = ns(to_json_string=lambda use_diff: '{"layers": 3}')
    return ns(
        kv_transfer_config=ns(
            kv_connector_extra_config={"pipeline": pipeline, "salt": salt, **extra},
            is_kv_consumer=True, is_kv_producer=True, engine_id=engine,
            kv_load_failure_policy="fail",
        ),
        parallel_config=ns(
            world_size=world, tensor_parallel_size=world, pipeline_parallel_size=1,
            decode_context_parallel_size=1, data_parallel_rank=0,
        ),
        cache_config=ns(prefix_caching_hash_algo="sha256", cache_dtype="auto"),
        model_config=ns(model="m", hf_config=hf, revision=COMMIT, dtype="float32",
                        quantization=None, max_model_len=4096),
        speculative_config=None, kv_events_config=None,
    )


def cache_config(groups: int = 1, tokens: int = TOKENS) -> Any:
    group = types.SimpleNamespace(
        layer_names=[f"layer.{i}" for i in range(LAYERS)],
        kv_cache_spec=fake_vllm.FullAttentionSpec(tokens), is_eagle_group=False,
    )
    return types.SimpleNamespace(kv_cache_groups=[group] * groups, num_blocks=BLOCKS)


class Request:
    """Of a prompt that is `blocks` numbers, a block each, and a token more."""

    skip_reading_prefix_cache = False

    def __init__(self, name: str, blocks: list[int], lora: Any = None) -> None:
        self.request_id = name
        self.lora_request = lora
        self.all_token_ids = [number for number in blocks for _ in range(TOKENS)] + [0]
        self.num_tokens = len(self.all_token_ids)
        self.block_hashes: list[bytes] = []
        chain = b""
        for number in blocks:
            chain = hashlib.sha256(chain + bytes([number])).digest()
            self.block_hashes.append(chain)
        self.over = False

    def is_finished(self) -> bool:
        return self.over


class Engine:
    """A connector for the scheduler and one a rank, called as vLLM calls them; the model writes
    what a block's hash says."""

    def __init__(
        self, pipeline: str, *, apart: bool = False, tokens: int = TOKENS,
        tensor: type[fake_vllm.Tensor] = fake_vllm.Tensor,
        change: Callable[[Any], None] = lambda config: None, **options: Any,
    ) -> None:
        options.setdefault("engine", pipeline)
        self.config = config(pipeline, **options)
        change(self.config)
        self.cache_config = cache_config(tokens=tokens)
        self.tensor = tensor
        self.layerwise = options.get("load") == "layerwise"
        self.in_time: list[bool] = []  # of layers that are loaded by layers, when they are needed
        world = self.config.parallel_config.world_size
        self.apart = apart or world > 1  # the scheduler is in another process than the workers
        self.ranks = [self.rank(i, world) for i in range(world)]
        self.worker, self.caches = self.ranks[0]
        if apart:
            connector._workers.clear()
        self.scheduler = CairnConnector(self.config, ROLE.SCHEDULER, self.cache_config)
        self.next = 1
        self.silent: set[int] = set()  # ranks whose answers do not come
        self.delayed: set[str] = set()
        self.invalid: set[int] = set()
        self.received: set[str] = set()
        self.ends: list[collections.Counter[str]] = [collections.Counter(), collections.Counter()]

    def rank(self, i: int, world: int) -> tuple[Any, dict[str, fake_vllm.Tensor]]:
        """A worker, and its KV cache."""
        fake_vllm.RANK.rank_in_group, fake_vllm.RANK.world_size = i, world
        worker = CairnConnector(self.config, ROLE.WORKER, self.cache_config)
        fake_vllm.RANK.rank_in_group, fake_vllm.RANK.world_size = 0, 1
        caches = {
            f"layer.{layer}": self.tensor(BLOCKS, 2, TOKENS, 8) for layer in range(LAYERS)
        }
        worker.register_kv_caches(caches)
        return worker, caches

    def content(self, layer: int, name: bytes, rank: int = 0) -> bytes:
        page = self.caches["layer.0"].page
        return hashlib.shake_256(name + bytes([layer, rank])).digest(page)

    def output(self, new: list[Any], finished: set[str], preempted: set[str]) -> Any:
        return types.SimpleNamespace(
            scheduled_new_reqs=new,
            scheduled_cached_reqs=types.SimpleNamespace(
                req_ids=[], new_block_ids=[], num_computed_tokens=[], resumed_req_ids=set()),
            num_scheduled_tokens={one.req_id: one.tokens for one in new},
            total_num_scheduled_tokens=sum(one.tokens for one in new),
            finished_req_ids=finished, preempted_req_ids=preempted,
        )

    def step(self, new: list[Any] | None = None, compute: dict[int, bytes] | None = None,
             finished: set[str] | None = None, preempted: set[str] | None = None) -> None:
        out = self.output(new or [], finished or set(), preempted or set())
        meta = self.scheduler.build_connector_meta(out)
        told = pickle.dumps(meta)
        answers: Any = None
        invalid: set[int] = set()
        for i in range(len(self.ranks)):
            mine = pickle.loads(told) if self.apart else meta
            self.forward(i, mine, compute or {})
            worker = self.ranks[i][0]
            sent, received = worker.get_finished(out.finished_req_ids)
            self.ends[0].update(sent or ())
            self.ends[1].update(received or ())
            invalid |= worker.get_block_ids_with_load_errors()
            answer = None if i in self.silent else worker.build_connector_worker_meta()
            if answer is not None:
                answer = pickle.loads(pickle.dumps(answer))
                answers = answer if answers is None else answers.aggregate(answer)
        sent, received = (self.everywhere(ends) for ends in self.ends)
        self.invalid |= invalid
        self.delayed -= sent
        self.received |= received
        self.scheduler.update_connector_output(types.SimpleNamespace(
            kv_connector_worker_meta=answers,
            finished_recving=received, finished_sending=sent, invalid_block_ids=invalid,
        ))

    def forward(self, i: int, meta: Any, compute: dict[int, bytes]) -> None:
        worker, caches = self.ranks[i]
        worker.handle_preemptions(meta)
        worker.bind_connector_metadata(meta)
        first = any(load.layerwise for load in meta.loads)  # vLLM loads the others behind it
        if first:
            worker.start_load_kv(None)
        for layer, (name, cache) in enumerate(caches.items()):
            asks = worker.has_connector_metadata()
            if asks:
                worker.wait_for_layer_load(name)
            for load in meta.loads if first else ():
                self.in_time += [
                    cache.block(block) == self.content(layer, block_hash, i)
                    for block, block_hash in zip(load.blocks, load.names, strict=True)
                ]
            for block, block_hash in compute.items():
                cache.fill(block, self.content(layer, block_hash, i))
            if asks:
                worker.save_kv_layer(name, cache, None)
            # It is on its way while the next layer is computed.
            saving = worker._worker.step
            assert (saving is not None) == bool(meta.saves)
            assert saving is None or len(saving.futures) == layer + 1
        if not first:
            worker.start_load_kv(None)
        worker.wait_for_save()

    def everywhere(self, ends: collections.Counter[str]) -> set[str]:
        """The requests of which each rank has told; as vLLM adds them up."""
        all_of = {name for name, ranks in ends.items() if ranks == len(self.ranks)}
        for name in all_of:
            del ends[name]
        return all_of

    def match(self, request: Request, local: int = 0) -> int:
        for _ in range(1000):
            count, asynchronous = self.scheduler.get_num_new_matched_tokens(request, local)
            if count is not None:
                assert asynchronous == (count > 0 and not self.layerwise)
                return count
            self.step()
        raise AssertionError("no answer")

    def allocate(self, request: Request, external: int) -> list[int]:
        count = len(request.block_hashes) + 1
        blocks = list(range(self.next, self.next + count))
        self.next += count
        self.scheduler.update_state_after_alloc(
            request, types.SimpleNamespace(get_block_ids=lambda: (blocks,)), external
        )
        return blocks

    def run(self, request: Request) -> tuple[int, list[int]]:
        """From its arrival to its end: (tokens that came from the store, its blocks)."""
        external = self.match(request)
        blocks = self.allocate(request, external)
        if external and not self.layerwise:
            self.until(lambda: request.request_id in self.received)
            bad = [i for i, block in enumerate(blocks) if block in self.invalid]
            if bad:  # vLLM computes from there, and asks again where that is the beginning
                external = bad[0] * TOKENS
                assert self.match(request, external) == 0
            self.allocate_again(request, blocks)
        first = external // TOKENS
        new = types.SimpleNamespace(
            req_id=request.request_id, block_ids=(blocks,), num_computed_tokens=external,
            tokens=request.num_tokens - external,
        )
        self.step([new], dict(zip(blocks[first:-1], request.block_hashes[first:], strict=True)))
        self.finish(request, blocks)
        return external, blocks

    def allocate_again(self, request: Request, blocks: list[int]) -> None:
        self.scheduler.update_state_after_alloc(
            request, types.SimpleNamespace(get_block_ids=lambda: (blocks,)), 0
        )

    def finish(self, request: Request, blocks: list[int]) -> None:
        request.over = True
        if self.scheduler.request_finished(request, blocks)[0]:
            self.delayed.add(request.request_id)
        self.step(finished={request.request_id})
        self.until(lambda: not self.delayed)

    def until(self, done: Any) -> None:
        for _ in range(100000):
            if done():
                return
            self.step()
        raise AssertionError("it does not end")

    def is_right(self, request: Request, blocks: list[int]) -> bool:
        return all(
            cache.block(block) == self.content(layer, block_hash, i)
            for i, (_, caches) in enumerate(self.ranks)
            for layer, cache in enumerate(caches.values())
            for block, block_hash in zip(blocks, request.block_hashes, strict=False)
        )

    def close(self) -> None:
        for worker, _ in self.ranks:
            worker.shutdown()


def setting(path: str, value: Any) -> Callable[[Any], None]:
    """Changes one thing of vLLM's configuration."""
    def change(config: Any) -> None:
        *parts, last = path.split(".")
        for part in parts:
            config = getattr(config, part)
        assert hasattr(config, last), path
        setattr(config, last, value)

    return change


class Case(unittest.TestCase):
    above = ""

    def setUp(self) -> None:
        self.path = tempfile.mkdtemp(prefix="cairn-vllm-")
        self.addCleanup(shutil.rmtree, self.path)
        self.engine: Any = None
        self.addCleanup(lambda: self.engine and self.engine.close())

    def open(self, pipeline: str = "", **options: Any) -> Engine:
        if self.engine is not None:
            self.engine.close()
        engine = self.engine = Engine(
            pipeline or f"{self.above}flash(path={self.path}/kv, size=64MiB)", **options)
        return engine

    def assert_run(self, request: Request, external: int) -> None:
        got, blocks = self.engine.run(request)
        self.assertEqual(got, external * TOKENS)
        self.assertTrue(self.engine.is_right(request, blocks))


class Rounds(Case):
    def rounds(self, **options: Any) -> None:
        self.open(**options)
        self.assert_run(Request("a", [1, 2, 3, 4]), 0)
        self.assert_run(Request("b", [1, 2, 3, 4]), 4)
        self.assert_run(Request("c", [1, 2, 9]), 2)
        self.open(**options)  # a restart
        self.assert_run(Request("d", [1, 2, 9, 10]), 3)
        self.open(salt="other", **options)
        self.assert_run(Request("e", [1, 2, 3, 4]), 0)

    def test_in_one_process(self) -> None:
        self.rounds()

    def test_scheduler_elsewhere(self) -> None:
        self.rounds(apart=True)

    def test_reset(self) -> None:
        for apart in (False, True):
            engine = self.open(apart=apart)
            self.assert_run(Request("a", [1, 2]), 0 if not apart else 0)
            self.assertTrue(engine.scheduler.reset_cache())
            self.assert_run(Request("b", [1, 2]), 0)
            self.assert_run(Request("c", [1, 2]), 2)
            self.assertTrue(engine.scheduler.reset_cache())


    def test_by_layers(self) -> None:
        """Each layer is there when it is needed, in the request's first forward."""
        for apart in (False, True):
            engine = self.open(load="layerwise", salt=str(apart), apart=apart)
            self.assert_run(Request("a", [1, 2, 3]), 0)
            self.assertEqual(engine.in_time, [])
            self.assert_run(Request("b", [1, 2, 3, 4]), 3)
            self.assertEqual(engine.in_time, [True] * 3 * LAYERS)
            self.assertEqual(engine.invalid, set())

    def test_start_line(self) -> None:
        """By a logger of vLLM's tree: no other has a handler."""
        with self.assertLogs("vllm.cairn", "INFO") as logs:
            self.open()
        (line,) = logs.output
        self.assertRegex(line, r"cairn: .*flash\(path=.*; layout vllm fake ")


class RoundsBelowCache(Rounds):
    """The same where a memory tier is above: loads out of shared memory."""

    above = "cache(size=16MiB) | "


class Holds(Case):
    """What was matched stays until it is loaded, whatever is stored meanwhile."""

    def setUp(self) -> None:
        super().setUp()
        self.pipeline = f"flash(path={self.path}/kv, size=16MiB)"

    def fill_up(self) -> None:
        """Three times the store's budget."""
        store = self.engine.worker._worker.store
        ns = store.namespace(model="filler", shard_count=1, shard_bytes=64 << 10)
        evicted = store.counters()["flash.evicted_blocks"]
        for i in range(768):
            self.filled += 1
            ns.dump(ns.key(b"%d" % self.filled), bytes(64 << 10)).wait()
        self.assertGreater(store.counters()["flash.evicted_blocks"], evicted)

    def test_until_it_is_loaded(self) -> None:
        self.filled = 0
        for apart in (False, True):
            with self.subTest(apart=apart):
                engine = self.open(self.pipeline, apart=apart, hold=600)
                self.assert_run(Request("a", [1, 2, 3, 4]), 0)
                request = Request("b", [1, 2, 3, 4])
                external = engine.match(request)
                self.assertEqual(external, 4 * TOKENS)
                self.fill_up()
                blocks = engine.allocate(request, external)
                engine.until(lambda: "b" in engine.received)
                self.assertEqual(engine.invalid, set())
                self.assertTrue(engine.is_right(request, blocks))
                engine.finish(request, blocks)
                self.fill_up()  # nothing holds them any more
                self.assertEqual(engine.match(Request("c", [1, 2, 3, 4])), 0)


class Events(Case):
    """Of what is stored, and of the end of all of it."""

    def setUp(self) -> None:
        super().setUp()
        told = types.SimpleNamespace(enable_kv_cache_events=True)
        self.change = setting("kv_events_config", told)

    def take(self) -> list[Any]:
        return list(self.engine.scheduler.take_events())

    def test_reset(self) -> None:
        for apart in (False, True):
            with self.subTest(apart=apart):
                engine = self.open(apart=apart, salt=str(apart), change=self.change)
                request = Request("a", [1, 2])
                self.assert_run(request, 0)
                (stored,) = self.take()
                self.assertEqual(stored.block_hashes, request.block_hashes)
                self.assertEqual(stored.token_ids, request.all_token_ids[:-1])
                self.assertEqual(stored.medium, "STORAGE")
                self.assertTrue(engine.scheduler.reset_cache())
                if apart:
                    self.assertEqual(self.take(), [])  # workers have not heard yet
                    engine.step()
                self.assertEqual(self.take(), [fake_vllm.AllBlocksCleared()])
                self.assertEqual(self.take(), [])
                self.assert_run(Request("b", [1, 2]), 0)
                (stored,) = self.take()
                self.assertEqual(stored.block_hashes, request.block_hashes)
                self.assert_run(Request("c", [1, 2]), 2)

    def test_reset_that_fails(self) -> None:
        """Nothing is found in what was to be emptied, and nobody is told that it is empty."""
        for apart in (False, True):
            engine = self.open(apart=apart, salt=str(apart), change=self.change)
            self.assert_run(Request("a", [1, 2]), 0)
            self.assertEqual(len(self.take()), 1)
            side = engine.worker._worker
            whole, fails = side.ns, ["EIO"]

            class Namespace:
                def __getattr__(self, name: str) -> Any:
                    return getattr(whole, name)

                def clear(self, durability: Any) -> None:
                    if fails:
                        raise cairn.CairnError(5, fails[0])
                    whole.clear(durability)

            side.ns = Namespace()
            with self.assertLogs("vllm.cairn", "ERROR"):
                self.assertEqual(engine.scheduler.reset_cache(), apart)
                engine.step()
            self.assertEqual(engine.match(Request("b", [1, 2])), 0)
            self.assertEqual(self.take(), [])
            fails.clear()
            self.assertTrue(engine.scheduler.reset_cache())
            engine.step()
            self.assertEqual(self.take(), [fake_vllm.AllBlocksCleared()])
            self.assert_run(Request("c", [1, 2]), 0)
            self.assert_run(Request("d", [1, 2]), 2)

    def test_a_save_that_ended_before_a_reset_and_was_not_told(self) -> None:
        """It is gone with the rest: nothing says that it was stored, and it is saved again."""
        for apart in (False, True):
            with self.subTest(apart=apart):
                engine = self.open(apart=apart, salt=str(apart), change=self.change)
                request = Request("a", [1, 2])
                self.assertEqual(engine.match(request), 0)
                blocks = engine.allocate(request, 0)
                new = types.SimpleNamespace(req_id="a", block_ids=(blocks,), num_computed_tokens=0,
                                            tokens=request.num_tokens)
                drain = engine.worker._worker._drain
                engine.worker._worker._drain = set
                engine.step([new], dict(zip(blocks, request.block_hashes, strict=False)))
                engine.worker._worker._drain = drain
                for saving in engine.worker._worker.active:
                    for future in saving.futures:
                        future.wait()
                self.assertEqual(self.take(), [])
                self.assertTrue(engine.scheduler.reset_cache())
                engine.finish(request, blocks)
                self.assertEqual(self.take(), [fake_vllm.AllBlocksCleared()])
                self.assertEqual(list(engine.scheduler._scheduler.known), [])
                self.assert_run(Request("b", [1, 2]), 0)
                self.assert_run(Request("c", [1, 2]), 2)

    def test_none_is_asked_for(self) -> None:
        engine = self.open()
        self.assert_run(Request("a", [1, 2]), 0)
        self.assertTrue(engine.scheduler.reset_cache())
        self.assertEqual(self.take(), [])


class Detached(Case):
    """No device ever has an address in the KV cache: what hangs cannot touch it when its blocks are
    another's. (A device of the tests that hangs gives up at the deadline, and shows nothing.)"""

    def bounced(self) -> int:
        return int(self.engine.worker._worker.store.counters()["store.bounced"])

    def test_loads_and_saves(self) -> None:
        for load in ("async", "layerwise"):
            with self.subTest(load):
                self.open(load=load, salt=load)
                self.assert_run(Request("a", [1, 2, 3]), 0)
                saved = self.bounced()
                self.assertGreaterEqual(saved, LAYERS)  # a task each
                self.assert_run(Request("b", [1, 2, 3]), 3)
                self.assertGreaterEqual(self.bounced() - saved, 1 if load == "async" else LAYERS)


class Trouble(Case):
    def test_loads_that_fail(self) -> None:
        """Invalid blocks are told with the end of the load, and computed."""
        pipeline = f"fault(rule=\"load:EIO:1.0\") | flash(path={self.path}/kv, size=64MiB)"
        for apart in (False, True):
            engine = self.open(pipeline, apart=apart)
            engine.run(Request("a", [1, 2, 3]))
            request = Request("b", [1, 2, 3])
            external, blocks = engine.run(request)
            self.assertEqual(external, 0)
            self.assertTrue(engine.is_right(request, blocks))
            self.assertEqual(engine.match(Request("b", [1, 2, 3])), 3 * TOKENS)

    def test_saves_that_fail(self) -> None:
        self.open(f"fault(rule=\"dump:ENOSPC:1.0\") | flash(path={self.path}/kv, size=64MiB)")
        self.assert_run(Request("a", [1, 2, 3]), 0)
        self.assert_run(Request("b", [1, 2, 3]), 0)

    def test_a_device_that_hangs(self) -> None:
        """Loads and saves end by their deadline, and blocks are free then."""
        self.open(f"delay(hang=\"#1\") | flash(path={self.path}/kv, size=64MiB)", deadline=0.2)
        self.assert_run(Request("a", [1, 2, 3]), 0)

    def test_preempted(self) -> None:
        """Blocks of a preempted request are free when the step's forward begins."""
        engine = self.open(f"delay(write=200ms) | flash(path={self.path}/kv, size=64MiB)")
        request = Request("a", [1, 2, 3])
        self.assertEqual(engine.match(request), 0)
        blocks = engine.allocate(request, 0)
        new = types.SimpleNamespace(req_id="a", block_ids=(blocks,), num_computed_tokens=0,
                                    tokens=request.num_tokens)
        engine.step([new], dict(zip(blocks, request.block_hashes, strict=False)))
        engine.step(preempted={"a"})
        for saving in engine.worker._worker.active:
            self.assertTrue(all(future.released() for future in saving.futures))
        engine.finish(request, blocks)

    def test_reset_while_loading(self) -> None:
        """What is on its way in is not of after the reset: none of it counts."""
        for apart in (False, True):
            with self.subTest(apart=apart):
                engine = self.open(apart=apart)
                engine.run(Request("a", [1, 2, 3]))
                request = Request("b", [1, 2, 3])
                blocks = engine.allocate(request, engine.match(request))
                drain = engine.worker._worker._drain
                engine.worker._worker._drain = set  # it has ended, and was not looked at
                engine.step()
                engine.worker._worker.loads[0].futures[0].wait()
                self.assertTrue(engine.scheduler.reset_cache())
                engine.step()
                engine.worker._worker._drain = drain
                engine.until(lambda: "b" in engine.received)
                self.assertEqual(engine.invalid, set(blocks[:3]))
                engine.allocate_again(request, blocks)
                engine.finish(request, blocks)

    def test_aborted_while_loading(self) -> None:
        engine = self.open(f"delay(read=50ms) | flash(path={self.path}/kv, size=64MiB)")
        engine.run(Request("a", [1, 2, 3]))
        request = Request("b", [1, 2, 3])
        external = engine.match(request)
        blocks = engine.allocate(request, external)
        engine.step()
        request.over = True
        # Its load's end frees the blocks, and nothing else does.
        self.assertEqual(engine.scheduler.request_finished(request, blocks), (False, None))
        engine.until(lambda: "b" in engine.received)
        self.assertEqual(engine.scheduler._scheduler.requests, {})
        self.assertEqual(engine.scheduler._scheduler.loading, {})

    def test_one_load_of_a_prefix(self) -> None:
        """A second request waits for the first one's load, and is asked again when that ends."""
        engine = self.open(f"delay(read=50ms) | flash(path={self.path}/kv, size=64MiB)")
        engine.run(Request("a", [1, 2, 3]))
        first, second = Request("b", [1, 2, 3]), Request("c", [1, 2, 4])
        engine.allocate(first, engine.match(first))
        ask = engine.scheduler.get_num_new_matched_tokens
        self.assertEqual(ask(second, 0), (None, False))
        engine.until(lambda: "b" in engine.received)
        self.assertEqual(ask(second, 0), (2 * TOKENS, True))
        self.assertEqual(ask(second, 2 * TOKENS), (0, False))  # vLLM itself has them now


class Ranks(Case):
    """Two, each with a store of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.pipeline = f"flash(path={self.path}/{{rank}}, size=64MiB)"
        self.open(self.pipeline, world=2)
        self.assert_run(Request("a", [1, 2, 3, 4]), 0)

    def test_in_one_place(self) -> None:
        """Ranks may share a store, and do not meet in it."""
        self.open(f"posix(path={self.path}/all, shared=yes)", world=2)
        self.assert_run(Request("b", [1, 2, 3, 4]), 0)
        self.assert_run(Request("c", [1, 2, 3, 4]), 4)

    def lose(self, rank: int, request: Request, block: int) -> None:
        ns = self.engine.ranks[rank][0]._worker.ns
        ns.remove(ns.key(request.block_hashes[block])).check()

    def test_rounds(self) -> None:
        self.assertEqual(sorted(os.listdir(self.path)), ["0", "1"])
        self.assert_run(Request("b", [1, 2, 3, 4]), 4)
        self.open(self.pipeline, world=2)
        self.assert_run(Request("c", [1, 2, 3, 9]), 3)

    def test_the_shorter_prefix_counts(self) -> None:
        for rank in (0, 1):
            request = Request(f"b{rank}", [1, 2, 3, 4])
            self.lose(rank, request, 2)
            self.assert_run(request, 2)
            self.assert_run(Request(f"c{rank}", [1, 2, 3, 4]), 4)  # it was saved again

    def test_a_rank_that_has_not_answered(self) -> None:
        engine = self.engine
        for rank in (0, 1):
            request = Request(f"b{rank}", [1, 2, 3, 4])
            self.lose(rank, request, 3)
            engine.silent = {rank}
            for _ in range(3):
                self.assertEqual(engine.scheduler.get_num_new_matched_tokens(request, 0),
                                 (None, False))
                engine.step()
            engine.silent = set()
            self.assert_run(request, 3)

    def test_a_rank_that_never_answers(self) -> None:
        self.engine.silent = {1}
        request = Request("b", [1, 2, 3, 4])
        before = scheduler.ANSWER_SECONDS
        self.addCleanup(setattr, scheduler, "ANSWER_SECONDS", before)
        ask = self.engine.scheduler.get_num_new_matched_tokens
        self.assertEqual(ask(request, 0), (None, False))
        self.engine.step()
        self.assertEqual(ask(request, 0), (None, False))
        scheduler.ANSWER_SECONDS = 0.0  # type: ignore[misc]
        self.assertEqual(ask(request, 0), (0, False))


if __name__ == "__main__":
    unittest.main()
