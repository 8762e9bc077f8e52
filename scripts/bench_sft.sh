#!/usr/bin/env bash
# Speed, memory and utilisation of training steps: one row per way to train, in outputs/bench_sft/table.md.
# Options as key=value, see `bash scripts/bench_sft.sh --help`.
set -euo pipefail
source "$(dirname "$0")/env.sh"
exec python -m etchr.sft.bench "$@"
