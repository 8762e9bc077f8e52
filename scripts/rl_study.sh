#!/usr/bin/env bash
# The comparison of RL.md: five ways of Stage II at nano size on three seeds each, over the quickstart's Stage I adapter.
# About three hours on two cores (needs a C++ compiler; COMPILE= leaves it out and takes longer). Interrupted, the same
# command goes on.
set -euo pipefail
bash "$(dirname "$0")/quickstart.sh"
source "$(dirname "$0")/env.sh"
data=outputs/data/quickstart
prompts=outputs/data/quickstart-rl
train() { # name, then the options of the run
  [ -f "outputs/rl_runs/$1/adapter/README.md" ] ||
    python -m etchr.rl experiment=nano_rl sft=outputs/quickstart-sft/adapter data.paths=[$prompts] validation.paths=[$data] threads=1 \
      ${COMPILE-model.compile=inductor} out="outputs/rl_runs/$1" "${@:2}"
}
for seed in 0 1 2; do
  train ours_s$seed seed=$seed
  train gdpo_s$seed seed=$seed objective.advantage=gdpo
  train guidance_s$seed seed=$seed reward.guidance_weight=1
  train correctness_s$seed seed=$seed reward.guidance_weight=0
  train grpo_s$seed seed=$seed experiment=nano_rl_paper
done
python -m evaluation experiment=rl_study
