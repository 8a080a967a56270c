#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# glibc.sh FILE...: no symbol is asked for of a version after glibc 2.35, that of manylinux_2_35.
command -v objdump >/dev/null || { echo "skipped: no objdump (binutils)"; exit 77; }
# Headers of a newer one have strtol() and its like be functions of its own: wheels are made
# elsewhere.
here=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed 's/^glibc //')
[ "$(printf '%s\n' "${here:-2.36}" 2.37 | sort -V | tail -n 1)" = 2.37 ] ||
    { echo "skipped: built with the headers of glibc $here"; exit 77; }
bad=0
for file in "$@"; do
    newest=$(objdump -T "$file" | sed -n 's/.*GLIBC_\([0-9.]*\).*/\1/p' | sort -uV | tail -n 1)
    [ -n "$newest" ] || { echo "$file: no symbol of glibc: it cannot be read"; exit 1; }
    first=$(printf '%s\n' "$newest" 2.35 | sort -V | tail -n 1)
    [ "$first" = 2.35 ] || { echo "$file asks for GLIBC_$newest"; bad=1; }
done
exit $bad
