"""Record what the libraries allocate: `tests/data/stand_ins.jsonl`, a line for each of `cases.py` (README.md)."""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

import torch

ROOT = Path(__file__).parents[4]
sys.path[:0] = [str(ROOT / "tests/tracing/stand_ins"), str(Path(__file__).parent)]
LINES = ROOT / "tests/data/stand_ins.jsonl"

import choices  # noqa: E402
import real  # noqa: E402
import whole  # noqa: E402
from cases import CASES, ON_CPU, float8  # noqa: E402
from models import LIGER, QUANTIZED, of_liger, of_quantized, summary  # noqa: E402
from streams import stream_of  # noqa: E402

from willfit.tracing.question import Card  # noqa: E402
from willfit.tracing.worker import shims  # noqa: E402
from willfit.tracing.worker.shims import values  # noqa: E402

#: 384 rows in tiles of 64, and one for each of four experts: the experts of `cases.py` and `models.py`.
TILES = 10

#: Libraries that are named as their operations are.
ALONE = ("torchao", "auto_gptq", "autoawq", "hqq")


def main() -> None:
    """Trace each, on the CPU or on a fake card, and write the lines."""
    from torch._subclasses import fake_impls
    from torch._subclasses.fake_tensor import FakeTensorMode

    shims.install(Card(), "fake-cuda")  # before autograd counts devices
    values.padded(False)
    lines = []
    real.bitsandbytes_for_cuda()
    for name in ON_CPU:
        library = CASES[name]["op"] if CASES[name]["op"] in ALONE else "bitsandbytes"
        lines.append(_line(name, library, stream_of(CASES[name], real, "cpu")))
    lines.append(_line("choices", "bitsandbytes", choices.recorded()))
    for name in QUANTIZED:
        traced = whole.with_bitsandbytes(of_quantized(name))
        lines.append(_line(f"whole, {name}", "bitsandbytes", summary(traced.trace)))
    for name in float8():
        with FakeTensorMode():
            lines.append(_line(name, "torchao", stream_of(CASES[name], real, "cuda:0")))
    real.triton()  # which torchao's imports would stumble over
    # A mask is full; experts have as many tiles of 64 rows as if each left one that is not full.
    fake_impls.op_implementations_dict[torch.ops.aten._local_scalar_dense.default] = (
        lambda mode, function, tensor: True if tensor.dtype is torch.bool else TILES
    )
    for name in CASES.keys() - ON_CPU - float8().keys():
        with FakeTensorMode():
            lines.append(_line(name, "liger_kernel", stream_of(CASES[name], real, "cuda:0")))
    for kind in LIGER:
        lines.append(_line(f"whole, {kind}", "liger_kernel", summary(whole.with_liger(of_liger(kind)).trace)))
    lines.sort(key=lambda line: str(line["name"]))
    with LINES.open("w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    print(f"{len(lines)} lines, torch {torch.__version__}")
    sys.stdout.flush()
    os._exit(0)


def _line(name: str, library: str, found: object) -> dict[str, object]:
    return {"name": name, "library": library, "version": version(library), "found": found}


if __name__ == "__main__":
    main()
