#!/usr/bin/env bash
# Lint, types, the smoke quickstart and the tests, in the project's own virtual environment.
# Arguments go to pytest: `bash scripts/test.sh tests/editor -k lora` runs those tests alone, `bash scripts/test.sh -m slow`
# the few that take longest and are left out here; scripts/attack.sh has the hostile ones.
set -euo pipefail
source "$(dirname "$0")/env.sh"
if [ $# -gt 0 ]; then
  exec python -m pytest "$@"
fi
ruff check .
ruff format --check .
mypy & types=$!
bash scripts/quickstart.sh smoke
wait $types
OMP_NUM_THREADS=1 python -m pytest -m "not slow" -n logical --maxprocesses 8 --dist worksteal
