#!/usr/bin/env bash
# Seconds per prompt of Stage II against a loop that samples one edit at a time, in outputs/bench_rl/table.md.
# Options as key=value, see `bash scripts/bench_rl.sh --help`.
set -euo pipefail
source "$(dirname "$0")/env.sh"
python -m data_prep all split=train seed=1 num_samples=16 out=outputs/data/bench_rl/64
exec python -m etchr.rl.bench "$@"
