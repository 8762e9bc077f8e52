#!/usr/bin/env bash
# The comparison of RL.md: five ways of Stage II at nano size on three seeds each, over a Stage I of the presets' full
# length, one after the other (needs a C++ compiler; COMPILE= leaves it out and takes longer). Interrupted, the same
# command goes on.
set -euo pipefail
source "$(dirname "$0")/env.sh"
data=outputs/data/study runs=outputs/rl_runs
train() { # name and experiment, then the options of the run
  python -m etchr.rl experiment="$2" sft=$runs/sft/adapter data.paths=[$data-rl] validation.paths=[$data] \
    threads=1 ${COMPILE-model.compile=inductor} out="$runs/$1" "${@:3}"
}
python -m data_prep all split=train seed=1 num_samples=2000 out=$data
python -m data_prep all split=val seed=2 num_samples=60 out=$data
python -m data_prep all split=train seed=3 num_samples=500 out=$data-rl
python -m data_prep all split=train seed=4 num_samples=700 undone_share=0.25 out=$data-teacher
python -m data_prep all split=test seed=2026 num_samples=200 out=$data
python -m etchr.sft experiment=nano_sft data.paths=[$data] out=$runs/sft_checked
python -m etchr.sft experiment=nano_sft_teacher data.paths=[$data-teacher] adapter.init=$runs/sft_checked/adapter out=$runs/sft
for seed in 0 1 2; do
  train ours_s$seed nano_rl seed=$seed
  train gdpo_s$seed nano_rl seed=$seed objective.advantage=gdpo
  train guidance_s$seed nano_rl seed=$seed reward.guidance_weight=1
  train correctness_s$seed nano_rl seed=$seed reward.guidance_weight=0
  train grpo_s$seed nano_rl_paper seed=$seed
done
python -m evaluation experiment=rl_study
