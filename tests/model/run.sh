#!/bin/sh
# run.sh MODEL WRONG...: spin looks at all states of it, and must find each -DWRONG to be wrong.
# In the soak alone (CAIRN_SOAK=1); 77 where there is no spin.
set -eu

model=$1
shift
[ "${CAIRN_SOAK:-0}" = 1 ] || { echo "skipped: for the soak"; exit 77; }
command -v spin >/dev/null || { echo "skipped: no spin here"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

# Prints what the verifier says of the model with these options.
verify() {
    spin -a "$@" "$model"
    cc -O2 -w -DSAFETY -o pan pan.c
    ./pan -m100000
}

verify >right
grep -q 'errors: 0' right && ! grep -q 'max search depth' right || { cat right; exit 1; }
grep 'states, stored' right
for what; do
    verify "-D$what" >wrong
    grep -q 'errors: 1' wrong || { echo "$what was not found to be wrong"; cat wrong; exit 1; }
done
