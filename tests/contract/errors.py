#!/usr/bin/env python3
"""errors.py SOURCE: the error codes that the headers' contract comments name for a function are
those of its manual page, and the table in error.h is that of cairn_store_open(3) and
cairn_strerror()."""

import os
import re
import sys

CODE = re.compile(r"-(E[A-Z]{2,})\b")
DECLARATION = re.compile(r"/\*((?:(?!\*/).)*)\*/\s*((?:CAIRN_API[^;]*;\s*)+)", re.S)
NAME = re.compile(r"(\w+)\(")
EVERYWHERE = {"EOWNERDEAD"}  # store.h says so once, for all calls


def read(*path):
    with open(os.path.join(*path), encoding="utf-8") as f:
        return f.read()


def declared(source):
    """Function -> the codes of the comment above it."""
    functions = {}
    folder = os.path.join(source, "include/cairn")
    for name in sorted(os.listdir(folder)):
        for comment, declarations in DECLARATION.findall(read(folder, name)):
            for declaration in re.findall(r"CAIRN_API[^;]*;", declarations):
                function = NAME.search(declaration)
                if function:
                    functions[function.group(1)] = set(CODE.findall(comment))
    return functions


def pages(source):
    """Page -> its functions, and the codes it names."""
    found = {}
    for name in os.listdir(os.path.join(source, "man")):
        if name.endswith(".3"):
            text = read(source, "man", name)
            functions = re.findall(r"^\.Nm (cairn_\w+)", text, re.M)
            found[name] = functions, {c for c in re.findall(r"^\.(?:It )?Er -(\w+)", text, re.M)}
    return found


def tables(source):
    """The three lists of all codes."""
    header = read(source, "include/cairn/error.h").split("#ifndef")[0]
    yield "error.h", set(re.findall(r"^ \*   -(E\w+)  ", header, re.M))
    page = read(source, "man/cairn_store_open.3").split(".Sh ERRORS")[1]
    yield "cairn_store_open(3)", set(re.findall(r"^\.It Er -(\w+)", page, re.M))
    yield "cairn_strerror()", set(re.findall(r"\{-(E\w+), \"", read(source, "src/core/error.c")))


def differences(source):
    functions = declared(source)
    (first, codes), *others = tables(source)
    for name, other in others:
        for code in sorted(codes ^ other):
            yield f"-{code} is in {first if code in codes else name} alone: not in both it and " \
                  f"{name if code in codes else first}"
    for page, (names, told) in sorted(pages(source).items()):
        said = set()
        for name in names:
            for code in sorted(functions[name] - told):
                yield f"{page} lacks -{code}, which the header says of {name}()"
            said |= functions[name]
        if page != "cairn_store_open.3":  # that one has them all
            for code in sorted(told - said - EVERYWHERE):
                yield f"{page} has -{code}, which the header says of none of its functions"
    for name, said in sorted(functions.items()):
        for code in sorted(said - codes):
            yield f"error.h lacks -{code}, which its header says of {name}()"


def main(source):
    bad = list(differences(source))
    for line in bad:
        print("error:", line)
    print(f"errors: {len(declared(source))} functions, {len(bad)} differences")
    return 1 if bad or not declared(source) else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
