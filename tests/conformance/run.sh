#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run.sh [--memory] PROGRAM ARGUMENT...: runs it with @TMP@ in the last argument a fresh folder,
# removed after; with --memory in shared memory, where that has 2 GiB.
set -eu
free=$(df -k --output=avail /dev/shm 2>/dev/null | tail -n 1)
if [ "$1" = --memory ]; then
	shift
	[ "${free:-0}" -lt 2097152 ] || TMPDIR=/dev/shm
fi
# Shared memory, which containers have little of: 64 MiB are usual.
case "$*" in
*"cache("*)
	[ "${free:-0}" -ge 524288 ] || { echo "/dev/shm has less than 512 MiB free"; exit 77; }
	;;
esac
tmp=$(mktemp -d "${TMPDIR:-/tmp}/conformance.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM
n=$#
for argument; do
	shift
	n=$((n - 1))
	[ "$n" -gt 0 ] || argument=$(printf '%s' "$argument" | sed "s|@TMP@|$tmp|g")
	set -- "$@" "$argument"
done
"$@"
