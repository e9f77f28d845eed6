# What BeakerLib and vim get of ours: the shim as a plugin and as a library, words for the editor. And
# the check of the packages.

# A path on the machine that runs the tests; it is looked for, and written to, within DESTDIR.
BEAKERLIB ?= /usr/share/beakerlib
LIBRARY = $(PREFIX)/share/beakerlib-libraries/rl-cleanup/cleanup
VIM_WORDS = $(PREFIX)/share/vim/vimfiles/after/syntax
PLUGINS = $(DESTDIR)$(BEAKERLIB)/plugins
PLUGIN = $(PLUGINS)/rl-cleanup.sh
SHIM = $(DESTDIR)$(datadir)/rl-cleanup.sh

# Whether a link is one of ours, from whatever prefix; a file, or another's link, is not.
OURS = [ -L "$(PLUGIN)" ] && case $$(readlink "$(PLUGIN)") in */rl-cleanup/rl-cleanup.sh) ;; *) false ;; esac

.PHONY: install-plugin install-plugin-present uninstall-plugin install-words uninstall-words check-packages

install: install-words install-plugin-present
uninstall: uninstall-words uninstall-plugin

install-words: $(BUILT)
	install -d "$(DESTDIR)$(LIBRARY)" "$(DESTDIR)$(VIM_WORDS)/sh" "$(DESTDIR)$(VIM_WORDS)/beakerlib" \
	  "$(DESTDIR)$(datadir)"
	install -m 644 shell/library/cleanup/lib.sh shell/library/cleanup/main.fmf "$(DESTDIR)$(LIBRARY)"
	install -m 644 shell/vim/rl-cleanup.vim "$(DESTDIR)$(VIM_WORDS)/sh"
	install -m 644 shell/vim/rl-cleanup.vim "$(DESTDIR)$(VIM_WORDS)/beakerlib"
	install -m 644 shell/vim/dictionary.vim "$(DESTDIR)$(datadir)"

uninstall-words:
	rm -rf "$(DESTDIR)$(LIBRARY)"
	rm -f "$(DESTDIR)$(VIM_WORDS)/sh/rl-cleanup.vim" "$(DESTDIR)$(VIM_WORDS)/beakerlib/rl-cleanup.vim"
	@cd "$(DESTDIR)$(PREFIX)/share" 2>/dev/null || exit 0; \
	for dir in beakerlib-libraries/rl-cleanup vim/vimfiles/after/syntax/sh vim/vimfiles/after/syntax/beakerlib; do \
	  rmdir -p --ignore-fail-on-non-empty "$$dir" 2>/dev/null || :; \
	done

install-plugin: ## give the shim to every BeakerLib test (BEAKERLIB=DIR), whether BeakerLib is there or not
	@if { [ -e "$(PLUGIN)" ] || [ -L "$(PLUGIN)" ]; } && ! { $(OURS); }; then \
	  echo "not ours, so it stays as it is: $(PLUGIN)"; \
	else \
	  install -d "$(PLUGINS)" && rm -f "$(PLUGIN)" && \
	  ln -s "$$(realpath -m --relative-to="$(PLUGINS)" "$(SHIM)")" "$(PLUGIN)" && \
	  echo "linked: $(PLUGIN)"; \
	fi

# Only where BeakerLib is, and ours to write to.
install-plugin-present: $(BUILT)
	@if [ -z "$(BEAKERLIB)" ] || [ ! -d "$(DESTDIR)$(BEAKERLIB)" ]; then \
	  :; \
	elif [ -w "$(DESTDIR)$(BEAKERLIB)" ]; then \
	  $(MAKE) --no-print-directory install-plugin; \
	else \
	  echo "not linked, as it cannot be written: $(PLUGIN)"; \
	fi

# An empty folder goes too: BeakerLib would complain that it cannot read '*.sh' there.
uninstall-plugin:
	@if [ -n "$(BEAKERLIB)" ] && $(OURS); then \
	  echo "rm -f '$(PLUGIN)'"; rm -f "$(PLUGIN)"; rmdir "$(PLUGINS)" 2>/dev/null || :; \
	fi

check-packages: ## install and package a release build in every way, and try each; ends in a count
	@packaging/check
