# SPDX-License-Identifier: Apache-2.0
"""Reads the text format 0.0.4 of Prometheus, and says what its rules and conventions forbid.

The rules are those of `promtool check metrics`, and of the pages "Exposition formats" and "Metric
and label naming" of Prometheus' documentation:

 1. a line is empty, a comment, or `name{label="value",...} value` without a timestamp; the last
    one ends with a newline; values are Go's floats;
 2. HELP and TYPE come once each, before the first sample of their metric, and are not empty;
 3. all lines of a metric stand together, and no two samples have the same name and labels;
 4. names are of small letters, digits and _, with one prefix; no type, and no unit that is not a
    base unit (seconds, bytes), is part of them; a unit comes last, but for _total and _info;
 5. what only rises ends with _total, nothing else does; only histograms end with _bucket, _sum or
    _count and have the label le;
 6. a histogram's buckets rise and are cumulative, end with +Inf, which is its _count, and it has a
    _sum, for each set of its other labels.
"""

import re

SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
VALUE = re.compile(r"[+-]?(?:\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|Inf)|NaN")
BASE = ("seconds", "bytes")
NOT_BASE = """ms us ns s sec milliseconds microseconds nanoseconds minutes hours kib mib
    gib kb mb gb kilobytes megabytes bits percent counter gauge histogram summary""".split()


def labels_of(text, bad, line):
    labels, at = {}, 0
    while at < len(text):
        found = LABEL.match(text, at)
        if not found:
            bad.append(f"labels: {line}")
            return labels
        if found.group(1) in labels:
            bad.append(f"a label twice: {line}")
        labels[found.group(1)] = found.group(2)
        at = found.end()
    return labels


def check_name(name, kind, bad):
    words = name.split("_")
    if not re.fullmatch(r"cairn_[a-z0-9_]+", name):
        bad.append(f"name: {name}")
    if set(words) & set(NOT_BASE):
        bad.append(f"no base unit, or a type, in the name: {name}")
    if (kind == "counter") != name.endswith("_total"):
        bad.append(f"{kind}: {name}")
    unit = [w for w in words if w in BASE]
    if unit and words[-2 if words[-1] == "total" else -1] != unit[-1]:
        bad.append(f"the unit is not last: {name}")
    if re.search(r"_(bucket|sum|count)$", name):
        bad.append(f"the ending is of histograms: {name}")


def check_histogram(name, samples, bad):
    series = {}
    for sample, labels, value in samples:
        rest = tuple(sorted((k, v) for k, v in labels.items() if k != "le"))
        part = series.setdefault(rest, {"_bucket": [], "_sum": [], "_count": []})
        if sample[len(name):] not in part:
            bad.append(f"{sample} is no part of a histogram")
            continue
        part[sample[len(name):]].append((labels.get("le"), value))
    for rest, part in series.items():
        bounds = [float(le) for le, _ in part["_bucket"] if le is not None]
        counts = [value for _, value in part["_bucket"]]
        if len(bounds) != len(counts) or bounds != sorted(set(bounds)) or counts != sorted(counts):
            bad.append(f"{name} {rest}: buckets do not rise")
        if not bounds or bounds[-1] != float("inf") or len(part["_sum"]) != 1 or \
                [v for _, v in part["_count"]] != counts[-1:]:
            bad.append(f"{name} {rest}: no +Inf, _sum or _count, or not the same")


def parse(text):
    """{metric: (type, help, [(sample name, labels, value)])} and what is wrong."""
    metrics, bad, seen, current = {}, [], set(), None
    if not text.endswith("\n"):
        bad.append("the last line has no end")
    for line in text.splitlines():
        if not line or (line[0] == "#" and line[1:6] not in (" HELP", " TYPE")):
            continue
        if line[0] == "#":
            _, word, name, rest = (line.split(" ", 3) + [""])[:4]
            if name != current and name in metrics:
                bad.append(f"not together: {name}")
            kind, about, samples = metrics.get(name, ("", "", []))
            if samples or not rest or (kind if word == "TYPE" else about):
                bad.append(f"{word} late, empty or twice: {name}")
            metrics[name] = (rest, about, samples) if word == "TYPE" else (kind, rest, samples)
            current = name
            continue
        found = SAMPLE.fullmatch(line)
        if not found or not VALUE.fullmatch(found.group(3)):
            bad.append(f"no sample: {line}")
            continue
        labels = labels_of(found.group(2) or "", bad, line)
        key = (found.group(1), tuple(sorted(labels.items())))
        base = found.group(1)
        if metrics.get(current, ("",))[0] == "histogram":
            base = re.sub(r"_(bucket|sum|count)$", "", base)
        elif "le" in labels or "quantile" in labels:
            bad.append(f"le or quantile: {line}")
        if key in seen or base != current or not metrics[current][0] or not metrics[current][1]:
            bad.append(f"twice, not together, or without HELP and TYPE: {line}")
        seen.add(key)
        metrics.setdefault(current, ("", "", []))[2].append(
            (found.group(1), labels, float(found.group(3))))
    return metrics, bad


def check(text):
    """The metrics, and what breaks a rule: an empty list for a page that is right."""
    metrics, bad = parse(text)
    for name, (kind, _, samples) in metrics.items():
        check_name(name, kind, bad)
        if not samples:
            bad.append(f"no samples: {name}")
        if kind == "histogram":
            check_histogram(name, samples, bad)
        elif kind not in ("counter", "gauge"):
            bad.append(f"type {kind}: {name}")
    return metrics, bad


def value(metrics, name, **labels):
    """Of the one sample of that name that has these labels, and maybe others."""
    metric = metrics.get(name) or metrics[re.sub(r"_(bucket|sum|count)$", "", name)]
    found = [v for sample, have, v in metric[2]
             if sample == name and labels.items() <= have.items()]
    assert len(found) == 1, (name, labels, found)
    return found[0]
