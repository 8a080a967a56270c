#!/bin/sh
# deps.sh [GROUP...]          installs what is missing of the groups (default: build and test)
# deps.sh --check [GROUP...]  only says what is missing; status 1 if anything is
# deps.sh --which TOOL        prints the name under which the LLVM 14 tool is found here
#
# Groups: build (what the library and the program need), test (what `make test` needs besides),
# sides (what `make bench-engines` measures beside the engines; only when it is named).
set -eu

# The version is fixed: another clang-format lays out the same tree differently.
llvm_tool() {
    if command -v "$1-14" >/dev/null 2>&1; then
        echo "$1-14"
    elif "$1" --version 2>/dev/null | grep -q 'version 14\.'; then
        echo "$1"
    else
        return 1
    fi
}

has_header() { echo "#include <$1>" | cc -E - >/dev/null 2>&1; }
has_library() { pkg-config --exists "$*" 2>/dev/null; }
has_tool() { command -v "$1" >/dev/null 2>&1; }
has_admin_tool() { has_tool "$1" || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }
has_python_header() {
    python3 -c 'import os, sysconfig
raise SystemExit(not os.path.exists(sysconfig.get_paths()["include"] + "/Python.h"))' 2>/dev/null
}
has_llvm_tool() { llvm_tool "$1" >/dev/null; }
has_clang_runtime() {
    compiler=$(llvm_tool clang) || return 1
    [ -f "$("$compiler" -print-file-name="libclang_rt.asan-$(uname -m).a")" ]
}

# group (with a ?: the build does without, where this system has none) | package | how to see that
# it is here | why
table() {
    cat <<'ROWS'
build|gcc|has_tool cc|compiles the library and the program
build|libc6-dev|has_header stdio.h|headers of the C library
build|meson|has_tool meson|describes the build
build|ninja-build|has_tool ninja|runs the build
build|pkg-config|has_tool pkg-config|finds the libraries
build?|liburing-dev|has_header liburing.h|io_uring: asynchronous I/O
build|libaio-dev|has_header libaio.h|asynchronous direct I/O where io_uring is forbidden
build|libisal-dev|has_library libisal|CRC32C at memory speed
build|libssl-dev|has_library libcrypto|SHA-256 for keys
build|zlib1g-dev|has_library zlib|traces packed with gzip
build|libzstd-dev|has_library libzstd|traces packed with zstd
build|libjansson-dev|has_library jansson|JSON: traces in, --json out
build|libcmocka-dev|has_library cmocka|the unit tests
build|libseccomp-dev|has_library libseccomp|tests that forbid io_uring, as containers do
build|python3|has_tool python3|test scripts
build?|python3-dev|has_python_header|the Python package: headers of Python 3.11 or newer
test|g++|has_tool g++|compiles the public headers as C++17
test|clang-14|has_llvm_tool clang|the second compiler
test|libclang-rt-14-dev|has_clang_runtime|its sanitizers, and the fuzzers
test|clang-format-14|has_llvm_tool clang-format|the formatting
test|clang-tidy-14|has_llvm_tool clang-tidy|static analysis
test|cppcheck|has_tool cppcheck|static analysis
test|mandoc|has_tool mandoc|checks the manual pages
test?|spin|has_tool spin|looks at all states of the cache's model, in the soak
test?|xfsprogs|has_admin_tool mkfs.xfs|a file system to test on
test?|btrfs-progs|has_admin_tool mkfs.btrfs|one that copies on write
sides?|librocksdb-dev|has_library rocksdb|RocksDB, as what somebody would take instead
ROWS
}

if [ "${1:-}" = --which ]; then
    llvm_tool "$2" || {
        echo "deps: no $2 of version 14 here; make deps installs $2-14" >&2
        exit 1
    }
    exit 0
fi
check=no
if [ "${1:-}" = --check ]; then
    check=yes
    shift
fi
[ $# -gt 0 ] || set -- build test

missing=
needed=
for group in "$@"; do
    rows=$(table | grep "^$group?\{0,1\}|") || {
        echo "deps: no group \"$group\"; there are build, test and sides" >&2
        exit 2
    }
    while IFS='|' read -r kind package probe why; do
        $probe && continue
        if [ "$kind" = "$group" ]; then
            needed=yes
        elif [ $check = yes ]; then
            continue
        fi
        missing="$missing $package"
        printf 'deps: %-18s %s\n' "$package" "$why"
    done <<ROWS
$rows
ROWS
done
[ -n "$missing" ] || exit 0

if [ $check = yes ]; then
    echo "deps: the above is missing; make deps installs what apt has" >&2
    exit 1
fi
# What the build can do without is no reason to stop.
do_without() {
    [ -n "$needed" ] || {
        echo "deps: $1; going on without" >&2
        exit 0
    }
}
if ! has_tool apt-get; then
    do_without "no apt-get here"
    echo "deps: no apt-get here: install what is listed above by this system's own means" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    root=
elif has_tool sudo; then
    root=sudo
else
    do_without "neither root nor sudo"
    echo "deps: neither root nor sudo; as root: apt-get install$missing" >&2
    exit 1
fi
echo "deps: installing the above with apt-get, which may take a minute"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT TERM
fail() {
    do_without "$1 failed"
    tail -n 20 "$log" >&2
    echo "deps: $1 failed, its last lines are above" >&2
    exit 1
}
# A source of packages that does not answer is not always one that is needed here.
$root apt-get update >"$log" 2>&1 ||
    echo "deps: apt-get update failed; going on with the lists that are here" >&2
# Releases cut packages differently: what this one does not know comes with another, or is missed
# by the check below.
known=
for package in $missing; do
    ! apt-cache show "$package" >/dev/null 2>&1 || known="$known $package"
done
[ -n "$known" ] || fail "apt-get update"
# shellcheck disable=SC2086 # a list of words
$root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $known \
    >>"$log" 2>&1 || fail "apt-get install"
"$0" --check "$@"
