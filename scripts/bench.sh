#!/usr/bin/env bash
# What things cost on this machine: `bash scripts/bench.sh sft`, `rl`, `evr` or `data`, each with options as key=value.
# sft, rl and data write outputs/bench_NAME/table.md.
set -euo pipefail
source "$(dirname "$0")/env.sh"
if [ "${1:-}" = rl ]; then
  python -m data_prep all split=train seed=1 num_samples=16 out=outputs/data/bench_rl/64
fi
exec python -m etchr.bench "$@"
