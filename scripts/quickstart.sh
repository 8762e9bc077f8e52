#!/usr/bin/env bash
# The paper in miniature: data, Stage I and Stage II on the nano base editor, edits, verification, answers, a table and
# pictures, in two processes. `quickstart.sh smoke` does the same in small.
# Interrupted, the same command goes on where it stopped.
set -euo pipefail
source "$(dirname "$0")/env.sh"
name=quickstart pairs=500 prompts=200 held_out=60 samples=200 sft=() rl=() table=()
case "${1:-}" in
  "") ;;
  smoke)
    name=quickstart-smoke pairs=32 prompts=16 held_out=4 samples=4
    sft=(steps=10) rl=(iterations=2 prompts_per_iteration=8 validation.num_samples=6) table=(num_samples=4)
    ;;
  *) echo "usage: bash scripts/quickstart.sh [smoke]" >&2; exit 2 ;;
esac
data=outputs/data/$name
python -m data_prep all split=train seed=1 num_samples=$pairs shallow=0.6 out=$data # few, most of them easy, with edits
python -m data_prep all split=val seed=2 num_samples=$held_out out=$data
python -m data_prep all split=test seed=2026 num_samples=$samples out=$data
python -m data_prep all split=train seed=3 num_samples=$prompts out=$data-prompts # of every depth
python -m data_prep.filter_rl paths=[$data-prompts] out=$data-rl quota=null # Eq. 1; Stage II sees no edits of these
together etchr.sft experiment=nano_sft data.paths=[$data] out=outputs/$name-sft "${sft[@]}"
together etchr.rl experiment=nano_rl sft=outputs/$name-sft/adapter data.paths=[$data-rl] validation.paths=[$data] \
  out=outputs/$name-rl "${rl[@]}"
together evaluation experiment=quickstart data=$data out=outputs/$name systems.sft_evr.lora=outputs/$name-sft/adapter \
  systems.rl_evr.lora=outputs/$name-rl/adapter "${table[@]}"
