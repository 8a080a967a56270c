#!/bin/sh
# run.sh CAIRN [FOLDER [FIGURE...]]: measures the figures that the README and the documents quote.
# Each command is printed before it runs; the results go to bench-results/ as JSON, one file a
# figure. FOLDER (default: a new one under the current folder, removed at the end) says which file
# system is measured: a tmpfs measures memory.
set -eu
cairn=$(realpath "$1")
if [ $# -gt 1 ]; then
    folder=$2
    shift 2
else
    folder=$(mktemp -d ./bench-XXXXXX)
    trap 'rm -rf "$folder"' EXIT
    shift
fi
results=bench-results
mkdir -p "$folder" $results
wanted=" $* "

# figure NAME COMMAND...
figure() {
    name=$1
    shift
    [ "$wanted" = "  " ] || case $wanted in *" $name "*) ;; *) return 0 ;; esac
    echo "$name: cairn $*"
    "$cairn" "$@" --json >"$results/$name.json"
    cat "$results/$name.json"
}

posix() { echo "posix(path=$folder/kv${1:-})"; }

for block in 256KiB 2MiB; do
    figure "load-$block" bench "$(posix)" --op load --block $block --count 2048 --depth 32
    figure "dump-$block" bench "$(posix)" --op dump --block $block --count 2048 --depth 32
done
figure load-one bench "$(posix)" --op load --block 256KiB --count 2048 --depth 1 --clients 1
figure lookup bench "$(posix)" --op lookup --block 1 --count 1000 --fill 1000000
figure lookup-shared bench "$(posix "-shared, shared=yes")" --op lookup --block 1 --count 1000 \
    --fill 10000
figure replay replay "$(posix)" --generate chat --seed 1 --block 16KiB --limit 2000
