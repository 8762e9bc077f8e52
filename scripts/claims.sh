#!/usr/bin/env bash
# The claims table of docs/results/nano.md: three seeds of Stage I and Stage II, each reward alone, Stage I without
# meta-prompts, and all of them on 200 test samples a task, on the quickstart's data; its trainings are seed 0. Over an hour
# on two cores. Interrupted, the same command goes on.
set -euo pipefail
bash "$(dirname "$0")/quickstart.sh"
source "$(dirname "$0")/env.sh"
data=outputs/data/quickstart out=outputs/claims
mkdir -p $out
ln -sfn ../quickstart-sft $out/sft-s0
stage_one() { # seeds, name, then the options of the runs
  together etchr.sft --multirun seed="$1" experiment=nano_sft data.paths=[$data] out="$out/$2-s\${seed}" "${@:3}"
}
stage_two() { # the same; each over its own Stage I
  together etchr.rl --multirun seed="$1" experiment=nano_rl sft="$out/sft-s\${seed}/adapter" data.paths=[$data-rl] \
    validation.paths=[$data] out="$out/$2-s\${seed}" "${@:3}"
}
stage_one 1,2 sft
stage_one 0,1,2 sft-nometa data.router=configs/router/none.yaml
stage_two 1,2 rl
stage_two 0,1,2 rl-guidance reward.guidance_weight=1
stage_two 0,1,2 rl-correctness reward.guidance_weight=0
together evaluation experiment=claims
python -m evaluation claims
