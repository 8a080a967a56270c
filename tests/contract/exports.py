#!/usr/bin/env python3
"""exports.py SOURCE LIBRARY ARCHIVE: the public headers, src/cairn.map, libcairn.so and libcairn.a
name the same functions, and every function has a manual page."""

import os
import re
import subprocess
import sys

DECLARATION = re.compile(r"^CAIRN_API\b[^;{]*?(\w+)\(", re.M)
COMMENT = re.compile(r"/\*.*?\*/", re.S)


def read(*path):
    with open(os.path.join(*path), encoding="utf-8") as f:
        return f.read()


def declared(source):
    folder = os.path.join(source, "include/cairn")
    texts = [COMMENT.sub("", read(folder, name)) for name in os.listdir(folder)]
    return {name for text in texts for name in DECLARATION.findall(text)}


def mapped(source):
    exported = read(source, "src/cairn.map").split("global:")[1].split("local:")[0]
    return set(re.findall(r"(\w+);", exported))


def symbols(*command):
    """Names that nm prints, without the nodes of a version script and what a sanitizer adds."""
    out = subprocess.run(["nm", "--defined-only", *command], check=True, capture_output=True,
                         text=True).stdout
    rows = [line.split() for line in out.splitlines()]
    return {row[2].split("@")[0] for row in rows if len(row) == 3 and row[1] in "TDBRVWiGSC"}


def pages(source):
    """What man/meson.build links to a page, and the pages themselves."""
    linked = re.findall(r"'(cairn_\w+)'", read(source, "man/meson.build"))
    return set(linked) | {n[:-2] for n in os.listdir(os.path.join(source, "man"))}


def main(source, library, archive):
    public = declared(source)
    sides = {"src/cairn.map": mapped(source),
             "libcairn.so": symbols("-D", library) - {"CAIRN_0"},
             "libcairn.a": symbols("-g", archive)}
    bad = []
    for side, names in sides.items():
        bad += [f"{side} lacks {name}, which include/cairn/ declares" for name in public - names]
        bad += [f"{side} has {name}, which include/cairn/ does not declare"
                for name in names - public]
    bad += [f"man/ has no page for {name}: write one, or link it in man/meson.build"
            for name in public - pages(source)]
    for line in sorted(bad):
        print("error:", line)
    print(f"exports: {len(public)} public functions, {len(bad)} differences")
    return 1 if bad or not public else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
