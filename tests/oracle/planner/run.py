"""Rows in, one JSON object a line on standard input; what vLLM computes out, one a line on standard output.

A process for each kind of device imports vLLM once and forks for each row, so that no row sees another's state.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable
from typing import Any

#: Exit status of a child whose model cannot be built on the meta device.
_LOOKED = 3

#: A row that takes longer is given up.
_SECONDS = 240


def main() -> None:
    rows = [json.loads(line) for line in sys.stdin if line.strip()]
    by_device: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_device.setdefault(json.dumps(row["device"], sort_keys=True), []).append(row)
    import torch
    from standins import replace_extensions

    replace_extensions()
    import compressed_tensors  # noqa: F401
    import transformers  # noqa: F401

    torch.set_num_threads(1)
    for device, group in by_device.items():
        child = os.fork()
        if not child:
            _device(json.loads(device), group)
            os._exit(0)
        os.waitpid(child, 0)


def _device(device: dict[str, Any], rows: Iterable[dict[str, Any]]) -> None:
    from standins import Absent, stand_in

    stand_in(device)
    import vllm.compilation.backends
    import vllm.engine.arg_utils
    import vllm.model_executor.model_loader
    import vllm.v1.engine.core  # noqa: F401

    sys.meta_path.append(Absent("cuda"))  # type: ignore[arg-type]  # not earlier: others look whether it is there
    jobs = int(os.environ.get("ORACLE_JOBS", "2"))
    waiting = [(row, "meta") for row in rows]
    running: dict[int, dict[str, Any]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            row, place = waiting.pop(0)
            child = os.fork()
            if not child:
                _child(row, place)
            running[child] = row
        child, status = os.wait()
        row = running.pop(child)
        if os.waitstatus_to_exitcode(status) == _LOOKED:
            waiting.insert(0, (row, "cpu"))


def _child(row: dict[str, Any], place: str) -> None:
    """Answer one row and end the process; a model that looked at what it has not computed is tried again."""
    from plan import plan

    signal.alarm(_SECONDS)
    answer = plan(row, place)
    if place == "meta" and "meta tensor" in answer.get("error", ""):
        os._exit(_LOOKED)
    os.write(1, json.dumps(answer, default=str).encode() + b"\n")
    os._exit(0)


if __name__ == "__main__":
    main()
