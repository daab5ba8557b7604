.PHONY: install test check format

install test check:
	.ci/run $@

format:
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
