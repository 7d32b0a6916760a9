# Every target creates the environment it needs: .venv, by `PYTHON -m venv`, with the versions of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
EXTRAS := weights,test,docs,dev,channels,raytracing
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: demo test portable lint docs bench constraints clean
.DELETE_ON_ERROR:

demo: $(READY)  ## beamforming for users in Munich: a table and figures
	$(BIN)/python examples/munich.py

test: $(READY)  ## all tests; one thread per worker, so that workers do not compete for the cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

portable: $(READY)  ## doctests and pages, as on processors without AVX2 and with AVX2
	for capability in default avx2; do \
		ATEN_CPU_CAPABILITY=$$capability OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -n $(WORKERS) -q tests/test_doctests.py tests/test_pages.py || exit 1; \
	done

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(READY)  ## HTML in docs/_build; fails on any warning and on any missing public name
	$(BIN)/sphinx-build -W -n --keep-going -q docs docs/_build
	$(BIN)/python docs/completeness.py docs/_build/objects.inv

bench: $(READY)  ## quality and speed against public baselines; PEERS=FOLDER adds published channels
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/sum_rate.py $(if $(PEERS),--peers $(PEERS))
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/min_power.py

constraints:  ## update constraints.txt with the versions that a fresh environment resolves to
	rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	build/constraints/bin/pip install -qq "$$(grep ^torch== constraints.txt)" -e ./weights -e '.[$(EXTRAS)]'
	{ head -1 constraints.txt; build/constraints/bin/pip freeze --exclude-editable | sed 's/+cpu$$//'; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) build dist docs/_build demo

$(READY): pyproject.toml weights/pyproject.toml constraints.txt
	@echo "creating $(VENV); this takes a minute or two"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -qq -c constraints.txt -e ./weights -e '.[$(EXTRAS)]'
	@touch $@
