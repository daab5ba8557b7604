"""Estimates a second of the planner, beside the scalar path, and how long a whole plan takes.

    python benchmarks/planner.py [MODELS]

A plan of one dense model and of one with experts, over all devices that vLLM runs on, counts to 64, all formats, both
dtypes of the cache and all layouts; then so many models of the catalogue (default 40) over the same devices, counts and
formats, each spread as vLLM does unasked.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial

from willfit.asking import find_subject
from willfit.checkpoints.catalogue import catalogue_ids, find
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.table import ask
from willfit.errors import BadInput
from willfit.hardware.device import Device
from willfit.hardware.prices import bundled_prices
from willfit.planning.search.devices import every_device
from willfit.planning.search.judging import judge
from willfit.planning.search.layouts import MOST
from willfit.planning.search.searching import Wanted, search
from willfit.planning.which import unasked

FORMATS = (None, "fp8", "fp8-block", "int8", "awq", "gptq", "gptq-int8", "w4a16", "mxfp4", "nvfp4", "nf4")
QUESTION = Question(32768, 16)
MODELS = ("Qwen/Qwen3-32B", "Qwen/Qwen3-235B-A22B")


def stored(model: str) -> list[Subject]:
    """A model in every format that it can be stored in."""
    found = []
    for name in FORMATS:
        try:
            found.append(find_subject(model, name, offline=True)[0])
        except BadInput:
            continue
    return found


def plans(devices: Sequence[Device]) -> None:
    """Whole plans."""
    for model in MODELS:
        for formats in (None, FORMATS):
            begin = time.perf_counter()
            subjects = stored(model) if formats else stored(model)[:3]
            ready = time.perf_counter()
            found = search(
                {"vllm": subjects}, {"vllm": devices}, QUESTION, bundled_prices(), Wanted("devices")
            )
            judged = time.perf_counter() - ready
            print(
                f"plan of {model} in {len(subjects)} formats on {len(devices)} devices: {found.judged:,} ways, "
                f"{found.fitting:,} fit, with their speeds: {ready - begin + judged:.2f} s"
            )


def main() -> None:
    devices = [one for one in every_device() if one.vendor in ("NVIDIA", "AMD")]
    plans(devices)
    names = [name for name in catalogue_ids() if "quantization_config" not in find(name).config]
    names = names[:: max(1, len(names) // int(sys.argv[1] if len(sys.argv) > 1 else 40))]
    whole = partial(unasked, engine="vllm", question=QUESTION)
    begin, count = time.perf_counter(), 0
    for name in names:
        count += len(judge(stored(name), "vllm", devices, QUESTION, whole))
    columns = count / (time.perf_counter() - begin)
    begin, asked = time.perf_counter(), 0
    subjects = stored(MODELS[0])
    for device in devices[::4]:
        for subject in subjects[:4]:
            ask("vllm", subject, Machine((device,)), QUESTION)
            asked += 1
    scalar = asked / (time.perf_counter() - begin)
    print(
        f"{len(names)} models, up to {MOST} devices: {count:,} estimates, {columns:,.0f} a second on one core"
    )
    print(f"one by one {scalar:,.0f} a second: ratio {columns / scalar:.0f}")
    print(f"five million take {5e6 / columns / 2:.0f} s on two cores")


if __name__ == "__main__":
    main()
