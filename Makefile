# `make` alone lists what can be made. PYTHON=python3.12 chooses another Python; TORCH_BACKEND=cpu takes the small build
# of PyTorch on a Linux machine without a GPU.
PYTHON ?= python3
TORCH_BACKEND ?=
BIN := .venv/bin
READY := .venv/.ready
TORCH := torch==2.13.0 -c constraints.txt
SUPPORTED := import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 14) else \
  "mmllm needs Python 3.11 to 3.14 and $(PYTHON) is %d.%d: name another one, as in make setup PYTHON=python3.12" % v)

.DEFAULT_GOAL := help
.PHONY: help setup demo test lab chat docs readme clean

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## .venv with mmllm and everything it needs; does nothing when it is there already
	@:

$(READY): constraints.txt settings.ini setup.py
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON) here: install Python 3.11 to 3.14"; exit 1; }
	@$(PYTHON) -c '$(SUPPORTED)'
	@{ $(BIN)/python -c '$(SUPPORTED)' && $(BIN)/python -m pip --version; } >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv || \
	  { echo "$(PYTHON) cannot make .venv: on Debian and Ubuntu, apt install python3-venv"; exit 1; }
	@echo "installing PyTorch 2.13.0"
ifeq ($(TORCH_BACKEND),)
	@$(BIN)/python -m pip install $(TORCH)
else
	@$(BIN)/python -m pip install -q uv
	@$(BIN)/uv pip install --python $(BIN)/python --torch-backend=$(TORCH_BACKEND) $(TORCH)
endif
	@echo "installing mmllm and what it needs (a few minutes)"
	@$(BIN)/python -m pip install -q -e '.[dev]' $(TORCH)
	@touch $(READY)

demo: setup ## fetch, train, measure and try the lite model: about ten minutes on two cores
	@$(BIN)/mmllm demo
	@echo "Go on: make lab opens the notebooks; $(BIN)/mmllm --help lists the commands."

test: setup ## everything that CI checks
	@$(BIN)/python tools/check.py

lab: setup ## open the notebooks in JupyterLab
	@$(BIN)/jupyter lab --ServerApp.ip=127.0.0.1 --notebook-dir=nbs nbs/tutorials/chat_demo.ipynb

chat: setup ## talk to the model in the browser, on this machine only
	@$(BIN)/mmllm chat --notebook nbs/tutorials/chat_demo.ipynb

docs: setup ## the documentation site, in _docs
	@$(BIN)/python tools/docs.py

readme: setup ## README.md from nbs/index.ipynb
	@$(BIN)/python tools/readme.py

clean: ## remove .venv and what was built; the cache and trained models stay
	rm -rf .venv _docs _proc build dist *.egg-info
