# SPDX-License-Identifier: Apache-2.0
"""Which weights these are: a text that changes with them, and that a restart finds again.

A name of the hub is of whatever its repository holds at the moment: its commit says what that was.
What a text cannot be found for is nobody's guess: the caller refuses it, or takes it for new.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import Any, Final

ENDINGS: Final = (".safetensors", ".bin", ".pt", ".gguf", ".json")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


def files_of(path: str) -> str:
    """A folder's weights, or a file of them, by name, size and time of change."""
    folder, names = os.path.split(path)[0], [os.path.basename(path)]
    if os.path.isdir(path):
        folder, names = path, [name for name in os.listdir(path) if name.endswith(ENDINGS)]
    told = hashlib.sha256()
    for name in sorted(names):
        stat = os.stat(os.path.join(folder, name))
        told.update(f"{name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return "files " + told.hexdigest()[:32]


def _from_modelscope() -> bool:
    """vLLM's own switch: names are of another hub then, which says nothing of commits."""
    return os.getenv("VLLM_USE_MODELSCOPE", "").lower() in ("true", "1")


def revision_of(name: str, asked: Any, config: Any = None) -> str | None:
    """Of a model of that name, with the revision that vLLM was asked for; None: not known."""
    if os.path.exists(name):
        return files_of(name)
    if _from_modelscope():
        return None
    # vLLM asks the hub once and pins that; of older ones the configuration knows.
    commit = getattr(asked, "resolved", None) or getattr(config, "_commit_hash", None)
    if commit is None and _COMMIT.fullmatch(str(asked)):
        commit = str(asked)
    if commit is None:
        from transformers.utils.hub import cached_file, extract_commit_hash

        try:  # what is in the cache by now is what was loaded
            path = cached_file(name, "config.json", revision=asked, local_files_only=True)
        except Exception:
            return None
        commit = extract_commit_hash(path, None)
    return None if commit is None else str(commit)


def revision_served(name: str) -> str | None:
    """The same where vLLM tells no revision: of a name of the hub the commit in its cache, if that
    has one alone, for this one was loaded then; None: not known."""
    if os.path.exists(name):
        return files_of(name)
    if _from_modelscope():
        return None
    from huggingface_hub import constants

    folder = os.path.join(constants.HF_HUB_CACHE, "models--" + name.replace("/", "--"), "snapshots")
    commits = os.listdir(folder) if os.path.isdir(folder) else []
    return commits[0] if len(commits) == 1 and _COMMIT.fullmatch(commits[0]) else None


def adapter(name: str, path: str) -> bytes:
    """Of an adapter, found where vLLM's workers find it: a path, ~/ or a name of the hub, which is
    asked. What is no folder then gets a text that is never given again."""
    told = hashlib.sha256(f"{name}\n{path}\n".encode())
    try:
        from vllm.lora.utils import get_adapter_absolute_path

        folder = get_adapter_absolute_path(path)
        told.update(files_of(folder).encode() if os.path.isdir(folder) else os.urandom(16))
    except Exception:  # of the hub's, or of a folder that goes; the request ends by the worker's
        told.update(os.urandom(16))
    return b"lora" + told.digest()[:16]
