# rl-cleanup: build, try, check, install. `make help` lists the targets.

PREFIX = /usr/local
DESTDIR =

CARGO ?= cargo
TARGET = $(or $(CARGO_TARGET_DIR),target)/release

# An append and a watched test are processes of their own, and linked statically they start in half the
# time. Where the C library's static form is not installed (Fedora: glibc-static), or with STATIC=no,
# they are linked as cargo does it. STATIC=musl takes that library, if rustup has its target.
# Static, both programs are one file: the C library would be in each of two. It stays position-independent
# (static-pie): at a fixed address it starts no sooner, as 'make bench' shows, and root's tools are better
# off where nobody knows beforehand.
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
STATIC ?= $(shell out=$$(mktemp) && echo 'int main(void) { return 0; }' | $(CC) -static -x c - -o "$$out" \
	2>/dev/null && echo yes; rm -f "$$out")
TRIPLE = $(if $(filter musl,$(STATIC)),$(subst -gnu,-musl,$(HOST)),$(HOST))
ifneq ($(and $(filter yes musl,$(STATIC)),$(HOST)),)
BUILD = RUSTFLAGS="$(RUSTFLAGS) -C target-feature=+crt-static" \
	$(CARGO) build --release --locked --bin rl-cleanup --target $(TRIPLE) && \
	install -d $(TARGET) && \
	install -m 755 $(or $(CARGO_TARGET_DIR),target)/$(TRIPLE)/release/rl-cleanup $(TARGET) && \
	ln -sf rl-cleanup $(TARGET)/beakerlib-testwatcher
else
BUILD = $(CARGO) build --release --locked
endif

bindir = $(PREFIX)/bin
datadir = $(PREFIX)/share/rl-cleanup
docdir = $(PREFIX)/share/doc/rl-cleanup
mandir = $(PREFIX)/share/man
bashdir = $(PREFIX)/share/bash-completion/completions
zshdir = $(PREFIX)/share/zsh/site-functions
fishdir = $(PREFIX)/share/fish/vendor_completions.d

PROGRAMS = rl-cleanup beakerlib-testwatcher
BUILT = $(PROGRAMS:%=$(TARGET)/%)
DOCS = README.md CHANGELOG.md CONTRIBUTING.md LICENSE LICENSE-MIT LICENSE-APACHE
INSTALLED = $(PROGRAMS:%=$(bindir)/%) \
	$(mandir)/man1/rl-cleanup.1 $(mandir)/man1/beakerlib-testwatcher.1 $(mandir)/man7/rl-cleanup-shim.7 \
	$(bashdir)/rl-cleanup $(zshdir)/_rl-cleanup $(fishdir)/rl-cleanup.fish \
	$(bashdir)/beakerlib-testwatcher $(fishdir)/beakerlib-testwatcher.fish

PART =
BENCH_OUT = target/bench

.PHONY: build demo screenshots check torture bench bench-plots install uninstall clean help
.DEFAULT_GOAL := build

build: ## build both programs (the default)
	$(BUILD)

demo: build ## interrupt a test that has mounted a loop device, and see that nothing is left
	@PATH="$(abspath $(TARGET)):$$PATH" examples/demo

screenshots: build ## record a real run, and draw docs/pictures/session.svg and timeline.svg from it
	@PATH="$(abspath $(TARGET)):$$PATH" docs/pictures/draw.py

check: ## everything that must hold before a change goes in; ends in a count
	@tests/run

torture: ## all that can go wrong, made to go wrong and counted (PART="kill power": only these)
	@tests/torture $(PART)

bench: build ## cost of an append and of the watcher, beside bash's, timeout's and BeakerLib's
	@BENCH_OUT="$(BENCH_OUT)" benches/run $(TARGET)

bench-plots: ## pictures and tables of docs/performance.md from the last run's figures
	@benches/plots $(BENCH_OUT)/results.json
	@benches/page $(BENCH_OUT)/results.json

# Builds only what is missing or older than its source: `make && sudo make install` needs no cargo.
$(TARGET)/rl-cleanup: Cargo.toml Cargo.lock $(shell find src shell -type f)
	$(BUILD)
	@touch $(BUILT)

# The same cargo run makes both.
$(TARGET)/beakerlib-testwatcher: $(TARGET)/rl-cleanup ;

install: $(BUILT) ## install below PREFIX (/usr/local), within DESTDIR
	install -d "$(DESTDIR)$(bindir)" "$(DESTDIR)$(datadir)" "$(DESTDIR)$(docdir)" \
	  "$(DESTDIR)$(mandir)/man1" "$(DESTDIR)$(mandir)/man7" \
	  "$(DESTDIR)$(bashdir)" "$(DESTDIR)$(zshdir)" "$(DESTDIR)$(fishdir)"
	install -m 755 $(TARGET)/rl-cleanup "$(DESTDIR)$(bindir)"
	if [ -L $(TARGET)/beakerlib-testwatcher ]; then ln -sf rl-cleanup "$(DESTDIR)$(bindir)/beakerlib-testwatcher"; \
	else install -m 755 $(TARGET)/beakerlib-testwatcher "$(DESTDIR)$(bindir)"; fi
	install -m 644 shell/rl-cleanup.sh "$(DESTDIR)$(datadir)"
	install -m 644 $(DOCS) "$(DESTDIR)$(docdir)"
	install -d "$(DESTDIR)$(docdir)/docs/pictures"
	install -m 644 docs/*.md "$(DESTDIR)$(docdir)/docs"
	install -m 644 docs/pictures/*.svg "$(DESTDIR)$(docdir)/docs/pictures"
	install -m 644 man/rl-cleanup.1 man/beakerlib-testwatcher.1 "$(DESTDIR)$(mandir)/man1"
	install -m 644 man/rl-cleanup-shim.7 "$(DESTDIR)$(mandir)/man7"
	$(TARGET)/rl-cleanup completions bash >"$(DESTDIR)$(bashdir)/rl-cleanup"
	$(TARGET)/rl-cleanup completions zsh >"$(DESTDIR)$(zshdir)/_rl-cleanup"
	$(TARGET)/rl-cleanup completions fish >"$(DESTDIR)$(fishdir)/rl-cleanup.fish"
	ln -sf rl-cleanup "$(DESTDIR)$(bashdir)/beakerlib-testwatcher"
	ln -sf rl-cleanup.fish "$(DESTDIR)$(fishdir)/beakerlib-testwatcher.fish"

uninstall: ## remove what install put there
	rm -f $(foreach file,$(INSTALLED),"$(DESTDIR)$(file)")
	rm -rf "$(DESTDIR)$(datadir)" "$(DESTDIR)$(docdir)"

clean: ## remove what was built
	$(CARGO) clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 23

-include hooks/install.mk packaging/install.mk
