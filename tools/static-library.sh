#!/bin/sh
# static-library.sh ARCHIVE OUTPUT CC...: OUTPUT is an archive of one object, all of ARCHIVE with
# every hidden name made local.
set -eu
archive=$1
output=$2
shift 2
object=$output.o
"$@" -r -nostdlib -Wl,--whole-archive "$archive" -Wl,--no-whole-archive -o "$object"
objcopy --localize-hidden "$object"
rm -f "$output"
ar rcs "$output" "$object"
rm -f "$object"
