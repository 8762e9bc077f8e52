#!/usr/bin/env bash
# The claims table of docs/results/nano.md: three seeds of Stage I and Stage II, each reward alone, Stage I without
# meta-prompts, and all of them on 200 test samples a task, on the quickstart's data; its trainings are seed 0.
# Interrupted, the same command goes on.
set -euo pipefail
bash "$(dirname "$0")/quickstart.sh"
source "$(dirname "$0")/env.sh"
data=outputs/data/quickstart out=outputs/claims
mkdir -p $out
ln -sfn ../quickstart-sft $out/sft-s0
export OMP_NUM_THREADS=1 # two trainings beside each other, of one thread each, are faster than one on both cores
trap 'kill 0' INT TERM # what runs in the background hears no Ctrl-C
stage_one() { # seeds, name, then the options of the runs
  python -m etchr.sft --multirun seed="$1" experiment=nano_sft data.paths=[$data] out="$out/$2-s\${seed}" "${@:3}"
}
stage_two() { # the same; each over its own Stage I
  python -m etchr.rl --multirun seed="$1" experiment=nano_rl sft="$out/sft-s\${seed}/adapter" data.paths=[$data-rl] \
    validation.paths=[$data] out="$out/$2-s\${seed}" "${@:3}"
}
beside() { # two of these at the same time
  $1 & local first=$! failed=0
  $2 || failed=1
  wait $first && return $failed
}
beside "stage_one 1,2 sft" "stage_one 0,1,2 sft-nometa data.router=configs/router/none.yaml"
beside "stage_two 1 rl" "stage_two 2 rl"
beside "stage_two 0,1,2 rl-guidance reward.guidance_weight=1" "stage_two 0,1,2 rl-correctness reward.guidance_weight=0"
unset OMP_NUM_THREADS
together evaluation experiment=claims
python -m evaluation claims
