# Two commands set everything up on a machine with Python 3.10+ and nothing else:
#   make demo   exports the built-in checkpoint: bundle, drift figures, a TensorRT-RTX engine
#   make test   runs all tests
# More are for releases (docs/releasing.md):
#   make test-lowest      runs what serves a bundle with the lowest versions of everything, without torch
#   make test-compat      runs the same with another Python and the newest versions
#   make fuzz             looks for inputs that break a reader
#   make docs             builds the documentation as a site, in build/site
#   make dist URL=…       builds what is published
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
OTHER  ?= python3.13
SERVING := tests/bundle tests/calibration tests/datasets/test_inputs.py tests/datasets/test_predict.py tests/deploy tests/report tests/runtime $(filter-out tests/test_architecture.py,$(wildcard tests/test_*.py))
EXTRAS  := export,cpu,docs,hub,openvino,ray,rtx,sign,triton,dev
CPP    := $(shell find vivit_export tests benchmarks fuzz -name '*.[ch]pp' -o -name '*.h')

.PHONY: demo test docs test-lowest test-compat fuzz lint format venv dist clean

demo: $(READY)
	$(BIN)/vivit-export demo --fp16 -o out/vivit-demo-fp16 --force

test: $(READY)
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

# Bundles come from the other environment, which has torch. What tests fetch is linked from there, but for TensorRT's
# bindings, which are for one Python; uv shares the files of packages with its cache.
define test_serving
	$(BIN)/python -m pip install --quiet "uv>=0.5"
	$(BIN)/uv venv --quiet --seed --allow-existing --python $(1) $(2)
	$(BIN)/uv pip install --quiet --python $(2)/bin/python --constraint $(3) --editable ".[cpu,hub,openvino,ray,rtx,sign,triton,dev]" onnx-ir onnxscript
	mkdir -p $(2)/share
	for there in $(filter-out %/man %/tensorrt-bindings,$(wildcard $(abspath $(VENV))/share/*)); do ln -sfn $$there $(2)/share/; done
	VIVIT_TEST_EXPORTER=$(abspath $(BIN)/python) $(2)/bin/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --junitxml=$(2)/junit.xml $(SERVING)
	$(2)/bin/python tools/record_versions.py serving $(4) $(2)/junit.xml
endef

test-lowest: $(READY)
	$(call test_serving,$(PYTHON),$(VENV)-lowest,constraints-lowest.txt,lowest)

# make test-compat OTHER=python3.13
test-compat: $(READY)
	$(call test_serving,$(OTHER),$(VENV)-$(notdir $(OTHER)),constraints.txt,newest)

# Ten minutes for each reader of what others hand us: three hours.
fuzz: $(READY)
	$(BIN)/python fuzz/run_fuzzers.py --seconds 600 --keep --record

docs: $(READY)
	$(BIN)/python tools/build_docs.py

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

# With LOCKED=1 pip takes only the files whose hashes are stated, which are those of CI: Linux on x86-64, Python 3.11, torch for the CPU.
$(READY): pyproject.toml constraints.txt constraints-locked.txt
	$(PYTHON) -m venv $(VENV)
ifdef LOCKED
	grep -E '^(setuptools|wheel)==' constraints-locked.txt > $(VENV)/build.txt
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps --requirement $(VENV)/build.txt
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps --no-build-isolation --requirement constraints-locked.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check
else
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
endif
	touch $@

dist: $(READY)
	$(BIN)/python -m pip install --quiet "twine>=6.1"
	rm -rf dist
	$(BIN)/python tools/build_dist.py --url "$(URL)"
	$(BIN)/python -m twine check --strict dist/*

clean:
	rm -rf $(VENV) $(VENV)-* out build dist *.egg-info
