# Two commands for a fresh clone; they need Python >= 3.10 and make, and put all else into .venv/.
#   make demo   train a VAE on synthetic brain scans; maps, scores and a report (demo-output/)
#   make test   the whole test matrix of tox.ini
PYTHON ?= python3
BIN := .venv/bin

# pyenv keeps its interpreters off PATH, where tox looks for them.
PYENV := $(shell command -v pyenv >/dev/null && printf '%s:' "$$(pyenv root)"/versions/3.1[0-3].*/bin)

.PHONY: demo test clean

# pip reinstalls local folders at every run, so that edited entry points are never stale.
demo: $(BIN)/pip
	$(BIN)/pip install --quiet --constraint tests/constraints.txt \
	    . ./plugins/nidl-likelihoods ./plugins/nidl-backbones ./plugins/nidl-vae './plugins/nidl-neuro[figures]'
	$(BIN)/nidl demo brains --out demo-output

test: $(BIN)/pip
	$(BIN)/pip install --quiet tox tox-uv
	PATH="$(PYENV)$$PATH" $(BIN)/tox run

$(BIN)/pip:
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv .tox demo-output dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
