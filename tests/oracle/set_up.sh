#!/usr/bin/env bash
# Make .venv-oracle: vLLM 0.33.0 with what its planner imports, without CUDA. About a minute and 3.3 GB.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
"${PYTHON:-python3}" -m venv .venv-oracle
.venv-oracle/bin/python -m pip install --quiet --no-deps --requirement tests/oracle/requirements.txt
