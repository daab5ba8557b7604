"""Estimates a second of the planner, beside the scalar path.

    python benchmarks/planner.py [MODELS]

One model over all devices that vLLM runs on, all counts and formats; then so many models of the catalogue (default 50)
over all of these devices and formats.
"""

from __future__ import annotations

import sys
import time

from willfit.asking import find_subject
from willfit.checkpoints.catalogue import catalogue_ids, find
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.table import ask
from willfit.errors import BadInput
from willfit.hardware.table import all_devices
from willfit.planning.options import COUNTS, options

FORMATS = (None, "fp8", "fp8-block", "int8", "awq", "gptq", "gptq-int8", "w4a16", "mxfp4", "nvfp4", "nf4")
QUESTION = Question(32768, 16)
MODEL = "Qwen/Qwen3-235B-A22B"


def stored(model: str) -> list[Subject]:
    """A model in every format that it can be stored in."""
    found = []
    for name in FORMATS:
        try:
            found.append(find_subject(model, name, offline=True)[0])
        except BadInput:
            continue
    return found


def main() -> None:
    devices = [one for one in all_devices() if one.usable_bytes and one.vendor in ("NVIDIA", "AMD")]
    sets = [(device, count) for device in devices for count in COUNTS]
    begin = time.perf_counter()
    subjects = stored(MODEL)
    count = sum(1 for _ in options(subjects, "vllm", sets, QUESTION))
    seconds = time.perf_counter() - begin
    print(f"{MODEL}: {count:,} estimates over {len(devices)} devices in {seconds:.2f} s")
    many = [(device, 1) for device in devices]
    names = [name for name in catalogue_ids() if "quantization_config" not in find(name).config]
    names = names[:: max(1, len(names) // int(sys.argv[1] if len(sys.argv) > 1 else 50))]
    begin = time.perf_counter()
    count = sum(1 for name in names for _ in options(stored(name), "vllm", many, QUESTION))
    columns = count / (time.perf_counter() - begin)
    begin, asked = time.perf_counter(), 0
    for device in devices[::4]:
        for subject in subjects[:4]:
            ask("vllm", subject, Machine((device,)), QUESTION)
            asked += 1
    scalar = asked / (time.perf_counter() - begin)
    print(
        f"{len(names)} models: {count:,} estimates, {columns:,.0f} a second; one by one {scalar:,.0f} a second"
    )
    print(f"ratio {columns / scalar:.1f}; five million take {5e6 / columns:.0f} s on one core")


if __name__ == "__main__":
    main()
