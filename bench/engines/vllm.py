#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The connector's figures in the real vLLM, on the CPU: one engine in this process.

    PYTHONPATH=build/python ~/.cache/cairn/engines/vllm/bin/python bench/engines/vllm.py

The model is a random Llama, float32: "small" of 12 layers, hidden 768, 4 of 12 heads for keys and
values (some 80 M parameters), or "tiny" of 4 layers, hidden 256; blocks of 32 tokens. Printed as
JSON:

  step   CPU time in the connector's methods a step of 64 requests that decode, microseconds: in
         the scheduler's thread and in the model runner's (here one and the same), by wrapping each.
         `clock_us`, what as many calls of an empty method take by the same clock, is taken off
  ttft   CPU time (all threads of the process) of a request of 2,048 shared tokens and 7 of its
         own up to its first token, when the prefix is in the store and vLLM's own cache is empty,
         against the same request computed in full, in turns; the median of the pairs' ratios with
         its 90 % interval
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
HERE = os.path.dirname(os.path.abspath(__file__))
# Not this folder, in which a file is named as the package.
sys.path[:1] = [os.path.join(HERE, "../../python/tests/engines/vllm")]

SCHEDULER = (
    "get_num_new_matched_tokens", "update_state_after_alloc", "build_connector_meta",
    "update_connector_output", "request_finished_all_groups", "take_events",
    "has_pending_push_work",
)
WORKER = (
    "handle_preemptions", "bind_connector_metadata", "start_load_kv", "has_connector_metadata",
    "wait_for_layer_load", "save_kv_layer", "wait_for_save", "get_finished",
    "get_block_ids_with_load_errors",
    "build_connector_worker_meta",
)


class Clock:
    """Adds up the time in some methods of an object."""

    def __init__(self, thing: Any, names: tuple[str, ...]) -> None:
        self.spent = 0
        self.calls = 0
        self.empty = self._timed(lambda *args, **kwargs: None)
        for name in (*names, "get_kv_connector_stats"):
            setattr(thing, name, self._timed(getattr(thing, name)))

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            time.thread_time_ns()  # so that the clock is in the cache; the method is not
            start = time.thread_time_ns()
            try:
                return method(*args, **kwargs)
            finally:
                self.spent += time.thread_time_ns() - start
                self.calls += 1

        return timed

    def take(self) -> tuple[float, float]:
        """Microseconds of CPU since the last call, without the clock's own; the clock's."""
        spent, calls = self.spent, self.calls
        self.spent = 0
        for _ in range(calls):
            self.empty("layer")
        own = self.spent
        self.spent = self.calls = 0
        return (spent - own) / 1000, own / 1000


def interval(values: list[float]) -> list[float]:
    """[median, low, high]: the order statistics that hold the median with 90 %."""
    import math

    values = sorted(values)
    count, below, low = len(values), 0.0, 0
    for i in range(count // 2):
        below += math.comb(count, i) / 2**count
        if below > 0.05:
            break
        low = i
    return [round(x, 4) for x in (statistics.median(values), values[low], values[-1 - low])]


def steps(llm: Any, harness: Any) -> dict[str, Any]:
    from vllm import SamplingParams
    from vllm.distributed.kv_transfer import get_kv_transfer_group

    core = llm.llm_engine.engine_core.engine_core
    clocks = (Clock(core.scheduler.connector, SCHEDULER), Clock(get_kv_transfer_group(), WORKER))
    params = SamplingParams(temperature=0.0, max_tokens=100, ignore_eos=True, detokenize=False)
    for i in range(64):
        llm.llm_engine.add_request(
            str(i), {"prompt_token_ids": harness.prompt(1000 + i, 33)}, params
        )
    rows: list[tuple[float, float]] = []
    own: list[float] = []
    while llm.llm_engine.has_unfinished_requests():
        for clock in clocks:
            clock.take()
        llm.llm_engine.step()
        taken = [clock.take() for clock in clocks]
        if len(core.scheduler.running) == 64:
            rows.append((taken[0][0], taken[1][0]))
            own.append(taken[0][1] + taken[1][1])
    harness.settle(llm)
    both = sorted(a + b for a, b in rows)
    return {
        "steps": len(rows),
        "clock_us": round(statistics.median(own), 1),
        "scheduler_us_median": round(statistics.median(a for a, _ in rows), 1),
        "worker_us_median": round(statistics.median(b for _, b in rows), 1),
        "both_us": {"median": round(statistics.median(both), 1),
                    "mean": round(statistics.mean(both), 1),
                    "p99": round(both[len(both) * 99 // 100], 1)},
    }


def ttft(llm: Any, harness: Any, pairs: int) -> dict[str, Any]:
    from vllm import SamplingParams

    def once(tokens: list[int], fresh: bool) -> tuple[float, float, int]:
        harness.reset(llm)
        params = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True, detokenize=False,
                                skip_reading_prefix_cache=fresh)
        wall, cpu = time.perf_counter(), time.process_time()
        (out,) = llm.generate([{"prompt_token_ids": tokens}], params, use_tqdm=False)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return cpu, wall, out.outputs[0].token_ids[0]

    shared = harness.prompt(5, 2048)
    once([*shared, *harness.prompt(6, 7)], True)  # saves it
    once([*shared, *harness.prompt(6, 7)], False)
    ratios, walls, hits, computed = [], [], [], []
    for i in range(pairs):
        tokens = [*shared, *harness.prompt(50 + i, 7)]
        runs = {}
        for fresh in (True, False) if i % 2 else (False, True):
            runs[fresh] = once(tokens, fresh)
        assert runs[True][2] == runs[False][2], "tokens differ"
        ratios.append(runs[False][0] / runs[True][0])
        walls.append(runs[False][1] / runs[True][1])
        hits.append(runs[False][0])
        computed.append(runs[True][0])
    return {
        "pairs": pairs, "cpu_ratio": interval(ratios), "wall_ratio": interval(walls),
        "hit_cpu_ms": round(1000 * statistics.median(hits), 1),
        "computed_cpu_ms": round(1000 * statistics.median(computed), 1),
        "external_hits": harness.metric(llm, "vllm:external_prefix_cache_hits"),
    }


def main() -> None:
    import harness

    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--model", default="small", choices=sorted(harness.SIZES))
    parser.add_argument("--dir", help="where the store is; default: a temporary folder")
    args = parser.parse_args()
    here = harness.folder()
    model = harness.make_model(here / "model", args.model)
    where = os.path.join(args.dir or str(here), "kv")
    llm = harness.engine(model, f"flash(path={where}, size=1GiB)", max_num_seqs=64)
    result: dict[str, Any] = {"model": args.model, "ttft": ttft(llm, harness, args.pairs)}
    result["step"] = steps(llm, harness)
    print(json.dumps(result, indent=1))
    harness.close(llm)
    if args.dir:
        os.unlink(where)


if __name__ == "__main__":
    main()
