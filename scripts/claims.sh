#!/usr/bin/env bash
# The claims table of docs/results/nano.md: three seeds of Stage I and Stage II, each reward alone, Stage I without
# meta-prompts, and all of them on 200 test samples a task, on the quickstart's data; its trainings are seed 0. Over an hour
# on two cores. Interrupted, the same command goes on.
set -euo pipefail
bash "$(dirname "$0")/quickstart.sh"
source "$(dirname "$0")/env.sh"
data=outputs/data/quickstart out=outputs/claims
for seed in 0 1 2; do
  sft=outputs/quickstart-sft
  stage_two() { # name, then the options of the run
    together etchr.rl experiment=nano_rl seed=$seed sft="$sft/adapter" data.paths=[$data-rl] validation.paths=[$data] \
      out="$out/$1-s$seed" "${@:2}"
  }
  if [ $seed != 0 ]; then
    sft=$out/sft-s$seed
    together etchr.sft experiment=nano_sft seed=$seed data.paths=[$data] out="$sft"
    stage_two rl
  fi
  together etchr.sft experiment=nano_sft seed=$seed data.paths=[$data] data.router=configs/router/none.yaml \
    out=$out/sft-nometa-s$seed
  stage_two rl-guidance reward.guidance_weight=1
  stage_two rl-correctness reward.guidance_weight=0
done
together evaluation experiment=claims
python -m evaluation claims
