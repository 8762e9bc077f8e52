#!/usr/bin/env bash
# From nothing to a table and pictures: held-out data, edits by the nano base editor, verification, answers, report.
# `quickstart.sh smoke` does the same on few samples. Interrupted, the same command goes on where it stopped.
set -euo pipefail
source "$(dirname "$0")/env.sh"
name=quickstart samples=200
case "${1:-}" in
  "") ;;
  smoke) name=quickstart-smoke samples=12 ;;
  *) echo "usage: bash scripts/quickstart.sh [smoke]" >&2; exit 2 ;;
esac
python -m data_prep all split=test seed=2026 num_samples=$samples out=outputs/data/$name
python -m evaluation experiment=quickstart data=outputs/data/$name out=outputs/$name
echo "done: open outputs/$name/report.html in a browser; the numbers are in outputs/$name/report.json"
