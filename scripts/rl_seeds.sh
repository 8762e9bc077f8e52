#!/usr/bin/env bash
# Whether the quickstart's Stage II was luck: two more seeds of it over the same Stage I, and all three on the 200 test
# samples of every task, in outputs/rl_seeds. Interrupted, the same command goes on.
set -euo pipefail
bash "$(dirname "$0")/quickstart.sh"
source "$(dirname "$0")/env.sh"
data=outputs/data/quickstart
for seed in 1 2; do  # with the options that quickstart.sh gives seed 0
  python -m etchr.rl experiment=nano_rl seed=$seed iterations=40 validation.every=20 sft=outputs/quickstart-sft/adapter \
    data.paths=[$data-rl] validation.paths=[$data] out=outputs/quickstart-rl-seed$seed
done
python -m evaluation experiment=rl_seeds
