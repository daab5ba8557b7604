"""Record what Unsloth's functions and foak's allocate: `tests/data/fused_adapters.jsonl` (README.md).

    PYTHONPATH=src python tests/oracle/training/stand_ins/record_unsloth.py FOAK FOLDER

FOAK is the folder of the package `fms_acceleration_foak` (recorded at 12ebdb9 of its repository), FOLDER holds
Unsloth's sources as `unsloth-VERSION`. Single files are imported, beside modules that stand for what they import.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import json
import logging
import os
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

ROOT = Path(__file__).parents[4]
sys.path[:0] = [str(ROOT / "tests/tracing/stand_ins"), str(Path(__file__).parent)]
LINES = ROOT / "tests/data/fused_adapters.jsonl"

import fused_adapters as ours  # noqa: E402
import real  # noqa: E402
from fused_adapters import BF16, DEVICE, INPUTS, ROWS, SCALE, Case  # noqa: E402

from willfit.tracing.question import Card  # noqa: E402
from willfit.tracing.worker import shims  # noqa: E402


class _Functions:
    """A native library whose functions do nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class _Current(contextlib.nullcontext[None]):
    """`torch.cuda.device`."""

    idx = 0


def package(name: str, path: Path | None = None, **names: Any) -> types.ModuleType:
    """A package of that name whose own `__init__` is not run."""
    made = types.ModuleType(name)
    made.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    made.__path__ = [str(path)] if path else []
    made.__dict__.update(names)
    sys.modules[name] = made
    return made


def surroundings() -> None:
    """What both import."""
    real.triton()
    torch.cuda.device = lambda *_: _Current()
    torch.cuda.device_count = lambda: 1
    torch.cuda.current_stream = lambda *_: real.Anything()
    torch._C._cuda_getCurrentRawStream = lambda index: 0  # type: ignore[attr-defined]
    functional = package("bitsandbytes.functional", get_ptr=lambda tensor: None, lib=_Functions())
    package("bitsandbytes", functional=functional, __version__="0.44.0")
    import transformers.utils.import_utils as imports

    imports._bitsandbytes_available = True


def foak(folder: Path) -> Any:
    """`fused_ops/unsloth_lora/bnb/fast_lora.py`."""
    package("fms_acceleration_foak", folder)
    package("fms_acceleration_foak.fused_ops", folder / "fused_ops")
    return importlib.import_module("fms_acceleration_foak.fused_ops.unsloth_lora.bnb.fast_lora")


def unsloth(folder: Path) -> dict[str, Any]:
    """Files of `unsloth/kernels` by name."""
    from packaging.version import Version

    for name in [one for one in sys.modules if one.split(".")[0] in ("unsloth", "unsloth_zoo")]:
        del sys.modules[name]
    package("unsloth", folder / "unsloth", DEVICE_TYPE="cuda", DEVICE_COUNT=1)
    package("unsloth.kernels", folder / "unsloth/kernels")
    package(
        "unsloth.device_type", DEVICE_TYPE="cuda", DEVICE_TYPE_TORCH="cuda", DEVICE_COUNT=1, is_hip=lambda: False,
        get_device_type=lambda: "cuda", ALLOW_PREQUANTIZED_MODELS=True, ALLOW_BITSANDBYTES=True,
    )  # fmt: skip
    package("unsloth.kernels.fp8", weight_dequant=None, fp8_linear=None)
    package("unsloth_zoo")
    package("unsloth_zoo.utils", Version=lambda text: Version(str(text).split("+")[0]))
    package("unsloth_zoo.log", logger=logging.getLogger("unsloth"))
    package(
        "unsloth_zoo.loss_utils",
        patch_loss_functions=lambda *_, **__: None,
        post_patch_loss_function=lambda *_: None,
    )
    names = ("utils", "fast_lora", "swiglu", "rms_layernorm", "rope_embedding", "cross_entropy_loss")
    return {name: importlib.import_module(f"unsloth.kernels.{name}") for name in names}


def state_of(base: Any) -> Any:
    """The record of a packed matrix as bitsandbytes has it."""
    state = base.weight.quant_state
    second = SimpleNamespace(absmax=base.nested_absmax, code=base.nested_quant_map, blocksize=256)
    return SimpleNamespace(
        absmax=base.absmax, shape=torch.Size(state.shape), dtype=state.dtype, blocksize=64, offset=base.offset,
        state2=second,
    )  # fmt: skip


def recorded(case: Case, own: Any, kernels: dict[str, Any]) -> list[list[int]]:
    """What the library does."""
    kind = case["op"]
    if kind == "rms_norm":
        weight = torch.empty(INPUTS, dtype=BF16, device=DEVICE)
        norm = kernels["rms_layernorm"].Fast_RMS_Layernorm
        return ours.stream(lambda rows: norm.apply(rows, weight, 1e-5, False), [weight])
    if kind == "rope":
        table = torch.empty(1, 1, ROWS[1], 32, dtype=BF16, device=DEVICE)
        turn = kernels["rope_embedding"].fast_rope_embedding
        return ours.stream(lambda rows: turn(ours.heads(rows), ours.heads(rows), table, table), [table])
    if kind == "cross_entropy":
        labels = torch.empty(ROWS, dtype=torch.int64, device=DEVICE)
        loss = kernels["cross_entropy_loss"].fast_cross_entropy_loss
        return ours.stream(lambda rows: loss(rows, labels), [labels], case["inputs"])
    bases, pairs = ours.layers(case)
    foaks = "dropout" in case
    given: list[Any] = []
    for base, pair in zip(bases, pairs, strict=True):
        state = state_of(base) if case["packed"] else None
        given += [base.weight, state, *((None,) if foaks else ()), *pair, SCALE]
    if foaks:
        given += [
            torch.nn.Dropout(case["dropout"]) if case["dropout"] else torch.nn.Identity() for _ in bases
        ]
    library = own if foaks else kernels["fast_lora"]
    for buffers in ("WEIGHT_BUFFERS", "ABSMAX_BUFFERS"):
        if not foaks and hasattr(kernels["utils"], buffers):
            setattr(kernels["utils"], buffers, [None])  # those of the case before
    if kind == "mlp":
        swiglu = kernels["swiglu"]
        given += [swiglu.swiglu_fg_kernel, swiglu.swiglu_DWf_DW_dfg_kernel]
        function = library.LoRA_MLP
    else:
        function = library.LoRA_QKV if len(bases) > 1 else library.LoRA_W
    return ours.stream(lambda rows: function.apply(rows, *given), ours.held_by(bases, pairs))


def main() -> None:
    """Trace each on the fake card, and write the lines."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    shims.install(Card(), "fake-cuda")
    surroundings()
    own, folder, lines = foak(Path(sys.argv[1])), Path(sys.argv[2]), []
    kernels: dict[str, dict[str, Any]] = {}
    for version in ours.VERSIONS:
        kernels[version] = unsloth(folder / f"unsloth-{version}")
    for name, case in ours.cases().items():
        with FakeTensorMode():
            lines.append({"name": name, "found": recorded(case, own, kernels.get(case["version"], {}))})
    with LINES.open("w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    print(f"{len(lines)} lines, torch {torch.__version__}")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
