# make run    set up, run the example job, say where the pictures are
# make test   set up, start what servers the tests need, run all tests
# make check  format, lint, types, import contracts
# make chaos  cause every named fault on a real object store and a real cluster; minutes
# make k8s    render the Kubernetes overlays and check them, without a cluster
# make s3     an S3 server on this machine to try it on; Ctrl-C stops it
# make triton  a Triton Inference Server on this machine, with the shapes model; make triton-stop
# make bench  measure ImageMill against diffusers and Ray Data, side by side; writes docs/performance.md
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TRITON := .venv-triton
# a file is compiled when it is first imported: most never are, and all take a minute
PIP := --quiet --disable-pip-version-check --no-compile
ifndef OUT
OUT := out/example-$(shell date +%Y%m%d-%H%M%S)
endif

.PHONY: run test check chaos bench k8s s3 triton triton-stop clean

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ImageMill needs Python 3.11 or newer; say which with make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(PIP) -c constraints.txt -e '.[s3,triton,dev]'
	@touch $@

run: $(VENV)/.ready
	$(BIN)/imagemill run input.path=examples/prompts.parquet output.path=$(OUT)
	@echo "The pictures are in $(OUT)/images, all on one sheet in $(OUT)/contact_sheet.png;"
	@echo "open $(OUT)/report.html in a browser, or check it all: $(BIN)/imagemill verify $(OUT)"

test:
	@$(MAKE) --no-print-directory -j2 $(VENV)/.ready $(TRITON)/.ready
	@$(BIN)/python -m tests.prometheus
	OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

check: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

chaos: $(VENV)/.ready
	$(BIN)/python -m tests.chaos $(FAULTS)

bench: $(VENV)/.ready
	$(BIN)/python -m benchmarks $(BENCH)

k8s: $(VENV)/.ready
	@$(BIN)/python -m k8s

s3: $(VENV)/.ready
	@$(BIN)/python -m tests.serve_s3 out/s3

# numpy 1 is what nvidia-pytriton asks for, numpy 2 what our pyarrow needs: they cannot share a place
$(TRITON)/.ready: constraints-triton.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ImageMill needs Python 3.11 or newer; say which with make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(TRITON)
	$(TRITON)/bin/pip install $(PIP) -r constraints-triton.txt
	@touch $@

triton: $(VENV)/.ready $(TRITON)/.ready
	@$(BIN)/python -m tests.serve_triton start $(EXPORT)

triton-stop: $(VENV)/.ready
	@$(BIN)/python -m tests.serve_triton stop

clean:
	rm -rf $(VENV) $(TRITON) build *.egg-info
