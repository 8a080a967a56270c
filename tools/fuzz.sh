#!/bin/sh
# fuzz.sh [SECONDS [FUZZER...]]: builds the fuzzers with clang and runs each for SECONDS (60).
# What they learn stays in build-fuzz/corpus/; an input that crashes is left in build-fuzz/crash/.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-60}
[ $# -eq 0 ] || shift

if [ ! -f build-fuzz/build.ninja ]; then
    CC=$(tools/deps.sh --which clang) meson setup build-fuzz -Dfuzz=true \
        -Db_sanitize=address,undefined -Db_lundef=false
fi
ninja -C build-fuzz

if [ $# -eq 0 ]; then
    for program in build-fuzz/tests/fuzz/fuzz_*; do
        case $program in
        *_replay | *.p) ;;
        *) [ ! -x "$program" ] || set -- "$@" "$(basename "$program")" ;;
        esac
    done
fi
[ $# -gt 0 ] || { echo "fuzz: no fuzzer was built" >&2; exit 1; }

mkdir -p build-fuzz/crash
failed=0
for fuzzer in "$@"; do
    name=${fuzzer#fuzz_}
    corpus=build-fuzz/corpus/$name
    mkdir -p "$corpus"
    seeds=tests/fuzz/corpus/$name
    [ -d "$seeds" ] || seeds=
    log=build-fuzz/$fuzzer.log
    if "build-fuzz/tests/fuzz/$fuzzer" -max_total_time="$seconds" -print_final_stats=1 \
        -artifact_prefix="build-fuzz/crash/$name-" "$corpus" $seeds >"$log" 2>&1; then
        echo "ok      $fuzzer: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs"
    else
        echo "FAILED  $fuzzer: $log"
        tail -n 3 "$log"
        failed=1
    fi
done
exit $failed
