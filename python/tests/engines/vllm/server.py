# SPDX-License-Identifier: Apache-2.0
"""vLLM's OpenAI server in a process of its own, and bursts of requests to it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness

START_SECONDS = 300  # the most that a start takes


@dataclass
class Answer:
    tokens: list[int]
    first: float  # seconds to the first token
    cached: int  # tokens of the prompt that were not computed, wherever they came from


def make_tokenizer(path: Path) -> None:
    """A word for each token: the server does not start without one."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(harness.VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="w1", eos_token="w2", unk_token="w0"
    ).save_pretrained(path)


class Server:
    def __init__(self, model: str, pipeline: str | None, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.base = f"http://127.0.0.1:{port}"
        self.log = log
        command = [
            sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model,
            "--served-model-name", "m", "--host", "127.0.0.1", "--port", str(port),
            "--dtype", "float32", "--max-model-len", "4096", "--seed", "0", "--enforce-eager",
            "--block-size", str(harness.BLOCK), "--max-num-batched-tokens", "1024",
            "--max-num-seqs", "64", "--enable-prompt-tokens-details",
        ]
        config = harness.connector_config(pipeline)
        if config is not None:
            command += ["--kv-transfer-config", json.dumps(config)]
        # A session of its own: its engine and worker end with it.
        with open(log, "w") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, "VLLM_SERVER_DEV_MODE": "1"},
            )
        self._await()

    def _await(self) -> None:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            try:
                self.get("/health")
                return
            except OSError:
                time.sleep(0.25)
        text = self.log.read_text()[-3000:]
        self.close()
        raise AssertionError(f"the server did not start:\n{text}")

    def close(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(30)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.base + path, timeout=60) as reply:
            return str(reply.read().decode())

    def reset(self) -> None:
        """Empties vLLM's own prefix cache, as soon as no block is in use."""
        request = urllib.request.Request(self.base + "/reset_prefix_cache", method="POST")
        with urllib.request.urlopen(request, timeout=60) as reply:
            assert reply.status == 200

    def metric(self, name: str) -> int:
        """The sum of a counter over its labels."""
        found = re.findall(rf"^{name}(?:_total)?(?:{{[^}}]*}})? (\S+)$", self.get("/metrics"), re.M)
        return int(sum(float(value) for value in found))

    def burst(self, prompts: list[list[int]], count: int = 8) -> list[Answer]:
        """All of them at once; in the order of the prompts."""
        return asyncio.run(self._burst(prompts, count))

    async def _burst(self, prompts: list[list[int]], count: int) -> list[Answer]:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=600)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            return list(
                await asyncio.gather(*(self._one(session, one, count) for one in prompts))
            )

    async def _one(self, session: Any, prompt: list[int], count: int) -> Answer:
        body = {
            "model": "m", "prompt": prompt, "max_tokens": count, "temperature": 0.0,
            "ignore_eos": True, "stream": True, "return_token_ids": True,
            "stream_options": {"include_usage": True},
        }
        answer = Answer([], 0.0, 0)
        started = time.perf_counter()
        async with session.post(self.base + "/v1/completions", json=body) as reply:
            assert reply.status == 200, await reply.text()
            async for raw in reply.content:
                line = raw.decode().strip()
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line[6:])
                for choice in chunk["choices"]:
                    tokens = choice.get("token_ids") or []
                    if tokens and not answer.tokens:
                        answer.first = time.perf_counter() - started
                    answer.tokens += tokens
                details = (chunk.get("usage") or {}).get("prompt_tokens_details") or {}
                answer.cached = details.get("cached_tokens") or answer.cached
        return answer
