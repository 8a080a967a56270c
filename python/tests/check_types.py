# SPDX-License-Identifier: Apache-2.0
"""check_types.py SOURCE BUILD: mypy --strict over the package and its tests, by a version that is
fixed, in an environment of its own in the build folder. Skipped where that cannot be had."""

import glob
import os
import subprocess
import sys
import venv

MYPY = "mypy==1.13.0"
SKIPPED = 77  # for meson


def have_mypy(folder: str) -> str:
    """The path of the program; an empty text: it cannot be had."""
    program = os.path.join(folder, "bin", "mypy")
    if os.path.exists(program):
        return program
    try:
        venv.create(folder, with_pip=True)
        subprocess.run([os.path.join(folder, "bin", "pip"), "install", "--quiet", MYPY],
                       check=True, timeout=200)
    except (OSError, subprocess.SubprocessError, SystemExit) as error:  # Debian's venv exits
        print(f"skipped: {MYPY} cannot be had: {error}")
        return ""
    return program


def main(source: str, build: str) -> int:
    program = have_mypy(os.path.join(build, "mypy"))
    if not program:
        return SKIPPED
    python = os.path.join(source, "python")
    tests = os.path.join(python, "tests")
    package = os.path.join(python, "cairn")
    files = [path for folder in (package, os.path.join(package, "vllm"), tests)
             for pattern in ("*.py", "*.pyi") for path in sorted(glob.glob(f"{folder}/{pattern}"))]
    environment = dict(os.environ, MYPYPATH=f"{python}:{tests}")
    return subprocess.run(
        [program, "--config-file", os.path.join(python, "mypy.ini"), "--cache-dir",
         os.path.join(build, "mypy", "cache"), *files],
        env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
