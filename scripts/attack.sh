#!/usr/bin/env bash
# The attack: hostile model servers, requests, files and pictures, and a hundred kills, all on this machine; some minutes.
# Its last lines say how much was tried and how much held. Arguments go to pytest.
set -euo pipefail
source "$(dirname "$0")/env.sh"
OMP_NUM_THREADS=1 exec timeout 600 python -m pytest tests/attack -n 2 --dist worksteal "$@"
