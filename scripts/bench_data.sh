#!/usr/bin/env bash
# Rows a second, processor time, disk and memory of every data source on made-up inputs, in outputs/bench_data/table.md.
# Options as key=value, see `bash scripts/bench_data.sh --help`.
set -euo pipefail
source "$(dirname "$0")/env.sh"
exec python -m data_prep.bench "$@"
