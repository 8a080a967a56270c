#!/bin/sh
# test-engines.sh [--env] [ENGINE...]: the tests of python/tests/engines/ENGINE against the real
# package, for each engine named, or all that python/engines/ has pins of. A file of tests is a
# process of its own, a line each; closes with "N passed, N failed, N skipped".
#
# An environment is built where it is missing or its pins changed, in $CAIRN_ENGINES_CACHE/ENGINE,
# by default ~/.cache/cairn/engines/ENGINE; where it cannot be had, the engine is skipped, and why
# is said. --env only does that, and prints the interpreter of each. `cairn` itself comes from
# $CAIRN_PYTHON, by default build/python. Needs an index that pip is configured for.
set -u
cd "$(dirname "$0")/.." || exit 1

cache=${CAIRN_ENGINES_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cairn/engines}
package=${CAIRN_PYTHON:-$PWD/build/python}
seconds_max=${CAIRN_ENGINES_SECONDS:-1800} # one file of tests; a hang is a failure
logs=build/logs
passed=0
failed=0
skipped=0

say() { printf '%s\n' "$*"; }
pins_of() { cat python/engines/torch.txt "python/engines/$1.txt"; }
is_ready() { pins_of "$1" | cmp -s - "$cache/$1/cairn-pins"; }

# The wheels of the pins are for this version of Python.
python_of_pins() {
    for python in python3.11 python3; do
        "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null &&
            command -v "$python" && return
    done
    say "no Python 3.11 here, which the pins are for" >&2
    return 1
}

# Installs engine $1 into its folder; what goes wrong is told on stderr.
install_into_cache() {
    folder=$cache/$1
    python=$(python_of_pins) || return 1
    rm -rf "$folder"
    "$python" -m venv "$folder" || return 1
    pip="$folder/bin/python -m pip --disable-pip-version-check"
    nice $pip install --quiet -r python/engines/torch.txt || return 1
    nice $pip install --quiet --no-deps -r "python/engines/$1.txt" || return 1
    pins_of "$1" >"$folder/cairn-pins"
}

# Sees to the environment of engine $1; of several processes one builds it.
environment() {
    is_ready "$1" && return
    say "building the environment of $1 in $cache/$1, which takes minutes"
    mkdir -p "$cache" || return 1
    (
        flock 9
        is_ready "$1" || install_into_cache "$1"
    ) 9>"$cache/$1.lock" >"$logs/engine-$1.log" 2>&1
}

# Runs one file of tests, $2, of engine $1. Status 77: it skips itself, and its last line says why.
one_file() {
    name=$1/$(basename "$2" .py)
    log=$logs/engines-$(echo "$name" | tr / -).log
    started=$(date +%s)
    PYTHONPATH=$package${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=1 LMCACHE_TRACK_USAGE=false \
        timeout "$seconds_max" "$cache/$1/bin/python" "$2" >"$log" 2>&1
    status=$?
    spent=$(($(date +%s) - started))
    case $status in
    0) passed=$((passed + 1)) && say "ok      $name ($spent s)" ;;
    77) skipped=$((skipped + 1)) && say "skipped $name: $(tail -n 1 "$log")" ;;
    *)
        failed=$((failed + 1))
        say "FAILED  $name: $log"
        grep -E '^(FAIL|ERROR|[A-Za-z.]*Error)[: ]' "$log" | sort -u | head -n 8 |
            sed 's/^/        /'
        ;;
    esac
}

only_environment=no
if [ "${1:-}" = --env ]; then
    only_environment=yes
    shift
fi
if [ $# = 0 ]; then
    for pins in python/engines/*.txt; do
        engine=$(basename "$pins" .txt)
        [ "$engine" = torch ] || set -- "$@" "$engine"
    done
fi
mkdir -p "$logs"
for engine in "$@"; do
    [ -f "python/engines/$engine.txt" ] || {
        say "test-engines: no python/engines/$engine.txt" >&2
        exit 2
    }
    environment "$engine" || {
        skipped=$((skipped + 1))
        say "skipped $engine: $(tail -n 1 "$logs/engine-$engine.log")"
        continue
    }
    [ $only_environment = no ] || {
        say "$cache/$engine/bin/python"
        continue
    }
    for file in python/tests/engines/"$engine"/test_*.py; do
        [ ! -f "$file" ] || one_file "$engine" "$file"
    done
done
[ $only_environment = no ] || exit 0
say "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
