# The drop-in for the harnesses' hook folders, and the check against the harnesses.

RESTRAINT_HOOKS = /usr/share/restraint/plugins/completed.d
BEAH_HOOKS = /usr/share/rhts/hooks/watchdog
HOOK = 20_rl-cleanup

.PHONY: install-hooks install-hooks-present uninstall-hooks check-harness

install-hooks: ## install the hook for restraint and beah, whether they are there or not
	install -d "$(DESTDIR)$(RESTRAINT_HOOKS)" "$(DESTDIR)$(BEAH_HOOKS)"
	install -m 755 hooks/$(HOOK) "$(DESTDIR)$(RESTRAINT_HOOKS)"
	install -m 755 hooks/$(HOOK) "$(DESTDIR)$(BEAH_HOOKS)"

install: install-hooks-present
uninstall: uninstall-hooks

# Only where the harness is.
install-hooks-present:
	@for dir in "$(DESTDIR)$(RESTRAINT_HOOKS)" "$(DESTDIR)$(BEAH_HOOKS)"; do \
	  [ ! -d "$$dir" ] || install -v -m 755 hooks/$(HOOK) "$$dir" || exit; \
	done

uninstall-hooks:
	rm -f "$(DESTDIR)$(RESTRAINT_HOOKS)/$(HOOK)" "$(DESTDIR)$(BEAH_HOOKS)/$(HOOK)"

check-harness: ## what harnesses do when time is up, the real tmt among them; ends in a count
	@python3 tests/harness/check.py
