#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# front.sh SOURCE: every target of the Makefile that builds or checks begins with tools/deps.sh,
# which installs what is missing or says what it is; and what it runs of the tree can be run.
unset MAKEFLAGS MAKELEVEL # of the make that runs the tests
cd "$1" || exit 1
bad=0
for target in run test check test-engines bench bench-engines soak asan tsan fuzz fmt tidy wheel; do
	first=$(make -n "$target" 2>&1 | head -n 1)
	case $first in
	"tools/deps.sh "*) ;;
	*) echo "error: make $target begins with: $first" && bad=1 ;;
	esac
	runs=$(make -n "$target" 2>&1 | grep -oE '(^| )(tools|bench)/[a-z_/]+\.(sh|py)' | sort -u)
	for program in $runs; do
		[ -x "$program" ] && continue
		echo "error: make $target: $program is not executable"
		bad=1
	done
done
exit $bad
