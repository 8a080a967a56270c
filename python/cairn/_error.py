# SPDX-License-Identifier: Apache-2.0
"""The error that every call of this package raises for what is not an argument's."""


class CairnError(OSError):
    """What cairn answers: `errno` has one meaning each (ENOENT absent, EBADMSG a checksum, EAGAIN
    no task slot now, ETIMEDOUT, EINVAL, EIO, ENOSPC, EBUSY, ECANCELED closed, EOWNERDEAD a child
    after a fork, ...), and str() is one line that says what was wrong and what would be right.
    `line` and `column`, from 1, say where in a pipeline's text; 0: nowhere."""

    line: int
    column: int

    def __init__(self, errno: int, text: str, line: int = 0, column: int = 0) -> None:
        super().__init__(errno, text)
        self.line = line
        self.column = column

    def __new__(cls, errno: int, text: str, line: int = 0, column: int = 0) -> "CairnError":
        return super().__new__(cls, errno, text)

    @property
    def code(self) -> int:
        """The negative errno."""
        return -(self.errno or 0)

    def __str__(self) -> str:
        return self.strerror or ""
