#!/usr/bin/env python3
"""counters.py SOURCE: every counter that the library has is in the section COUNTERS of
cairn-stat(1) with its unit and a sentence, under its stage and in the order of the rows, and
nothing else is; every member of struct cairn_stat is in cairn_stat(3)."""

import glob
import os
import re
import sys

TABLE = re.compile(r"struct cairn_counter_row \w+\[\w*\] = \{\n(.*?)\n\};", re.S)
ROW = re.compile(r"\{\"(\w+)\",\s*((?:\"[^\"]*\"\s*)+),\s*([01])\}")
ITEM = re.compile(r"\.It Va (\w+) Pq (.+)\n((?!\.It|\.El).+)")
MEMBER = re.compile(r"(\w+)(?:\[\w+\])?;")


def read(*path):
    with open(os.path.join(*path), encoding="utf-8") as f:
        return f.read()


def rows_of(path):
    """What the tables of one file have: name and whether it is a gauge."""
    found = []
    for table in TABLE.findall(read(path)):
        rows = ROW.findall(table)
        # A row that is written in another way must not go unseen.
        if len(rows) != table.count("{"):
            raise SystemExit(f"error: {path}: counter rows that this test cannot read")
        found += [(name, gauge == "1") for name, _, gauge in rows]
    return found


def counted(source):
    """Stage -> its rows."""
    stages = {"store": rows_of(os.path.join(source, "src/core/settings.c"))}
    for path in sorted(glob.glob(os.path.join(source, "src/stages/*/*.c"))):
        rows = rows_of(path)
        if rows:
            stages.setdefault(os.path.basename(os.path.dirname(path)), []).extend(rows)
    return stages


def told(source):
    """Stage -> what the page says."""
    section = read(source, "man/cairn-stat.1").split(".Sh COUNTERS\n")[1].split("\n.Sh ")[0]
    stages = {}
    for part in section.split("\n.Ss ")[1:]:
        name, text = part.split("\n", 1)
        stages[name] = [(counter, unit.replace('"', "").startswith("gauge, "))
                        for counter, unit, _ in ITEM.findall(text)]
        if len(stages[name]) != text.count("\n.It "):
            raise SystemExit(f"error: cairn-stat(1), {name}: a counter without unit or sentence")
    return stages


def differences(source):
    code, page = counted(source), told(source)
    for stage in sorted(code.keys() | page.keys()):
        here, there = code.get(stage, []), page.get(stage, [])
        for name, gauge in here:
            if (name, not gauge) in there:
                yield f"cairn-stat(1), {stage}: {name} is {'a' if gauge else 'no'} gauge"
            elif (name, gauge) not in there:
                yield f"cairn-stat(1) has no line for the counter {name} of {stage}"
        for name in sorted({name for name, _ in there} - {name for name, _ in here}):
            yield f"cairn-stat(1), {stage}: there is no counter {name}"
        if sorted(here) == sorted(there) and here != there:
            yield f"cairn-stat(1), {stage}: not in the order of the rows"
    struct = re.search(r"struct cairn_stat \{\n(.*?)\n\};", read(source, "include/cairn/store.h"),
                       re.S).group(1)
    said = set(re.findall(r"^\.(?:It )?Va (\w+)", read(source, "man/cairn_stat.3"), re.M))
    for name in MEMBER.findall(re.sub(r"/\*.*?\*/", "", struct, flags=re.S)):
        if name not in said:
            yield f"cairn_stat(3) does not tell of {name}"


def main(source):
    bad = list(differences(source))
    for line in bad:
        print("error:", line)
    count = sum(len(rows) for rows in counted(source).values())
    print(f"counters: {count} in {len(counted(source))} tables, {len(bad)} differences")
    return 1 if bad or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
