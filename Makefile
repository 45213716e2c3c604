# The commands people, hooks and CI use. `make help` lists them.

PYTHON ?= python3
# Another index for PyTorch, as https://download.pytorch.org/whl/cpu; PyPI by default.
TORCH_INDEX ?=
# The oldest version that is held to the tests: make test VENV=.venv-2.11 TORCH=torch==2.11.0
TORCH := torch==2.15.0

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RUST := Cargo.toml Cargo.lock $(shell find rust -type f)
EXTENSION := $(VENV)/.extension
DEMO := build/demo
ADAPT := build/adapt-demo
ADAPT_RUN := --batch.tokens 2048 --optim.lr 4e-3 --eval-every 0 --answers 0
# The folder of Naija's texts (MAFAND, Global Voices) for adapt-demo; the example corpus where there is none.
NAIJA ?= ../shared/corpora/naija

.PHONY: help setup demo adapt-demo test test-rust test-python lint lint-rust lint-python bench clean
.DEFAULT_GOAL := help

help: ## Show this list.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(EXTENSION) ## Make .venv with pinned packages and build the extension (Python >= 3.11, a C compiler, Rust).

$(READY): requirements.txt constraints.txt Makefile
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --requirement requirements.txt
	touch $@

$(EXTENSION): $(READY) $(RUST) pyproject.toml
	$(BIN)/maturin develop --release
	touch $@

demo: setup ## Pack the example corpus, train a small model on it, show its answers (three minutes after setup).
	rm -rf $(DEMO)
	mkdir -p $(DEMO)
	$(BIN)/sabiprep tokenizer train examples/corpus $(DEMO)/tokenizer.json --vocab-size 2048
	$(BIN)/sabiprep pack examples/corpus $(DEMO)/data --tokenizer $(DEMO)/tokenizer.json
	$(BIN)/sabiprep inspect $(DEMO)/data --row 0 | head -n 20
	$(BIN)/python -m sabitrain --data $(DEMO)/data --run $(DEMO)/run --config examples/train.toml

adapt-demo: setup ## Add Yorùbá to a small English model: bits per byte and tokens per word before and after (two minutes on two cores).
	rm -rf $(ADAPT)
	$(BIN)/python examples/adapt_demo.py corpora $(ADAPT) "$(NAIJA)"
	$(BIN)/sabiprep tokenizer train $(ADAPT)/english $(ADAPT)/tokenizer.json --vocab-size 2048
	$(BIN)/sabiprep pack $(ADAPT)/english $(ADAPT)/english-data --tokenizer $(ADAPT)/tokenizer.json
	$(BIN)/python -m sabitrain --data $(ADAPT)/english-data --run $(ADAPT)/base $(ADAPT_RUN) --max-steps 200
	$(BIN)/python -m sabitrain adapt $(ADAPT)/base/checkpoint $(ADAPT)/adapted --add-language $(ADAPT)/yoruba --vocab +2000 --json > $(ADAPT)/adapted.json
	$(BIN)/sabiprep pack $(ADAPT)/yoruba $(ADAPT)/kept-data --tokenizer $(ADAPT)/base/checkpoint/tokenizer.json
	$(BIN)/sabiprep pack $(ADAPT)/yoruba $(ADAPT)/adapted-data --tokenizer $(ADAPT)/adapted/tokenizer.json
	$(BIN)/python -m sabitrain --init $(ADAPT)/base/checkpoint --data $(ADAPT)/kept-data --eval-data yor=$(ADAPT)/kept-data --run $(ADAPT)/kept-run $(ADAPT_RUN) --max-steps 150
	$(BIN)/python -m sabitrain --init $(ADAPT)/adapted --data $(ADAPT)/adapted-data --eval-data yor=$(ADAPT)/adapted-data --run $(ADAPT)/adapted-run $(ADAPT_RUN) --max-steps 150
	$(BIN)/python examples/adapt_demo.py table $(ADAPT)

# Tests sync thousands of small datasets to the disk: in memory where 8 GB of it are free.
MEMORY := $(shell df --output=avail --block-size=1G /dev/shm 2>/dev/null | awk 'NR == 2 && $$1 >= 8 { print "/dev/shm" }')
ifneq ($(MEMORY),)
test-rust test-python: export TMPDIR := $(MEMORY)
endif

test: test-rust test-python ## Run the tests of the Rust core and of both packages.

# The unit tests are a second build of the core: a quick one.
QUICK := --config profile.release.package.sabiprep.opt-level=1 --config profile.release.package.sabiprep.codegen-units=16

test-rust:
	cargo test --release --quiet --package sabiprep --lib $(QUICK)
	cargo test --release --quiet --package sabiprep --test '*'

# After the others, also with --jobs: some tests lose machines and wait for what is silent.
test-python: setup | test-rust
	$(BIN)/pytest --numprocesses auto --dist loadfile

lint: lint-rust lint-python ## Check format, types and style, Rust and Python.

lint-rust:
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets --quiet -- --deny warnings

lint-python: setup
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy --no-error-summary
	$(BIN)/python -m mypy.stubtest sabiprep._core --concise

bench: setup ## Run the benchmarks: stages (criterion), packing end to end, then training steps beside peers.
	cargo bench --package sabiprep --quiet
	$(BIN)/python benches/pack.py
	$(BIN)/python benches/train.py

clean: ## Remove everything that was built here.
	rm -rf $(VENV) build dist target python/sabiprep/_core.*.so .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
