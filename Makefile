# The front door: Meson and Ninja do the work. `make help` lists what there is.

PREFIX ?= /usr/local
# Where the loader of every Debian and Ubuntu looks; Meson's guess depends on what is installed.
LIBDIR ?= lib
FUZZ_SECONDS ?= 60

# The main job: a chat trace from the embedded generator, every loaded byte compared. More is dumped
# than the budget holds.
RUN = replay "cache(size=32MiB) | flash(path=$$path/kv, size=512MiB)" --generate chat --seed 1 --limit 3000 \
	--block 64KiB --clients 2

# On a terminal ninja shows how far it is on one line; elsewhere only what went wrong is wanted, which
# ninja can do since 1.11.
NINJA = exec 3>&1; ninja -C build $$(test -t 3 || ! ninja --help 2>&1 | grep -q -e --quiet || echo --quiet)
MESON_TEST = meson test -C build --no-rebuild --print-errorlogs
FORMATTED = find include src cli python tests bench examples -name '*.[ch]' 2>/dev/null

# The engines that test-engines runs against; empty: all that python/engines/ has pins of.
ENGINES =
# Options of bench/engines/side_by_side.py.
SIDES =

.PHONY: all deps run check test test-engines bench bench-engines soak asan tsan fuzz fmt tidy install clean help wheel

all: build/build.ninja ## the libraries, the program and the tests, into build/; what `make` does
	@$(NINJA)

build/build.ninja:
	@tools/deps.sh --check build
	@echo "configuring build/; what then is built takes half a minute"
	@said=$$(meson setup build --prefix "$(PREFIX)" --libdir "$(LIBDIR)" 2>&1) || \
		{ printf '%s\n' "$$said" >&2; exit 1; }

deps: ## install what is missing (apt, as root or with sudo), saying what and why
	@tools/deps.sh

run: ## the main job: a generated chat trace through a file of its own, every byte compared
	@tools/deps.sh build
	@$(MAKE) --no-print-directory --silent build/build.ninja
	@$(NINJA) cairn cli/cairn
	@path=$$(mktemp -d build/run.XXXXXX) && trap 'rm -rf "$$path"' EXIT && \
		trap 'exit 130' INT TERM && build/cairn $(RUN)

check: ## the quick tests, in about a minute
	@tools/deps.sh build test
	@$(MAKE) --no-print-directory --silent all
	@$(MESON_TEST) --num-processes $$((4 * $$(nproc))) --suite unit --suite cli --suite fuzz \
		--suite tidy --suite contract --suite quick --no-suite long

test: ## all that CI runs; closes with "N passed, N failed"
	@tools/deps.sh build test
	@tools/test.sh

test-engines: ## the Python faces against the real engines (ENGINES="lmcache" for some); needs pip
	@tools/deps.sh build
	@$(MAKE) --no-print-directory --silent all
	@tools/test-engines.sh $(ENGINES)

bench: ## the figures of bench/README.md, each with its command (ROW="words of a row, options" for some)
	@tools/deps.sh build
	@test -f build-release/build.ninja || meson setup build-release --buildtype=release
	@ninja -C build-release
	@bench/figures.py --build build-release $(ROW)

bench-engines: ## cairn beside LMCache, vLLM's tiers and RocksDB, a table (SIDES="--only flash,rocksdb"); needs pip
	@tools/deps.sh build sides
	@meson setup $$(test ! -f build-release/build.ninja || echo --reconfigure) build-release \
		--buildtype=release >/dev/null
	@ninja -C build-release
	@bench/engines/side_by_side.py $(SIDES)

soak: ## the long forms of the tests: more kills, rounds and seeds
	@tools/deps.sh build
	@$(MAKE) --no-print-directory --silent all
	@CAIRN_SOAK=1 $(MESON_TEST) --timeout-multiplier 120 --no-suite tidy --no-suite contract

asan: ## the tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@tools/deps.sh build
	@tools/test.sh asan

tsan: ## the tests under ThreadSanitizer
	@tools/deps.sh build
	@tools/test.sh tsan

fuzz: ## each fuzzer for FUZZ_SECONDS (60)
	@tools/deps.sh build test
	@tools/fuzz.sh $(FUZZ_SECONDS)

fmt: ## apply .clang-format
	@tools/deps.sh test
	@$(FORMATTED) | xargs "$$(tools/deps.sh --which clang-format)" -i

tidy: ## the style rules, formatting and static analysis
	@tools/deps.sh build test
	@tools/test.sh tidy format cppcheck clang-tidy man

wheel: ## a manylinux wheel of the Python package, tried in an empty environment, into build/wheel/dist/
	@tools/deps.sh build
	@tools/wheel.sh $(if $(BARE),--bare)

install: all ## into PREFIX (/usr/local), under DESTDIR
	@echo "installing into $(DESTDIR)$(PREFIX)"
	@said=$$(meson configure build -Dprefix="$(PREFIX)" -Dlibdir="$(LIBDIR)" && \
		ninja -C build 2>&1) || { printf '%s\n' "$$said" >&2; exit 1; }
	@DESTDIR="$(DESTDIR)" meson install -C build --no-rebuild --quiet
	@test -n "$(DESTDIR)" || test "$$(id -u)" != 0 || ldconfig

clean: ## remove all build folders
	rm -rf build build-asan build-tsan build-clang build-fuzz build-release

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{ printf "make %-13s %s\n", $$1, $$2 }' Makefile
