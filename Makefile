# Everything works from a fresh clone: each target installs what it needs into .venv, and as root the Debian packages too.

.PHONY: help run test check bench docs clean

help:
	@echo "make run     start a console proxy in front of a simulated pool, and print a URL to open"
	@echo "make test    run all tests"
	@echo "make check   format, lint, types, generated documents, packaging"
	@echo "make bench   what it costs, beside what it must cost at least, on this machine"
	@echo "make docs    write the generated documents anew"
	@echo "make clean   remove everything that was made here"

run: .venv/installed
	@exec .venv/bin/twistd --nodaemon --pidfile= xvpd --simulate

test: .venv/installed-dev
	@tools/need.sh qemu-system-x86_64=qemu-system-x86 redis-server=redis-server
	@.venv/bin/python tools/run_tests.py

check: .venv/installed-dev
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python -m xvpd.reason | diff -u docs/reasons.md - || { echo "docs/reasons.md is out of date: make docs"; exit 1; }
	.venv/bin/python -m twisted.trial tests.e2e.test_packaging

bench: .venv/installed
	@tools/need.sh redis-server=redis-server
	@.venv/bin/python -m benchmarks

docs: .venv/installed
	.venv/bin/python -m xvpd.reason >docs/reasons.md

clean:
	rm -rf .venv build dist *.egg-info _trial_temp* .coverage* .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find xvpd twisted tests tools benchmarks '(' -name __pycache__ -o -name dropin.cache ')' -prune -exec rm -rf {} +

.venv/bin/python:
	tools/venv.sh

.venv/installed: setup.py pyproject.toml .venv/bin/python
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/installed-dev: setup.py pyproject.toml .venv/bin/python
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch .venv/installed $@
