"""The rows of the group `cache`, of figures.py, which gives itself to add()."""

import os

LOOKUPS = ((15000, "15 K", 20), (1000000, "1 M", 25), (10000000, "10 M", 30))
# Leading hits of an exact LRU of so many blocks.
LRU_HITS = {("conversation", 5859): 39101, ("conversation", 19531): 82273,
            ("synthetic", 5859): 37703, ("synthetic", 19531): 69042}


def lookup(f, fill, words, most):
    @f.row(f"cache-lookup-{words.replace(' ', '').lower()}",
           f"cache, lookup_prefix of 1000 hits among {words} blocks of 256 bytes, p50",
           f.Target("<=", most, "us", 1), group="cache", slow=fill > LOOKUPS[0][0])
    def measure(b):
        blocks = max(1000, fill // 100) if b.quick else fill
        mib = max(96, blocks * 640 // (f.KIB * f.KIB))
        # Of some hundred thousand blocks one finds its buckets full; with room it does not.
        r = b.cairn("bench", f"cache(size={mib}MiB, entries={2 * blocks})", "--op", "lookup",
                    "--block", 256, "--count", 1000, "--fill", blocks, "--pairs", b.pairs)
        return f.Figure([run["p50_us"] for run in r["runs"]], digits=1)


def at_rest(f):
    def rest(b):
        return b.once("cache-rest", lambda: b.run(b.program("bench", "at_rest"),
                                                  "cache(size=16GiB)", 0, 1000))

    @f.row("cache-open", "cache, open of a region of 16 GiB", f.Target("<=", 20, "ms", 1),
           group="cache")
    def opening(b):
        return f.Figure(rest(b)["open_ms"], digits=1)

    @f.row("cache-idle", "cache, idle", f.Target("<=", 0, "core"), group="cache")
    def idle(b):
        r = rest(b)
        more = f"at most {max(r['idle_cores']):.4f}; {r['threads']} threads with the caller's"
        return f.Figure([round(cores, 2) for cores in r["idle_cores"]], more=more)


def through(f, op, size, words, block, registered="yes"):
    more = ["--registered", registered]
    if op == "dump":
        more += ["--durability", "written"]
    short, memory = ("", "") if registered == "yes" else ("-copied", ", not registered")

    @f.row(f"cache-{op}-{size}{short}",
           f"{op} {words} through cache | flash, depth 32{memory}, against flash alone",
           f.Target(">=", 0.95 if op == "dump" else 0.97), group="cache")
    def measure(b):
        # Too small to hold what a run moves: each load comes from below.
        spec = b.flash("uring").replace("| flash", "| cache(size=64MiB) | flash")
        ours = f.Turns(b, spec, op, block, b.bytes // 2, "--depth", 32, *more)
        alone = f.Turns(b, b.flash(), op, block, b.bytes // 2, "--depth", 32, *more)
        return f.turns_figure(b, ours, alone)


def lone_shards(f):
    @f.row("cache-dump-shards", "one block of 16 MiB in 64 shards at a time, dumped through cache "
           "| flash, against flash alone", f.Target(">=", 0.95), group="cache")
    def measure(b):
        block = 16 << 20
        ours, alone = (f.Turns(b, spec, "dump", block, b.bytes // 2, "--shards", 64, "--depth", 1,
                               "--durability", "written")
                       for spec in (b.flash("uring").replace("| flash", "| cache | flash"),
                                    b.flash()))
        return f.turns_figure(b, ours, alone)


def trace(f, name, blocks):
    @f.row(f"cache-{name}-{blocks}",
           f"cache, policy=lru, the {name} trace in {blocks:,} blocks of 4 KiB: leading hits",
           "an exact LRU's share less 0.5 points", group="cache", slow=True)
    def measure(b):
        path, exact = f.trace_of(b, name), LRU_HITS[name, blocks]
        r = b.cairn("replay", f"cache(size=400MiB, entries={blocks})", "--trace", path,
                    "--block", "4KiB")
        b.commands = [c.replace(os.path.dirname(path), "TRACES") for c in b.commands]
        more = (r["blocks_hit"] - exact) / r["blocks"] * 100
        words = f"{r['blocks_hit']:,} against {exact:,}: {more:+.2f} points"
        return f.Counted(f"{words}, {r['wrong_bytes']} wrong bytes",
                         more >= -0.5 and not r["wrong_bytes"])


def add(f):
    for each in LOOKUPS:
        lookup(f, *each)
    at_rest(f)
    for op in ("dump", "load"):
        for each in f.SIZES:
            through(f, op, *each)
    for each in f.SIZES:
        through(f, "load", *each, registered="no")
    lone_shards(f)
    for each in LRU_HITS:
        trace(f, *each)
