# Everything lives in .venv. `make setup` builds it once, and again only when the requirements change.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Two threads on two busy cores slow torch down tenfold and more, so tests get one that does not spin.
ONE_THREAD := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

.PHONY: setup quickstart notebooks test test-fast test-slow test-plain-cpu lint upstream families docs integrations

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

quickstart: setup
	$(BIN)/emor3 quickstart

# What Colab and Jupyter open, from the scripts; and all of them run, on the embedded model. A part of the slow tests.
notebooks: setup
	$(BIN)/python scripts/write_notebooks.py
	$(ONE_THREAD) $(BIN)/pytest tests/test_notebooks.py --numprocesses 2

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint test-fast test-slow

test-fast: setup
	$(ONE_THREAD) $(BIN)/pytest -m 'not slow' --numprocesses 2

test-slow: setup
	$(ONE_THREAD) $(BIN)/pytest -m slow --numprocesses 2 --dist loadfile

# The arithmetic of a CPU without AVX, on any machine: sums are rounded in another order.
test-plain-cpu: setup
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 $(MAKE) test-fast

# $(call layer,FOLDER): a fresh environment over .venv, in which what is installed there stands before .venv's.
PLACE := import sysconfig; print(sysconfig.get_path("purelib"))
define layer
$(BIN)/python -m venv --clear $(1)
echo "import site; site.addsitedir('$$($(BIN)/python -c '$(PLACE)')')" \
	> $$($(1)/bin/python -c '$(PLACE)')/tested.pth
endef

# The newest TRL and transformers, past our own bounds, against the tests of what we rely on in them: says what broke, and
# with which versions. docs/log.md has the last result. A layer over .venv, in which only what they need is another release.
UPSTREAM := .venv-upstream
CONTRACTS := tests/test_upstream.py tests/models/test_architectures.py tests/training/test_shared_prompts.py \
	tests/training/test_trainer.py tests/training/test_going_on.py \
	tests/training/test_train.py::test_every_way_to_train_resumes_exactly
VERSIONS := from importlib.metadata import version; \
	print(*(f"{name} {version(name)}" for name in ("trl", "transformers", "torch", "accelerate", "peft")), sep=", ")

upstream: setup
	$(call layer,$(UPSTREAM))
	$(UPSTREAM)/bin/python -m pip install --quiet --upgrade trl transformers # beside emor3, whose bounds pip then only tells
	$(ONE_THREAD) $(UPSTREAM)/bin/python -m pytest --numprocesses 2 -rfE $(CONTRACTS); status=$$?; \
	$(UPSTREAM)/bin/python -c '$(VERSIONS)'; exit $$status

# All families of docs/models.md, also those that need more packages than emor3 does, in an environment that has them.
FAMILIES := .venv-families
TORCHVISION := 'torchvision==0.28.*' # that of torch 2.13 (constraints.txt)

families: setup
	$(call layer,$(FAMILIES))
	$(FAMILIES)/bin/python -m pip install --quiet --no-deps $(TORCHVISION) num2words timm
	$(ONE_THREAD) $(FAMILIES)/bin/python -m pytest -rfE tests/models/test_families.py tests/models/test_architectures.py \
		tests/models/test_packed_rows.py tests/models/engines/test_batches.py

# The documentation as a site, in site/: a link, anchor or name that leads nowhere ends it, and so does a page that would
# load anything from elsewhere. It needs none of .venv: docstrings are read, not imported.
DOCS := .venv-docs
EXTRA := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")
LOADED := <(script|link|img|iframe|source)\b[^>]*(src|href)="?(https?:)?//

docs: $(DOCS)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --quiet
	! grep --recursive --extended-regexp --include='*.html' --only-matching '$(LOADED)[^ >]*' site
	@echo "open site/index.html in a browser"

$(DOCS)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DOCS)
	$(PYTHON) -c '$(EXTRA)' > $(DOCS)/requirements.txt
	$(DOCS)/bin/python -m pip install --quiet --constraint constraints.txt --requirement $(DOCS)/requirements.txt
	touch $@

# Our reward in other trainers (docs/trainers.md): for each host an environment of its own, in which the host's loader
# loads our plugin. A layer over .venv with the host and what its loader imports, not its GPU engines. TRL's own command
# line trains three steps. EasyR1 is no package: its loader is followed step by step.
HOSTS := verl swift verifiers lmms vlmeval inspect
HOST_verl := --no-deps 'verl==0.9.*' ray omegaconf hydra-core 'antlr4-python3-runtime==4.9.*' tensordict codetiming pyvers \
	dill orjson torchdata cloudpickle jsonschema msgpack requests urllib3 idna certifi charset_normalizer \
	aiohttp aiohappyeyeballs aiosignal frozenlist multidict yarl propcache attrs
HOST_swift := --no-deps 'ms-swift==4.6.*' modelscope modelscope_hub addict dacite json-repair requests urllib3 idna certifi \
	charset_normalizer simplejson sortedcontainers attrs cryptography cffi pycparser \
	aiohttp aiohappyeyeballs aiosignal frozenlist multidict yarl propcache
HOST_verifiers := 'verifiers==0.4.*'
HOST_lmms := --no-deps 'lmms-eval==0.7.*' evaluate requests openai tenacity numexpr sacrebleu pytablewriter jsonlines zss \
	tiktoken loguru qwen-vl-utils nltk httpx portalocker tabulate colorama lxml \
	urllib3 idna certifi charset_normalizer aiohttp aiohappyeyeballs aiosignal frozenlist multidict yarl propcache attrs
HOST_vlmeval := --no-deps 'ms-vlmeval==0.0.20' $(TORCHVISION) 'antlr4-python3-runtime==4.11.*' decord imageio jieba \
	json-repair latex2sympy2-extended levenshtein math-verify nltk num2words opencv-python-headless portalocker pylatexenc \
	qwen-vl-utils rapidfuzz requests urllib3 idna certifi charset_normalizer rouge six sty tabulate termcolor \
	timeout-decorator validators
HOST_inspect := 'inspect-ai>=0.3.285,<0.4'
CONTRACT := -o addopts= -o pythonpath=tests/support -q -rfE

integrations: setup $(HOSTS:%=integration-%)
	$(ONE_THREAD) $(BIN)/pytest $(CONTRACT) integrations/test_easyr1_contract.py integrations/test_trl_command.py

integration-%: setup
	$(call layer,.venv-$*)
	.venv-$*/bin/python -m pip install --quiet $(HOST_$*)
	$(ONE_THREAD) .venv-$*/bin/python -m pytest $(CONTRACT) integrations/test_$*_contract.py
