#!/bin/sh
# install.sh BUILD COMPILER...: what `meson install` leaves under DESTDIR is what a program needs:
# headers, both libraries, cairn.pc, manual pages; a program builds with it, both ways, from C and
# from C++, and runs; so does the skeleton of a stage, through its own Makefile.
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
# The same from C++, where there is a compiler of it.
if command -v c++ >/dev/null; then
    sed 's/^int crc32c(void); .*/extern "C" int crc32c(void);/' "$root/program.c" \
        >"$root/program.cc"
    # shellcheck disable=SC2046
    c++ -std=c++17 "$root/program.cc" -o "$root/cxx" $(flags --cflags --libs) \
        "-Wl,-rpath,$(dirname "$library")"
    # shellcheck disable=SC2046
    c++ -std=c++17 "$root/program.cc" -o "$root/cxx_static" $(flags --cflags) \
        "$(one libcairn.a)" $(flags --static --libs-only-l | sed 's/-lcairn\b//')
    ways='cxx cxx_static'
fi
for way in shared static ${ways:-}; do
    said=$("$root/$way")
    [ "$said" = "$version" ] || fail "cairn_version() said \"$said\" ($way), not $version"
done
# The skeleton of a stage: copied, built and checked with what is installed alone.
here=$(cd "$(dirname "$0")" && pwd)
cp -r "$here/../../examples/stage" "$root/mine"
PATH=$(dirname "$(one cairn-conformance)"):$PATH
LD_LIBRARY_PATH=$(dirname "$library")
export PATH LD_LIBRARY_PATH
make -s -C "$root/mine" clean
make -s -C "$root/mine" CC="$*" CAIRN_CFLAGS="$(flags --cflags)"
said=$(cairn stages xor --stage-path "$root/mine" 2>&1) || fail "the skeleton: $said"
said=$(make -s -C "$root/mine" check 2>&1) || fail "make check of the skeleton: $said"
echo "install: as it should be"
