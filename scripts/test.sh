#!/usr/bin/env bash
# Lint, types, the whole test suite, and the smoke quickstart, in the project's own virtual environment.
# Arguments go to pytest: `bash scripts/test.sh tests/editor -k lora` runs those tests alone.
set -euo pipefail
source "$(dirname "$0")/env.sh"
if [ $# -gt 0 ]; then
  exec python -m pytest "$@"
fi
ruff check .
ruff format --check .
mypy
bash scripts/quickstart.sh smoke
OMP_NUM_THREADS=1 python -m pytest -n logical --maxprocesses 8
