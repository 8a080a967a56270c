#!/bin/sh
# test.sh [STEP...]: all that CI runs, or the steps named. Every step writes a log into build/logs/.
# A step that runs meson tests counts each of them, any other step counts as one. Goes on after a
# failure; closes with "N passed, N failed" and has status 0 only if nothing failed.
set -u
cd "$(dirname "$0")/.." || exit 1

logs=build/logs
mkdir -p "$logs"
passed=0
failed=0

say() { printf '%s\n' "$*"; }
log_of() { echo "$logs/$(echo "$1" | tr ' ' '-').log"; }
processors() { nproc 2>/dev/null || echo 2; }
llvm() { tools/deps.sh --which "$1"; }
# On a terminal, what is being run; its verdict takes the place.
begin() { [ ! -t 1 ] || printf '...     %s\r' "$*"; }

# once NAME COMMAND...: a step that passes or fails as a whole.
once() {
    name=$1
    log=$(log_of "$name")
    shift
    begin "$name"
    started=$(date +%s)
    if "$@" >"$log" 2>&1; then
        passed=$((passed + 1))
        say "ok      $name ($(($(date +%s) - started)) s)"
    else
        failed=$((failed + 1))
        say "FAILED  $name: $log"
        grep -E '(error|warning)[: ]|FAIL|ERROR' "$log" | grep -v 'generated\.$' | head -n 5 |
            sed 's/^/        /'
        return 1
    fi
}

# The figure after "$1" in meson's summary.
figure() { sed -n "s/^$1: *\([0-9][0-9]*\).*/\1/p" "$log" | tail -n 1; }

# What failed tests say of it: of a run elsewhere nothing else may be left.
reasons() {
    full=$(sed -n 's/^Full log written to //p' "$log" | tail -n 1)
    [ ! -f "$full" ] ||
        grep -E -A 6 '^(not ok|FAIL:|ERROR:)|not so: |Sanitizer: |runtime error: ' "$full" |
        head -n 60 | cut -c 1-200 | sed 's/^/        | /'
}

# suites FOLDER ARGUMENTS...: runs meson's tests and counts each. Most of them wait, for deadlines
# and for disks, so more run at once than there are processors.
suites() {
    folder=$1
    log=$(log_of "tests $folder")
    shift
    begin "tests in $folder"
    started=$(date +%s)
    env TMPDIR="${tests_in:-${TMPDIR:-/tmp}}" \
        meson test -C "$folder" --no-rebuild --print-errorlogs \
        --num-processes $((4 * $(processors))) "$@" >"$log" 2>&1
    status=$?
    tests_in=
    good=$(figure Ok)
    bad=0
    for kind in Fail 'Unexpected Pass' Timeout; do
        count=$(figure "$kind")
        bad=$((bad + ${count:-0}))
    done
    skipped=$(figure Skipped)
    # A run that broke without a verdict is a failure too.
    [ $status = 0 ] || [ $bad -gt 0 ] || bad=1
    passed=$((passed + ${good:-0}))
    failed=$((failed + bad))
    line="tests in $folder: ${good:-0} passed, $bad failed, ${skipped:-0} skipped"
    if [ $bad = 0 ]; then
        say "ok      $line ($(($(date +%s) - started)) s)"
    else
        say "FAILED  $line: $log"
        grep -E '^ *[0-9]+/[0-9]+ .* (FAIL|ERROR|TIMEOUT|INTERRUPT|UNEXPECTEDPASS)' "$log" |
            sort -u | sed 's/^ */        /'
        reasons
    fi
}

# setup FOLDER: configures it, once.
setup() {
    [ ! -f "$1/build.ninja" ] || return 0
    # Sanitizers and -O1 make the compiler warn of what is nothing: no warning is an error there.
    # -g1: lines for their reports, and a fifth less to compile and to link.
    sanitized="-Doptimization=1 -Db_lundef=false"
    case $1 in
    build-clang) CC=$(llvm clang || echo clang-14) meson setup "$1" ;;
    build-asan)
        meson setup "$1" $sanitized -Db_sanitize=address,undefined \
            -Dc_args='-g1 -fno-sanitize-recover=all'
        ;;
    build-tsan) meson setup "$1" $sanitized -Db_sanitize=thread -Dc_args=-g1 ;;
    esac
}
# locked FOLDER COMMAND...: whoever comes second for a folder waits, and finds it done.
locked() {
    (
        flock 9
        shift
        "$@"
    ) 9>"$logs/$1.lock"
}
setup_and_build() { setup "$1" && ninja -C "$1"; }
# prepare FOLDER: configures and builds it, as a step.
prepare() { once "build $1" locked "$1" setup_and_build "$1"; }

# Tests wait for a good part of their time. What later steps need is built meanwhile, by this script
# in a group of its own, with what time the tests leave.
ahead=
build_ahead() {
    setsid nice -n 10 tools/test.sh ahead "$@" >/dev/null 2>&1 &
    ahead=$!
}
build_ahead_now() {
    for step in "$@"; do
        case $step in
        clang | asan | tsan) locked "build-$step" setup_and_build "build-$step" ;;
        esac
    done
}
memory=
tests_in= # where the next tests have their files; empty: where TMPDIR says
leave() {
    [ -z "$ahead" ] || kill -- "-$ahead" 2>/dev/null
    [ -z "$memory" ] || rm -rf "$memory"
}
trap leave EXIT
trap 'exit 130' INT TERM

step_gcc() {
    once "build build" make --no-print-directory all || return
    build_ahead $steps
    suites build --no-suite tidy
}

# What gcc's tests do on a disk the next ones do in memory, where 8 GiB of that can be had.
in_memory() {
    room=$(df -k --output=avail /dev/shm 2>/dev/null | tail -n 1)
    free=$(sed -n 's/^MemAvailable: *\([0-9]*\).*/\1/p' /proc/meminfo)
    [ "${room:-0}" -ge 8388608 ] && [ "${free:-0}" -ge 8388608 ] || return 0
    [ -n "$memory" ] || memory=$(mktemp -d /dev/shm/cairn-tests.XXXXXX)
    tests_in=$memory
}

step_asan() {
    prepare build-asan || return
    in_memory
    # gcc 13 puts over-aligned locals at wrong places of the fake stack.
    ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=0 \
    UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
        suites build-asan --no-suite tidy --no-suite contract --no-suite perf \
        --timeout-multiplier 4
}

step_tsan() {
    prepare build-tsan || return
    in_memory
    # Its shadow memory does not fit every layout that address randomisation makes.
    wrapper=
    if setarch "$(uname -m)" -R true 2>/dev/null; then
        wrapper="--wrapper=setarch $(uname -m) -R"
    fi
    # A child that opens a store of its own is tested; threads of the parent may linger at the fork.
    TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:die_after_fork=0 \
        suites build-tsan --no-suite tidy --no-suite contract --no-suite perf \
        --no-suite fuzz --no-suite cli --no-suite crash --no-suite threadless --no-suite python \
        --timeout-multiplier 6 ${wrapper:+"$wrapper"}
}

step_clang() {
    prepare build-clang || return
    in_memory
    suites build-clang --suite unit
}

step_tidy() {
    for script in tests/tidy/test_tidy.py tests/tidy/tidy.py; do
        once "$(basename "$script" .py)" python3 "$script"
    done
}

sources() { find include src cli python tests bench examples -name '*.[ch]' 2>/dev/null; }

format() {
    formatter=$(llvm clang-format) || return 1
    sources | xargs "$formatter" --dry-run -Werror
}
step_format() { once clang-format format; }

# Another version finds other things, some of them wrong: the verdict is that of Debian 12's.
cppcheck_version=2.10
step_cppcheck() {
    case $(cppcheck --version 2>&1) in
    *" $cppcheck_version"*) ;;
    *) say "skipped cppcheck: the verdict is that of version $cppcheck_version" && return ;;
    esac
    once cppcheck cppcheck -q -j "$(processors)" --std=c11 --language=c --inline-suppr \
        --enable=warning,performance,portability --error-exitcode=1 \
        --suppressions-list=tests/tidy/cppcheck.txt --library=posix -D_GNU_SOURCE \
        -Iinclude -Isrc src $(test -d cli && echo cli)
}

clang_tidy() {
    checker=$(llvm clang-tidy) || return 1
    locked build-clang setup build-clang || return 1
    # Most of the time goes to a few functions with very many paths: the long form looks at all of
    # what the analyzer would by itself, the short one at the first 8,000 of a function.
    paths=8000
    [ -z "${CAIRN_SOAK:-}" ] || paths=225000
    # One file a run: given two, version 14 takes every va_list of the second for uninitialised.
    find src cli -name '*.c' 2>/dev/null | xargs -r -n 1 -P "$(processors)" \
        "$checker" -p build-clang --quiet --extra-arg=-Xclang --extra-arg=-analyzer-config \
        --extra-arg=-Xclang --extra-arg=max-nodes=$paths
}
step_clang_tidy() { once clang-tidy clang_tidy; }

man_pages() {
    mandoc -T lint -W warning man/*.[1-9] || return 1
}
step_man() { once man-pages man_pages; }

if [ "${1:-}" = ahead ]; then
    shift
    build_ahead_now "$@"
    exit
fi

say "what is run where: docs/testing.md; logs: $logs/"
[ $# -gt 0 ] || set -- tidy format man gcc clang cppcheck clang-tidy asan tsan
steps=$*
for step in "$@"; do
    "step_$(echo "$step" | tr - _)" || true
done

say "$passed passed, $failed failed"
[ $failed = 0 ]
