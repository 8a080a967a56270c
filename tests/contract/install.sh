#!/bin/sh
# install.sh BUILD COMPILER...: what `meson install` leaves under DESTDIR is what a program needs:
# headers, both libraries, cairn.pc, manual pages; a program builds with it, both ways, and runs.
set -eu
build=$1
shift
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
meson install -C "$build" --no-rebuild --quiet --destdir "$root"

fail() {
    echo "error: $*"
    exit 1
}
one() {
    found=$(find "$root" -name "$1" | head -n 1)
    [ -n "$found" ] || fail "nothing installed is named $1"
    echo "$found"
}
pc=$(one cairn.pc)
library=$(one libcairn.so.0)
for name in libcairn.a libcairn.so error.h store.h task.h stage.h cairn.1 cairn_load.3 \
    cairn_dump.3 cairn_pipeline.7; do
    one $name >/dev/null
done
soname=$(readelf -d "$library" | sed -n 's/.*soname: \[\(.*\)\]/\1/p')
[ "$soname" = libcairn.so.0 ] || fail "the soname is \"$soname\", not libcairn.so.0"

PKG_CONFIG_LIBDIR=$(dirname "$pc"):$(pkg-config --variable pc_path pkg-config)
export PKG_CONFIG_LIBDIR
prefix=$root$(pkg-config --variable=prefix cairn)
cat >"$root/program.c" <<'PROGRAM'
#include <stdio.h>
#include <cairn/store.h>

int crc32c(void); /* a name that the library uses inside */
int crc32c(void)
{
	return 0;
}

int main(void)
{
	return crc32c() || printf("%s\n", cairn_version()) < 0;
}
PROGRAM
flags() { pkg-config --define-variable=prefix="$prefix" "$@" cairn; }
version=$(pkg-config --modversion cairn)
# shellcheck disable=SC2046 # lists of words
"$@" "$root/program.c" -o "$root/shared" $(flags --cflags --libs) \
    "-Wl,-rpath,$(dirname "$library")"
# shellcheck disable=SC2046
"$@" "$root/program.c" -o "$root/static" $(flags --cflags) "$(one libcairn.a)" \
    $(flags --static --libs-only-l | sed 's/-lcairn\b//')
for way in shared static; do
    said=$("$root/$way")
    [ "$said" = "$version" ] || fail "cairn_version() said \"$said\" ($way), not $version"
done
echo "install: as it should be"
