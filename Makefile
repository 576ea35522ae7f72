# Everything starts here, on a machine with Python 3.11+, make and gcc: each target makes its own .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One torch for machines without a GPU; with one, pip takes the newest CUDA build that pyproject allows.
CPU_TORCH := torch==2.13.0
CPU_INDEX ?= https://download.pytorch.org/whl/cpu
GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -c GPU)
DEMO := corpora/demo
RUN := runs/demo
WORDS := --tokenizer $(DEMO)/tokenizer.json --max-tokens 126
PIXELS := --regions pixels --grid 4 --patch 16 --num-classes 64
REWRITTEN := --tokenizer $(DEMO)/tokenizer.json --paraphrase demo
CLASSES := --visual-words $(DEMO)/pairs/images/visual_words.npy
# Processors with bfloat16 matrix units take less time with it (benchmarks/results.md); others stay with fp32.
PRECISION := $(shell grep -qw amx_bf16 /proc/cpuinfo 2>/dev/null && echo bf16 || echo fp32)
PRETRAIN := CUDA_VISIBLE_DEVICES= DS_ACCELERATOR=cpu $(BIN)/deepspeed --num_gpus 2 \
	--module unimo_ds.pretrain unimo_ds/configs/demo.toml train.precision=$(PRECISION)

STARTED := $(shell date +%s)

.PHONY: demo demo-corpora test coverage kernels-matrix bench lint install clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
ifeq ($(filter-out 0,$(GPU)),)
	$(BIN)/pip install --quiet --retries 0 --timeout 15 --extra-index-url $(CPU_INDEX) $(CPU_TORCH)
endif
	$(BIN)/pip install --quiet -e .[dev]
	touch $@

demo-corpora: install
	rm -rf $(DEMO)
	$(BIN)/unimo-prep demo $(DEMO)/raw --pairs 6000
	$(BIN)/unimo-prep tokenizer $(DEMO)/tokenizer.json $(DEMO)/raw/texts/prose.jsonl \
		$(DEMO)/raw/pairs/train.jsonl --vocab-size 512
	$(BIN)/unimo-prep text $(DEMO)/texts $(DEMO)/raw/texts/prose.jsonl $(WORDS)
	$(BIN)/unimo-prep pairs $(DEMO)/pairs $(DEMO)/raw/pairs/train.jsonl $(WORDS) $(PIXELS)
	$(BIN)/unimo-prep images $(DEMO)/images $(DEMO)/raw/images $(PIXELS) $(CLASSES)
	$(BIN)/unimo-prep pairs $(DEMO)/heldout $(DEMO)/raw/pairs/heldout.jsonl $(WORDS) $(PIXELS) $(CLASSES)
	$(BIN)/unimo-prep rewrite $(DEMO)/pairs $(REWRITTEN)
	$(BIN)/unimo-prep rewrite $(DEMO)/heldout $(REWRITTEN)
	$(BIN)/unimo-prep retrieve $(DEMO)/pairs --tokenizer $(DEMO)/tokenizer.json --texts $(DEMO)/texts --images $(DEMO)/images
	$(BIN)/unimo-prep verify $(DEMO)/texts $(DEMO)/images $(DEMO)/pairs $(DEMO)/heldout

# A model is trained, stopped, resumed from its checkpoint, converted and shown.
demo: demo-corpora
	rm -rf $(RUN)
	$(PRETRAIN) train.stop_after=350
	$(PRETRAIN)
	$(BIN)/unimo-convert zero $(RUN) $(RUN)/model
	$(BIN)/python -m unimo_ds.report $(RUN) $(RUN)/model --out $(RUN)/report.html \
		--scenes $(DEMO)/raw/pairs/heldout.jsonl --started $(STARTED)
	@echo "Open $(RUN)/report.html in a browser; the numbers are in $(RUN)/summary.json"

test: install
	bash tests/run.sh $(BIN)

# Which lines the suite runs; counting them makes it take half as long again.
coverage: install
	rm -f .coverage .coverage.*
	bash tests/run.sh $(BIN) --cov --cov-append --cov-report=
	$(BIN)/coverage report --skip-covered --fail-under=85

# The kernels on the Tritons that CUDA builds of torch pin (2.11: 3.6.0, 2.12 and 2.13: 3.7) and on the
# newest: compiled ahead of time and interpreted. The interpreter of 3.6 fails on numpy 2.4.
TRITONS := 3.6.0 3.7.1 3.9.0
kernels-matrix: $(TRITONS:%=kernels-on-%)

kernels-on-%: build/triton-%/.installed
	OMP_NUM_THREADS=1 TRITON_INTERPRET=1 build/triton-$*/bin/python -m pytest \
		--confcutdir=tests/kernels -p no:cacheprovider \
		tests/kernels/test_ahead_of_time.py tests/kernels/test_attention_triton.py \
		tests/kernels/test_similarity_triton.py \
		tests/kernels/test_attention_nonfinite.py tests/kernels/test_similarity_nonfinite.py

# A stamp behind two patterns: make would take it for a scrap and remove it.
.PRECIOUS: build/triton-%/.installed
build/triton-%/.installed:
	$(PYTHON) -m venv build/triton-$*
	build/triton-$*/bin/pip install --quiet --retries 0 --timeout 15 --extra-index-url $(CPU_INDEX) $(CPU_TORCH)
	build/triton-$*/bin/pip install --quiet triton==$* 'numpy<2.4' psutil pytest pytest-timeout hypothesis
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/python kernels/bench/run.py
	$(BIN)/python -m benchmarks.run
	$(BIN)/python -m benchmarks.building

clean:
	rm -rf $(VENV) build dist *.egg-info runs corpora
