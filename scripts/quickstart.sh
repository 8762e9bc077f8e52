#!/usr/bin/env bash
# From nothing to a table and pictures: data, Stage I and Stage II on the nano base editor, edits, verification, answers,
# report. The trainings are shorter than those of the presets, so that it takes less than half an hour on two cores.
# `quickstart.sh smoke` does the same in small. Interrupted, the same command goes on where it stopped.
set -euo pipefail
source "$(dirname "$0")/env.sh"
name=quickstart samples=200 pairs=1000 teacher=700 prompts=500 held_out=60
sft=(steps=750 validation.every=750) teach=(steps=120) rl=(iterations=40 validation.every=20)
case "${1:-}" in
  "") ;;
  smoke)
    name=quickstart-smoke samples=4 pairs=32 teacher=16 prompts=16 held_out=4
    sft=(steps=10 validation.num_samples=6 validation.num_pictures=6)
    teach=(steps=4)
    rl=(iterations=2 validation.every=2 validation.num_samples=6 validation.num_pictures=6)
    ;;
  *) echo "usage: bash scripts/quickstart.sh [smoke]" >&2; exit 2 ;;
esac
data=outputs/data/$name
python -m data_prep all split=train seed=1 num_samples=$pairs out=$data
python -m data_prep all split=val seed=2 num_samples=$held_out out=$data
python -m data_prep all split=train seed=3 num_samples=$prompts out=$data-rl
python -m data_prep all split=train seed=4 num_samples=$teacher undone_share=0.25 out=$data-teacher  # as a model edits
python -m data_prep all split=test seed=2026 num_samples=$samples out=$data
python -m etchr.sft experiment=nano_sft data.paths=[$data] out=outputs/$name-sft-checked "${sft[@]}"
python -m etchr.sft experiment=nano_sft_teacher data.paths=[$data-teacher] adapter.init=outputs/$name-sft-checked/adapter \
  out=outputs/$name-sft "${teach[@]}"
python -m etchr.rl experiment=nano_rl sft=outputs/$name-sft/adapter data.paths=[$data-rl] \
  validation.paths=[$data] out=outputs/$name-rl "${rl[@]}"
python -m evaluation experiment=quickstart data=$data out=outputs/$name \
  systems.sft_checked_evr.lora=outputs/$name-sft-checked/adapter \
  systems.sft_evr.lora=outputs/$name-sft/adapter systems.rl_evr.lora=outputs/$name-rl/adapter
echo "done: open outputs/$name/report.html in a browser; the numbers are in outputs/$name/report.json,"
echo "the trainings in outputs/$name-sft and outputs/$name-rl"
