#!/usr/bin/env bash
# Seconds per prompt of Stage II against a loop that samples one edit at a time, in outputs/bench_rl/table.md.
# Options as key=value, see `bash scripts/bench_rl.sh --help`.
set -euo pipefail
source "$(dirname "$0")/env.sh"
exec python -m etchr.rl.bench "$@"
