#!/usr/bin/env bash
# Rebuild the nano base editor that the repository keeps in etchr/nano/nano_base: data, VAE, tokenizer, transformer.
# Two processes; interrupted, the same command goes on. The result lies in outputs/nano/base. compile=inductor makes it a
# third faster where there is a C++ compiler.
set -euo pipefail
source "$(dirname "$0")/env.sh"
python -m data_prep all kind=instruction split=train seed=1 num_samples=10000 out=outputs/nano/instructions
python -m data_prep all kind=question split=train seed=2 num_samples=300 out=outputs/nano/questions
together etchr.nano.train data=outputs/nano/instructions questions=outputs/nano/questions out=outputs/nano/base "$@"
