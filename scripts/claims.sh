#!/usr/bin/env bash
# The claims table of docs/results/nano.md: three seeds of Stage I and Stage II, each reward alone, Stage I without
# meta-prompts, and all of them on 200 test samples a task, on the quickstart's data. Hours on two cores.
# Interrupted, the same command goes on.
set -euo pipefail
bash "$(dirname "$0")/quickstart.sh"
source "$(dirname "$0")/env.sh"
data=outputs/data/quickstart out=outputs/claims
together() { accelerate launch --config_file configs/accelerate/cpu.yaml -m "$@"; }
stage_two() { # name and seed, then the options of the run
  together etchr.rl experiment=nano_rl seed="$2" sft=$out/sft-s"$2"/adapter data.paths=[$data-rl] \
    validation.paths=[$data] out="$out/$1-s$2" "${@:3}"
}
for seed in 0 1 2; do
  together etchr.sft experiment=nano_sft seed=$seed data.paths=[$data] out=$out/sft-s$seed
  together etchr.sft experiment=nano_sft seed=$seed data.paths=[$data] data.router=configs/router/none.yaml \
    out=$out/sft-nometa-s$seed
  stage_two rl $seed
  stage_two rl-guidance $seed reward.guidance_weight=1
  stage_two rl-correctness $seed reward.guidance_weight=0
done
together evaluation experiment=claims
python -m evaluation claims
