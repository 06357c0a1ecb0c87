# Two commands set everything up on a machine with Python 3.10+ and nothing else:
#   make demo   exports the built-in checkpoint: bundle, drift figures, a TensorRT-RTX engine
#   make test   runs all tests
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
CPP    := $(shell find vivit_export tests benchmarks -name '*.[ch]pp' -o -name '*.h')

.PHONY: demo test lint format venv clean

demo: $(READY)
	$(BIN)/vivit-export demo --fp16 -o out/vivit-demo-fp16 --force

test: $(READY)
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CPP)
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

venv: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[export,cpu,openvino,rtx,triton,dev]"
	touch $@

clean:
	rm -rf $(VENV) out build dist *.egg-info
