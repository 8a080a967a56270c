# SPDX-License-Identifier: Apache-2.0
"""cairn, or python -m cairn: the program that this package carries."""

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def main() -> None:
    program = os.path.join(_HERE, "bin", "cairn")
    os.execv(program, [program, *sys.argv[1:]])


if __name__ == "__main__":
    main()
