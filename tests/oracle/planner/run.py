"""Rows in, one JSON object a line on standard input; what vLLM computes out, one a line on standard output.

A process for each kind of device imports vLLM once and forks for each row, so that no row sees another's state.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import Any


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
    from standins import stand_in

    stand_in(device)
    import vllm.engine.arg_utils  # noqa: F401
    import vllm.v1.engine.core  # noqa: F401
    from plan import plan

    jobs = int(os.environ.get("ORACLE_JOBS", "2"))
    running: set[int] = set()
    for row in rows:
        while len(running) >= jobs:
            running.discard(os.wait()[0])
        child = os.fork()
        if not child:
            try:
                line = json.dumps(plan(row), default=str)
            except BaseException as error:  # noqa: BLE001
                line = json.dumps({"id": row["id"], "stage": "harness", "error": repr(error)})
            os.write(1, line.encode() + b"\n")
            os._exit(0)
        running.add(child)
    while running:
        running.discard(os.wait()[0])


if __name__ == "__main__":
    main()
