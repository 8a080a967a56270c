#!/usr/bin/env python3
"""tidy.py [--shrink] [ROOT]: checks the tree against the style's limits. What is over them stands,
line by line, in tests/tidy/excess.txt, which may only shrink: --shrink takes out of it what is no
longer true, and never adds."""

import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import lexer  # noqa: E402

FUNCTION_LINES_MAX = 70  # fits a screen
LINE_COLUMNS_MAX = 100
NESTING_MAX = 3
FILE_LINES_MAX = 800
TAB = 8

# A folder may include from those of a lower rank.
RANKS = {"base": 0, "sys": 1, "policy": 2, "stages": 2, "core": 3, "api": 4}
CORE_FOR_STAGES = "core/stage_env.h"

# Programs and tests of behaviour: the public contract, and what is pure.
PURE = ("base/", "stages/flash/table.h", "stages/flash/policy.h")
PUBLIC_ONLY = ("cli/", "python/", "examples/", "bench/", "tests/conformance/", "tests/crash/kill.c",
               "tests/cli/")

BANNED_ANYWHERE = {
    "strcpy": "snprintf or memcpy", "strcat": "snprintf", "sprintf": "snprintf",
    "vsprintf": "vsnprintf", "gets": "getline", "strtok": "strcspn", "atoi": "strtoull",
    "atol": "strtoull", "rand": "a seeded generator", "srand": "a seeded generator",
}
# The kernel, the allocator and the terminal, which in src/ only src/sys/ meets.
BANNED_IN_SRC = set("""
    malloc calloc realloc free strdup strndup asprintf vasprintf aligned_alloc posix_memalign
    memalign alloca open openat creat close read write pread pwrite readv writev preadv pwritev
    preadv2 pwritev2 lseek mmap munmap mremap madvise msync mlock fsync fdatasync sync_file_range
    fallocate posix_fallocate ftruncate truncate rename renameat renameat2 link linkat unlink
    unlinkat symlink mkdir mkdirat rmdir stat fstat lstat fstatat statx statvfs fstatvfs access
    faccessat opendir readdir closedir scandir flock lockf fcntl ioctl shm_open shm_unlink
    memfd_create eventfd timerfd_create epoll_create1 epoll_ctl epoll_wait poll ppoll select
    socket socketpair pipe pipe2 dup dup2 dup3 fork vfork execve kill signal sigaction
    clock_gettime gettimeofday time nanosleep clock_nanosleep usleep sleep getrandom syscall
    fopen fdopen fclose fread fwrite fgets fputs fprintf vfprintf printf vprintf puts putchar
    perror exit _exit system popen
""".split())
# dlopen is how stages are found; it has no place in the sys table.

# Where memory orders may be written, each with its pair named.
ATOMIC_FILES = {
    "src/base/ring.h", "src/base/ring.c",  # posting to a reactor
    "src/base/atomic.h",  # counters, hints, flags
    "src/stages/cache/state.h",            # the words of the shared memory
    "src/sys/bell.c",                      # waking a reactor
    "src/sys/aio.c",                       # a slot's way through the kernel, which TSan cannot see
    "include/cairn/stage.h",               # relaxed figures of stages
}
ATOMIC = re.compile(r"\b(__atomic_\w+|__sync_\w+|_Atomic|atomic_\w+)\b|<stdatomic\.h>")

# Spelled so that this file does not hold them.
BANNED_WORDS = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"])
                          + r")\b")
SKIPPED_FOLDERS = re.compile(r"(^|/)(\.git|\.cache|__pycache__|build[^/]*|corpus)$")
CODE = (".c", ".h")
SCRIPTS = (".py", ".sh")


class Tree:
    def __init__(self, root):
        self.root = root
        self.files = sorted(self.walk())
        self.text = {}
        for path in self.files:
            with open(os.path.join(root, path), "rb") as f:
                raw = f.read()
            if b"\0" not in raw:
                self.text[path] = raw.decode("utf-8", "replace")
        self.code = {p: lexer.code_of(t) for p, t in self.text.items() if p.endswith(CODE)}

    def walk(self):
        for folder, folders, files in os.walk(self.root):
            here = os.path.relpath(folder, self.root)
            here = "" if here == "." else here + "/"
            folders[:] = [f for f in folders if not SKIPPED_FOLDERS.search(here + f)
                          and not os.path.exists(os.path.join(folder, f, "meson-private"))]
            for name in files:
                if not os.path.islink(os.path.join(folder, name)) and name != ".git":
                    yield here + name

    def folder(self, prefix):
        return {p: t for p, t in self.text.items() if p.startswith(prefix)}


def check_sizes(tree):
    for path, text in tree.text.items():
        if not path.endswith(CODE + SCRIPTS):
            continue
        lines = text.split("\n")
        if len(lines) - 1 > FILE_LINES_MAX:
            yield "file-lines", path, str(len(lines) - 1)
        wide = sum(len(line.expandtabs(TAB)) > LINE_COLUMNS_MAX for line in lines)
        if wide:
            yield "wide-lines", path, str(wide)


def check_functions(tree):
    for path, code in tree.code.items():
        for function in lexer.functions_of(code):
            if function.lines > FUNCTION_LINES_MAX:
                yield "function-lines", path, f"{function.name} {function.lines}"
            if function.depth > NESTING_MAX:
                yield "nesting", path, f"{function.name} {function.depth}"


def includes(text):
    return re.findall(r'^[ \t]*#[ \t]*include[ \t]*([<"][^>"]+)[>"]', text, re.M)


def include_is_fine(path, name, tree):
    """Whether @path may include "@name": direction, and the stages' one door into core."""
    beside = os.path.normpath(os.path.join(os.path.dirname(path), name))
    if beside in tree.text:
        both_tests = path.startswith("tests/") and beside.startswith("tests/")
        return both_tests or os.path.dirname(beside).startswith(os.path.dirname(path))
    if path.startswith("include/"):
        return False
    if not path.startswith("src/"):
        of_cli = path.startswith("tests/cli/") and "cli/" + name in tree.text
        return of_cli or not path.startswith(PUBLIC_ONLY) or name.startswith(PURE)
    mine, theirs = path.split("/")[1], name.split("/")[0]
    if theirs not in RANKS or mine not in RANKS:
        return False
    if mine == "stages" and theirs == "core":
        return name == CORE_FOR_STAGES
    if mine == "stages" and theirs == "stages":
        # A stage knows no other; the list of stages, and its header, know them all.
        in_list = path.count("/") == 2 or name.count("/") == 1
        return in_list or name.split("/")[1] == path.split("/")[2]
    return RANKS[theirs] <= RANKS[mine]


def check_includes(tree):
    for path in tree.code:
        for include in includes(tree.text[path]):
            name = include[1:]
            if name.endswith(".c"):
                yield "includes-source", path, name
            elif include[0] == '"' and not include_is_fine(path, name, tree):
                yield "include-direction", path, name


def calls(code):
    """Names that are called or declared as functions, but not through a table or an object."""
    return re.findall(r"(?<![\w.>])([A-Za-z_]\w*)[ \t]*\(", code)


def check_calls(tree):
    for path, code in tree.code.items():
        banned = set(BANNED_ANYWHERE)
        if path.startswith("src/") and not path.startswith("src/sys/"):
            banned |= BANNED_IN_SRC
        for name in sorted(set(calls(code)) & banned):
            yield "banned-call", path, name


def check_atomics(tree):
    for path, code in tree.code.items():
        if path.startswith(("src/", "include/")) and path not in ATOMIC_FILES:
            count = len(ATOMIC.findall(code))
            if count:
                yield "atomics", path, str(count)


def check_named(tree):
    """Sources that no build file names, headers that no file includes."""
    included = set()
    for path in tree.code:
        for include in includes(tree.text[path]):
            included.add(os.path.basename(include[1:]))
    for path in tree.code:
        base = os.path.basename(path)
        if path.endswith(".h"):
            if base not in included:
                yield "not-included", path, base
            continue
        names = "|".join(re.escape(n) for n in (base, base[:-2]))
        pattern = re.compile(r"""['"/ =](?:""" + names + r""")(?:['" \n:]|\.so)""")
        if not any(pattern.search(tree.text[b]) for b in build_files(tree, path)):
            yield "not-built", path, base


def build_files(tree, path):
    folder = os.path.dirname(path)
    while True:
        for name in ("meson.build", "Makefile"):
            build = os.path.join(folder, name)
            if build in tree.text:
                yield build
        if not folder:
            return
        folder = os.path.dirname(folder)


def public_functions(tree):
    """(header, name, has a comment) of every function of include/. A comment stands right before a
    declaration, or before the first of several that no empty line parts."""
    for path, text in sorted(tree.folder("include/").items()):
        code = tree.code[path]
        lines, code_lines = text.split("\n"), code.split("\n")
        for match in re.finditer(r"^(?:CAIRN_API|static inline)\b[^;{]*?(\w+)\(", code, re.M):
            at = code.count("\n", 0, match.start())
            while at > 0 and lines[at - 1].strip() and code_lines[at - 1].strip():
                at -= 1
            yield path, match.group(1), at > 0 and lines[at - 1].rstrip().endswith("*/")


def check_public(tree):
    tested = set()
    for path, code in tree.code.items():
        if path.startswith("tests/") and path != "tests/cli/fake_store.c":  # defines them
            tested.update(calls(code))
    for path, name, commented in public_functions(tree):
        if not commented:
            yield "no-contract", path, name
        if name not in tested:
            yield "not-tested", path, name


def check_words(tree):
    for path, text in tree.text.items():
        count = len(BANNED_WORDS.findall(text))
        if count:
            yield "unfinished-word", path, str(count)


CHECKS = (check_sizes, check_functions, check_includes, check_calls, check_atomics, check_named,
          check_public, check_words)

MEANING = {
    "file-lines": f"more than {FILE_LINES_MAX} lines: would a second file tell the reader more?",
    "wide-lines": f"lines of more than {LINE_COLUMNS_MAX} columns (tabs of {TAB})",
    "function-lines": f"a function of more than {FUNCTION_LINES_MAX} lines",
    "nesting": f"blocks nested deeper than {NESTING_MAX} in a function",
    "includes-source": "includes a .c file",
    "include-direction": "api -> core -> stages -> sys -> base; programs include cairn/*.h",
    "banned-call": "use the sys table (src/sys/sys.h), or the safer call",
    "atomics": "atomics live in the files that tidy.py lists",
    "not-built": "no meson.build or Makefile at or above it names it",
    "not-included": "a header that nothing includes",
    "no-contract": "a public function without a comment before it",
    "not-tested": "a public function that no test calls",
    "unfinished-word": "finish it, or open an issue",
}


def findings(root):
    tree = Tree(root)
    return {f"{rule} {path} {what}" for check in CHECKS for rule, path, what in check(tree)}


def excess(root):
    try:
        with open(os.path.join(root, "tests/tidy/excess.txt"), encoding="utf-8") as f:
            return {line.strip() for line in f if line.strip() and not line.startswith("#")}
    except FileNotFoundError:
        return set()


def shrink(root, found):
    path = os.path.join(root, "tests/tidy/excess.txt")
    with open(path, encoding="utf-8") as f:
        lines = f.readlines()
    kept = [line for line in lines if line.startswith("#") or line.strip() in found]
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(kept)
    return excess(root)


def main(arguments):
    here = os.path.dirname(os.path.abspath(__file__))
    folders = [a for a in arguments if a != "--shrink"]
    root = folders[0] if folders else os.path.join(here, "..", "..")
    found, known = findings(root), excess(root)
    if "--shrink" in arguments:
        known = shrink(root, found)
    for line in sorted(found - known):
        print(f"error: {line}\n    {MEANING[line.split()[0]]}")
    for line in sorted(known - found):
        print(f"error: {line}\n    no longer true: take it out of tests/tidy/excess.txt")
    print(f"tidy: {len(found - known)} new, {len(known - found)} outdated, "
          f"{len(found & known)} known")
    return 1 if found != known else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
