# The two commands of a newcomer are `make demo` and `make test`; each sets up .venv first, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml xent/_kernels.pyx xent/_kernels.pxd $(wildcard xent/bridge/* xent/csrc/*.* xent/csrc/*/*)

BENCH := $(BIN)/pytest -q -o python_files='bench_*.py' -m '' --benchmark-only --benchmark-quiet
RESULTS := bench/results

.PHONY: help demo boosting regression test test-slow test-peers fuzz guided guided-corpus soak sanitize races coverage memcheck lint types headers platforms wheel bench bench-avx2 bench-quick accuracy profile docs site clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

# xent is rebuilt when a compiled source changes, some minutes; Python files are used where they lie. The other stamps are sets of
# packages, which alone are installed: dependency groups of developers, and extras of users, with which pip would build xent anew.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --upgrade pip

$(VENV)/built.stamp: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install -qq --editable .
	@touch $@

GROUPS := test bench lint dev wheel docs
$(GROUPS:%=$(VENV)/%.stamp): $(VENV)/%.stamp: $(VENV)/built.stamp pyproject.toml
	$(BIN)/python -m pip install -qq --group $*
	@touch $@

EXTRAS = import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["$*"], sep="\n")
$(VENV)/%.stamp: $(VENV)/built.stamp pyproject.toml
	$(BIN)/python -c '$(EXTRAS)' > $(VENV)/$*.txt
	$(BIN)/python -m pip install -qq -r $(VENV)/$*.txt
	@touch $@

demo: $(VENV)/demo.stamp  ## train a small CNN on handwritten digits; writes demo.png and demo.json
	$(BIN)/python examples/demo.py

boosting: $(VENV)/boosting.stamp  ## LightGBM and XGBoost with xent as the objective, beside their own
	$(BIN)/python examples/boosting.py

regression: $(VENV)/demo.stamp  ## softmax regression with SciPy's L-BFGS, beside scikit-learn's
	$(BIN)/python examples/softmax_regression.py

test: $(VENV)/test.stamp  ## run the test suite
	$(BIN)/pytest -q -n auto

test-slow: $(VENV)/test.stamp  ## run the tests that take minutes
	$(BIN)/pytest -q -m slow

test-peers: $(VENV)/test.stamp $(VENV)/bench.stamp  ## compare every option with PyTorch and JAX
	$(BIN)/pytest -q -m peers tests/peers

fuzz: $(VENV)/test.stamp  ## fuzz every public function, CALLS=20000 times on each instruction set
	for isa in $$($(BIN)/python -c 'import xent; print(*xent.show_config(mode="dicts")["isa_usable"])'); do \
	    XENT_ISA=$$isa $(BIN)/python -m tests.fuzz --seed $(SEED) --calls $(CALLS) || exit 1; \
	done
SEED := 1
CALLS := 20000

# A program of its own, in build/guided. What it finds is in build/guided/found, what it keeps in build/guided/corpus, of which
# `make guided-corpus` puts into the repository what reaches anything new.
GUIDED := clang -std=gnu11 -O1 -g1 -ffp-contract=off -fno-trapping-math -fno-math-errno -mavx2 -mfma -mf16c -DXENT_ISA=kernels \
	-Wno-unused-function -Ixent -Ixent/csrc -Itests -fsanitize=address,undefined -fno-sanitize-recover=all
guided: build/guided/guided  ## kernels with AVX2 under sanitizers, called as coverage guides it, for MINUTES=120; needs clang
	mkdir -p build/guided/found
	$(PYTHON) tests/fuzz/corpus.py --unpack build/guided/corpus
	end=$$(($$(date +%s) + 60 * $(MINUTES))); \
	while rest=$$((end - $$(date +%s))); [ $$rest -gt 0 ]; do \
	    ASAN_OPTIONS=detect_leaks=0 build/guided/guided -max_len=512 -max_total_time=$$rest -timeout=60 \
	        -artifact_prefix=build/guided/found/ build/guided/corpus; \
	done
	@find build/guided/found -name 'crash-*' | grep . && exit 1 || exit 0

guided-corpus: build/guided/guided  ## what `make guided` has kept, into tests/fuzz/corpus.txt
	rm -rf build/guided/least && mkdir -p build/guided/least
	build/guided/guided -merge=1 build/guided/least build/guided/corpus
	$(PYTHON) tests/fuzz/corpus.py --pack build/guided/least

build/guided/guided: $(wildcard tests/fuzz/guided* tests/kernel_calls.h xent/csrc/*.* xent/csrc/*/*)
	mkdir -p build/guided
	for family in softmax elements images pools; do \
	    $(GUIDED) -fwrapv -fsanitize=fuzzer-no-link -c -o build/guided/$$family.o xent/csrc/$$family/kernels.c & \
	done; wait
	$(GUIDED) -fsanitize=fuzzer -o $@ tests/fuzz/guided.c build/guided/*.o $(addprefix xent/csrc/,walk.c scan.c reorder.c \
	    softmax/plan.c elements/plan.c images/plan.c pools/plan.c) -lm

soak: $(VENV)/test.stamp  ## mixed calls from several threads and processes, for MINUTES=120
	$(BIN)/python tests/soak.py --minutes $(MINUTES)
MINUTES := 120

# The numeric suite and the fuzzer on a build of its own, in build/sanitized, with the sanitizers of gcc. Python itself has leaks
# and no sanitizer, so these are not looked for and the libraries are loaded first.
SANITIZED := PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
	OMP_NUM_THREADS=2 PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/build/sanitized:$(CURDIR)/tests \
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so) $$($(CC) -print-file-name=libstdc++.so.6)"
# The words of a sanitizer that ends the process are lost where pytest captures them: -s. What test_isa.py leaves out is left out.
NUMERIC := $(addprefix tests/test_,$(addsuffix .py,fuzz conv conv_prepared conv_transpose conv_sixteen_bits pool softmax softmax_axes \
	cross_entropy cross_entropy_options second_order extreme nll evaluate tokens sigmoid sigmoid_cross_entropy probabilities \
	sparse_distillation extreme_elements linear sampled sixteen_bits special_values vmath))
ELSEWHERE = $(shell sed -n 's/^ELSEWHERE = "\(.*\)"/not (\1)/p' tests/test_isa.py)
ISAS := avx512 avx2 baseline
sanitize: $(VENV)/test.stamp  ## the numeric suite and the fuzzer under the address and undefined-behaviour sanitizers
	XENT_SANITIZE=address,undefined $(BIN)/python setup.py -q build --build-temp build/sanitize-objects --build-lib build/sanitized
	for isa in $(ISAS); do $(SANITIZED) XENT_ISA=$$isa $(BIN)/python -m pytest -q -x -s -k "$(ELSEWHERE)" $(NUMERIC) || exit 1; done

# Programs of their own: the sanitizer does not understand the barriers of gcc's OpenMP.
RACES := $(CC) -std=gnu11 -O1 -g1 -fwrapv -ffp-contract=off -fsanitize=thread -mavx2 -mfma -mf16c -DXENT_ISA=kernels -DTHREADS=3 \
	-Ixent -Ixent/csrc
races:  ## the chunks of kernels on several threads, under the thread sanitizer, with AVX2
	mkdir -p build
	$(RACES) -o build/races tests/same_bits.c $(addprefix xent/csrc/,walk.c softmax/plan.c elements/plan.c \
	    softmax/kernels.c elements/kernels.c) -lm
	$(RACES) -o build/image-races tests/image_races.c $(addprefix xent/csrc/,reorder.c images/plan.c pools/plan.c \
	    images/kernels.c pools/kernels.c) -lm
	TSAN_OPTIONS=halt_on_error=1 build/races
	TSAN_OPTIONS=halt_on_error=1 build/image-races

# On a build of its own, in build/coverage. Adapters of PyTorch and JAX count if these are there, as after `make test-peers`.
COVERED := PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/build/coverage:$(CURDIR)/tests
BY_COVERAGE := --cov=$(CURDIR)/build/coverage/xent --cov-branch
coverage: $(VENV)/test.stamp  ## which lines and branches of the C and of Python the suite runs; an hour of a processor
	XENT_COVERAGE=1 $(BIN)/python setup.py -q build --build-temp build/coverage-objects --build-lib build/coverage
	find build/coverage-objects -name '*.gcda' -delete
	$(COVERED) $(BIN)/python -m pytest -q -n auto $(BY_COVERAGE) tests
	for isa in $(ISAS); do \
	    $(COVERED) XENT_ISA=$$isa $(BIN)/python -m pytest -q -n auto -k "large_results or $(ELSEWHERE)" tests/test_layout.py $(NUMERIC) \
	        || exit 1; \
	done
	! $(BIN)/python -c 'import torch, jax' 2> /dev/null || \
	    $(COVERED) $(BIN)/python -m pytest -q $(BY_COVERAGE) --cov-append -m peers tests/peers
	$(BIN)/python tools/coverage.py build/coverage-objects

# valgrind knows no AVX-512: the baseline and AVX2, a few calls of every function.
memcheck: $(VENV)/test.stamp  ## the fuzzer under valgrind, on the baseline and AVX2
	for isa in baseline avx2; do \
	    XENT_ISA=$$isa PYTHONMALLOC=malloc OMP_NUM_THREADS=2 valgrind -q --error-exitcode=1 --errors-for-leak-kinds=none \
	        --suppressions=tests/valgrind.supp $(BIN)/python -m tests.fuzz --seed 1 --calls 300 || exit 1; \
	done

lint: $(VENV)/lint.stamp $(VENV)/test.stamp  ## check style, types and stubs
	$(BIN)/ruff check .
	PATH=$(CURDIR)/$(BIN):$$PATH cython-lint xent/_kernels.pyx $(wildcard xent/bridge/*.pxi)
	MYPYPATH=. $(BIN)/python -m mypy.stubtest xent --allowlist tests/stubtest-allowlist.txt
	$(BIN)/python -m mypy
	$(BIN)/codespell
	$(BIN)/clang-format --dry-run -Werror $(wildcard xent/csrc/*.[ch] xent/csrc/*/*.[ch])
	$(BIN)/python tools/headers.py

types: $(VENV)/test.stamp  ## check calls as users write them with mypy (as lint does) and pyright, which it installs
	$(BIN)/python -m mypy
	$(BIN)/python -m pip install -qq pyright
	$(BIN)/pyright --pythonpath $(BIN)/python tests/typed_calls.py

# WHEEL=--short: a suite on one CPython, and on the others a few files.
wheel: $(VENV)/wheel.stamp  ## build the sdist and the wheel into dist/, check it, and run the suite on it, on every CPython there is
	$(BIN)/python tools/wheel.py $(WHEEL)

platforms: $(BIN)/python  ## compile the C for Windows, macOS, musl and AArch64 with Clang; some minutes
	$(BIN)/python -m pip install -qq setuptools ziglang
	$(BIN)/python tools/platforms.py

headers: $(VENV)/lint.stamp  ## compile every C header alone, for each type and instruction set
	$(BIN)/python tools/headers.py

# A process and a JSON file for each benchmark, so that one alone can be run again.
bench: $(VENV)/bench.stamp  ## measure the operators against their peers and the machine; three quarters of an hour
	mkdir -p $(RESULTS)
	for file in bench/bench_*.py; do \
	    $(BENCH) $$file --benchmark-json=$(RESULTS)/$$(basename $$file .py).json || exit 1; \
	done
	$(BIN)/python bench/report.py $(RESULTS)
	$(BIN)/python bench/charts.py $(RESULTS)

# The peers held to AVX2 as well, where the processor could do more; python bench/report.py with both folders compares.
bench-avx2: export XENT_ISA := avx2
bench-avx2: export ATEN_CPU_CAPABILITY := avx2
bench-avx2: export ONEDNN_MAX_CPU_ISA := AVX2
bench-avx2: export XLA_FLAGS := --xla_cpu_max_isa=AVX2
bench-avx2:  ## the same with AVX2, into bench/results-avx2
	$(MAKE) bench RESULTS=bench/results-avx2

bench-quick: $(VENV)/bench.stamp  ## the same on a few shapes, in two minutes
	mkdir -p $(RESULTS)/quick
	$(BENCH) bench --quick --seconds 0.1 --benchmark-json=$(RESULTS)/quick/all.json
	$(BIN)/python bench/report.py $(RESULTS)/quick
	$(BIN)/python bench/charts.py $(RESULTS)/quick

.PHONY: bench-track bench-baseline
bench-track: $(VENV)/built.stamp  ## whether this commit has lost speed, beside the baseline of bench/baseline.json; two minutes
	$(BIN)/python bench/track.py

bench-baseline: $(VENV)/built.stamp  ## make this commit the baseline for this kind of machine
	$(BIN)/python bench/track.py --write

accuracy: $(VENV)/bench.stamp  ## compare the errors of all implementations; writes docs/accuracy.md
	$(BIN)/python bench/accuracy.py

profile: $(VENV)/bench.stamp  ## show in which functions the time of typical calls goes
	$(BIN)/python bench/profile_kernels.py

docs: $(VENV)/demo.stamp  ## draw the plots of docs/
	$(BIN)/python docs/plots.py

# GALLERY=0 shows the examples without running them.
GALLERY := 1
site: $(VENV)/docs.stamp  ## build the site of docs/, the API and the examples, in build/site
	$(BIN)/sphinx-build -q -n -W --keep-going -D plot_gallery=$(GALLERY) docs build/site
	$(BIN)/python tools/check_site.py build/site

clean:  ## remove the environment and everything built
	rm -rf $(VENV) $(RESULTS) build dist *.egg-info xent/*.so xent/_kernels.c demo.png demo.json docs/api docs/gallery
	find . -name __pycache__ -prune -exec rm -rf {} +
