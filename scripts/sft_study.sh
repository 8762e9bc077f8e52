#!/usr/bin/env bash
# The comparison of SFT.md: the released recipe and ours at nano size on three seeds, then one change at a time from ours
# on half the steps. About two hours on two cores (needs a C++ compiler; COMPILE= leaves it out and takes longer).
# Interrupted, the same command goes on.
set -euo pipefail
source "$(dirname "$0")/env.sh"
data=outputs/data/study
train() { # name, then the options of the run
  [ -f "outputs/runs/$1/adapter/README.md" ] ||
    python -m etchr.sft data.paths=[$data] data.cache=disk threads=1 ${COMPILE-model.compile=inductor} out="outputs/runs/$1" "${@:2}"
}
fp32=data.cache_dir=outputs/cache/float32 bf16=data.cache_dir=outputs/cache/bfloat16
python -m data_prep all split=train seed=1 num_samples=2000 out=$data
python -m data_prep all split=val seed=2 num_samples=16 out=$data
python -m data_prep all split=test seed=2026 num_samples=200 out=$data
for seed in 0 1 2; do
  train ours_s$seed experiment=nano_sft seed=$seed $fp32
  train rel_s$seed experiment=nano_sft_released seed=$seed $bf16
done
train short_ours experiment=nano_sft steps=750 $fp32
train short_bf16 experiment=nano_sft steps=750 adapter.dtype=bfloat16 $fp32
train short_draw experiment=nano_sft steps=750 flow.draw=released flow.stratified=false $fp32
train short_dropout experiment=nano_sft steps=750 data.prompt_dropout=0.1 $fp32
train short_adamw experiment=nano_sft steps=750 optim.name=adamw optim.lr=0.003 $fp32
python -m evaluation experiment=sft_study
