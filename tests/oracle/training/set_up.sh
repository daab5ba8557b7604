#!/usr/bin/env bash
# Make .oracle-training: peft and accelerate, beside the torch and transformers that are installed (no dependencies of their
# own are missing). A few seconds, 3 MB.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

home=.oracle-training
[[ ! -d $home/peft ]] || exit 0
.venv/bin/python -m pip install --quiet --no-deps --target "$home" --requirement tests/oracle/training/requirements.txt
