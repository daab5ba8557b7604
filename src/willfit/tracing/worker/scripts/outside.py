"""What a script would leave behind: checkpoints of weights that are not there, and reports of steps that were not
taken. Neither is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from willfit.tracing.worker.scripts.imports import AfterImport

#: Variables that keep trackers from starting a run (wandb, comet_ml, clearml, mlflow by transformers).
QUIET = {
    "WANDB_MODE": "disabled", "WANDB_DISABLED": "true", "COMET_MODE": "DISABLED", "CLEARML_OFFLINE_MODE": "1",
    "DISABLE_MLFLOW_INTEGRATION": "TRUE",
}  # fmt: skip

#: Methods that write weights or send them, by module and class.
_SAVE: dict[str, dict[str, tuple[str, ...]]] = {
    "transformers.modeling_utils": {"PreTrainedModel": ("save_pretrained", "push_to_hub")},
    "transformers.trainer": {
        "Trainer": ("save_model", "_save_checkpoint", "push_to_hub", "init_hf_repo", "_push_from_checkpoint"),
    },
    "peft.peft_model": {"PeftModel": ("save_pretrained", "push_to_hub")},
    "accelerate.accelerator": {"Accelerator": ("save_state", "save_model", "save")},
}
#: Functions that do.
_SAVE_FUNCTIONS = {
    "safetensors.torch": ("save_file", "save_model"),
    "torch.distributed.checkpoint": ("save", "async_save"),
    "torch.distributed.checkpoint.state_dict_saver": ("save", "async_save"),
}
#: Objects inside of objects that are looked at for fake tensors.
_DEEP = 4


def quiet(imports: AfterImport, note: Callable[[str], None]) -> None:
    """Keep a script from writing what it did not compute."""
    os.environ.update(QUIET)

    def skipped(*_: object, **__: object) -> None:
        note("checkpoints are not written: the weights have no values")

    for module, classes in _SAVE.items():
        imports.do(module, partial(_methods, classes, skipped))
    for module, names in _SAVE_FUNCTIONS.items():
        imports.do(module, partial(_functions, names, skipped))
    save = torch.save

    def saved(obj: object, *args: Any, **named: Any) -> None:
        if holds_fake(obj):
            skipped()
        else:
            save(obj, *args, **named)

    torch.save = saved

    def no_reports(*_: object, **__: object) -> list[object]:
        note("nothing is reported to wandb, tensorboard and others")
        return []

    imports.do(
        "transformers.integrations.integration_utils",
        lambda found: setattr(
            found, "get_reporting_integration_callbacks", lambda to: no_reports() if to else []
        ),
    )
    imports.do("torch.utils.tensorboard", lambda found: setattr(found, "SummaryWriter", Writer))
    imports.do("torch.utils.tensorboard.writer", lambda found: setattr(found, "SummaryWriter", Writer))


def _methods(classes: Mapping[str, tuple[str, ...]], instead: Callable[..., None], module: Any) -> None:
    for name, methods in classes.items():
        for method in methods:
            if hasattr(getattr(module, name, None), method):
                setattr(getattr(module, name), method, lambda self, *_, **__: instead())


def _functions(names: tuple[str, ...], instead: Callable[..., None], module: Any) -> None:
    for name in names:
        if hasattr(module, name):
            setattr(module, name, instead)


def holds_fake(value: object, deep: int = _DEEP) -> bool:
    """Whether fake tensors are in what someone saves."""
    if isinstance(value, FakeTensor):
        return True
    if isinstance(value, torch.nn.Module):
        return any(isinstance(one, FakeTensor) for one in (*value.parameters(), *value.buffers()))
    if deep == 0 or isinstance(value, (str, bytes, torch.Tensor, type)):
        return False
    if isinstance(value, Mapping):
        return any(holds_fake(one, deep - 1) for one in value.values())
    if isinstance(value, (list, tuple, set)):
        return any(holds_fake(one, deep - 1) for one in value)
    return any(holds_fake(one, deep - 1) for one in getattr(value, "__dict__", {}).values())


class Writer:
    """In the place of tensorboard's `SummaryWriter`: writes nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        pass
