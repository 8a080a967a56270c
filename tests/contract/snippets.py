#!/usr/bin/env python3
"""snippets.py SOURCE BUILD COMPILER...: the ```c blocks of README.md and docs/ compile against the
public headers. One with a main() is a program: it is linked, run, and ends with status 0; another
stands at file scope or inside a function."""

import glob
import os
import re
import subprocess
import sys
import tempfile

BLOCK = re.compile(r"^```c\n(.*?)^```$", re.M | re.S)
HEADERS = ("errno.h", "inttypes.h", "stdbool.h", "stdio.h", "stdlib.h", "string.h",
           "cairn/error.h", "cairn/store.h", "cairn/task.h", "cairn/stage.h")
PRELUDE = "".join(f"#include <{h}>\n" for h in HEADERS)
FLAGS = ["-std=gnu17", "-Wall", "-Wextra", "-Werror", "-Wno-unused-variable",
         "-Wno-unused-function", "-Wno-unused-parameter", "-Wno-unused-but-set-variable"]


def blocks(source):
    paths = [os.path.join(source, "README.md"), *glob.glob(os.path.join(source, "docs/*.md"))]
    for path in sorted(paths):
        with open(path, encoding="utf-8") as f:
            text = f.read()
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start(1)) + 1
            yield os.path.relpath(path, source), line, match.group(1)


def compiles(compiler, arguments, text, run=False):
    """The compiler's run, or where that went well and @run is asked, the program's."""
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "snippet.c")
        with open(file, "w", encoding="utf-8") as f:
            f.write(text)
        program = os.path.join(folder, "snippet")
        command = [*compiler, *FLAGS, file, "-o", program, *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        if run and done.returncode == 0:
            done = subprocess.run([program], capture_output=True, text=True, timeout=60)
        return done


def attempt(compiler, source, build, path, line, text):
    """None, or what the compiler said."""
    include = "-I" + os.path.join(source, "include")
    place = f'#line {line} "{path}"\n'
    if re.search(r"^int main\(", text, re.M):
        link = [include, "-L" + build, "-Wl,-rpath," + build, "-lcairn"]
        done = compiles(compiler, link, place + text, run=True)
        return done.stdout + done.stderr if done.returncode else None
    said = ""
    for before, after in (("", ""), ("void snippet(void);\nvoid snippet(void)\n{\n", "}\n")):
        done = compiles(compiler, [include, "-c"], PRELUDE + before + place + text + after)
        if done.returncode == 0:
            return None
        said += done.stderr
    return said


def main(source, build, *compiler):
    count = bad = 0
    for path, line, text in blocks(source):
        count += 1
        said = attempt(compiler, source, build, path, line, text)
        if said is not None:
            bad += 1
            print(f"error: {path}:{line}: this block fails\n{said}")
    print(f"snippets: {count} blocks, {bad} that fail")
    return 1 if bad or not count else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
