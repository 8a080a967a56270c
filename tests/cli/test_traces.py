#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The main job on the two request traces of bench/README.md: argv[1] is the program, argv[2] the
folder where they are unless CAIRN_TRACES names another. Ends with 77, skipped, without them."""

import json
import os
import subprocess
import sys
import tempfile

# Leading hits and references of blocks, of a store that keeps everything.
HITS = {"conversation": (105710, 288500), "synthetic": (77953, 121877)}


def replay(program, trace):
    with tempfile.TemporaryDirectory() as folder:
        # hits do not depend on how large blocks are: small ones take less of the disk
        run = subprocess.run([program, "replay", f'posix(path="{folder}/kv")', "--trace", trace,
                              "--block", "4KiB", "--json"], stdout=subprocess.PIPE, check=False)
    return run.returncode, json.loads(run.stdout or "{}")


def main():
    program, folder = sys.argv[1], os.environ.get("CAIRN_TRACES") or sys.argv[2]
    paths = {name: os.path.join(folder, f"{name}_trace.jsonl.gz") for name in HITS}
    if not all(os.path.exists(path) for path in paths.values()):
        print(f"skipped: not both traces are in {folder}", file=sys.stderr)
        return 77
    bad = 0
    for name, path in paths.items():
        status, r = replay(program, path)
        got = [r.get(k) for k in ("blocks_hit", "blocks", "wrong_bytes", "damaged", "failed_xfers")]
        if status or got != [*HITS[name], 0, 0, 0]:
            print(f"{name}: status {status}, {got}, not {HITS[name]} and nothing wrong: {r}",
                  file=sys.stderr)
            bad = 1
    return bad


if __name__ == "__main__":
    sys.exit(main())
