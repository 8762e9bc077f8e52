#!/usr/bin/env bash
# Serve the understanding model with vLLM, one server per GPU; prints the options by which evaluation and training reach it.
# bash scripts/serve_vllm.sh MODEL key=value ... [-- FLAGS OF VLLM], see `bash scripts/serve_vllm.sh --help`.
# vLLM comes with `.venv/bin/pip install -e '.[serve]'`; vllm=PATH names one that is installed elsewhere.
set -euo pipefail
source "$(dirname "$0")/env.sh"
exec python -m evaluation.vllm_server "$@"
