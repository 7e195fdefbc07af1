# The two commands of a newcomer are `make demo` and `make test`.
.PHONY: demo test setup bench lint format docs assets clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    set up, plan, train, evaluate, report (about 4 minutes after set-up)"
	@echo "make test    set up, then lint, docs, unit, scan and simulator tests (about 15 minutes)"
	@echo "make bench   write outputs/bench.json: throughput, kernel, start-up, import"
	@echo "make setup   make or reuse the environment; also: lint, format, docs, assets, clean"

setup:
	@scripts/setup >/dev/null

demo: setup
	@scripts/run scaffoldlab demo

test: setup
	@$(MAKE) --no-print-directory -O -j 2 lint docs
	@scripts/run python -m pytest tests/unit -q -n 3
	@scripts/run python -m pytest tests/scan -q -n 3
	@scripts/run python -m pytest tests/sim -q -n 2 --dist loadfile --no-loadscope-reorder

bench: setup
	@scripts/run python benchmarks/bench.py

lint: setup
	@scripts/run ruff check .
	@scripts/run ruff format --check .
	@scripts/run basedpyright --level error

format: setup
	@scripts/run ruff check --fix .
	@scripts/run ruff format .

docs: setup
	@scripts/run sphinx-build -q -W -b html docs docs/_build

assets: setup
	@scripts/run python scripts/build_assets.py
	@scripts/run scaffoldlab schema task > tasks/task.schema.json

clean:
	rm -rf outputs logs plans docs/_build .pytest_cache .ruff_cache
