#!/usr/bin/env bash
# The comparison of RL.md: five ways of Stage II at nano size on three seeds each, over the quickstart's Stage I adapter,
# one after the other (needs a C++ compiler; COMPILE= leaves it out and takes longer). Interrupted, the same command goes on.
set -euo pipefail
bash "$(dirname "$0")/quickstart.sh"
source "$(dirname "$0")/env.sh"
data=outputs/data/quickstart
train() { # name and experiment, then the options of the run
  python -m etchr.rl experiment="$2" sft=outputs/quickstart-sft/adapter data.paths=[$data-rl] validation.paths=[$data] \
    threads=1 ${COMPILE-model.compile=inductor} out="outputs/rl_runs/$1" "${@:3}"
}
for seed in 0 1 2; do
  train ours_s$seed nano_rl seed=$seed
  train gdpo_s$seed nano_rl seed=$seed objective.advantage=gdpo
  train guidance_s$seed nano_rl seed=$seed reward.guidance_weight=1
  train correctness_s$seed nano_rl seed=$seed reward.guidance_weight=0
  train grpo_s$seed nano_rl_paper seed=$seed
done
python -m evaluation experiment=rl_study
