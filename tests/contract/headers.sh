#!/bin/sh
# headers.sh INCLUDE HEADER STANDARD COMPILER...: the header compiles alone, cleanly, in that
# language, and twice in one file. Skipped where that compiler is not installed.
set -eu
include=$1
header=$2
standard=$3
shift 3
command -v "$1" >/dev/null || exit 77
case $standard in
c++*) language=c++ ;;
*) language=c ;;
esac
printf '#include <%s>\n#include <%s>\n' "$header" "$header" |
    "$@" -x "$language" "-std=$standard" -pedantic-errors -Wall -Wextra -Werror -Wundef \
        -fsyntax-only "-I$include" -
