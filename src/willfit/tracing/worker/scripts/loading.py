"""Weights that a script loads: only what they are is read, never their values."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils import _pytree as pytree

from willfit.errors import BadInput
from willfit.tracing.worker.scripts.imports import AfterImport

#: In the place of the files of a folder or repository of which only the config is read.
_NOT_READ = "not-read.safetensors"


def follow(imports: AfterImport, note: Callable[[str], None]) -> None:
    """Let models be built where they would be loaded, and other files be read as they are."""
    torch.load = _read_lazily(torch.load)
    imports.do("transformers.modeling_utils", lambda module: _build(module, note))


def _read_lazily(load: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.load` with real tensors, which are read from the file only where they are looked at."""

    def read(f: Any, map_location: Any = None, *args: Any, **named: Any) -> Any:
        if isinstance(f, (str, os.PathLike)) and named.get("mmap") is None and _is_zip(Path(f)):
            named["mmap"] = True
        place = None
        if isinstance(map_location, (str, torch.device)) and torch.device(map_location).type == "cuda":
            place = torch.device(map_location)
        with unset_fake_temporarily():
            found = load(f, *args, map_location="cpu", **named)
        return (
            found if place is None else pytree.tree_map_only(torch.Tensor, lambda one: one.to(place), found)
        )

    return read


def _is_zip(path: Path) -> bool:
    """Whether a file is in torch's format since 1.6, which can be mapped into memory."""
    try:
        with path.open("rb") as file:
            return file.read(2) == b"PK"
    except OSError:
        return False  # `torch.load` says so


def _build(module: Any, note: Callable[[str], None]) -> None:
    """Let `from_pretrained` build the model on its devices as if each weight were missing in the files.

    transformers 5.23.0, modeling_utils.py: `from_pretrained` finds the files, settles the dtype with the config's or,
    if that has none, the first file's, makes the model on `meta`, and puts what is missing on its device.
    """
    model: Any = module.PreTrainedModel
    load, move, dtype_of = (
        model._load_pretrained_model,
        model._move_missing_keys_from_meta_to_device,
        module._get_dtype,
    )

    def files(pretrained_model_name_or_path: Any = None, **named: Any) -> tuple[list[str], None]:
        folder = Path(str(pretrained_model_name_or_path), named["download_kwargs"].get("subfolder") or "")
        found = sorted(str(path) for path in folder.glob("*.safetensors")) if folder.is_dir() else []
        return found or [_NOT_READ], None

    def dtype(asked: Any, files: Any, config: Any, sharded: Any, state: Any, *args: Any, **named: Any) -> Any:
        if files == [_NOT_READ]:
            state = {"": torch.empty(0, dtype=torch.get_default_dtype())}
        return dtype_of(asked, files, config, sharded, state, *args, **named)

    def built(model: Any, state_dict: Any, checkpoint_files: Any, settings: Any, *args: Any) -> Any:
        if settings.hf_quantizer is not None:
            raise BadInput(
                "a model that is stored in fewer bits is not traced in a script",
                "willfit trace MODEL with the run's settings knows bitsandbytes and others",
            )
        note("weights are not read: models are built from their configs")
        return load(model, {}, checkpoint_files, settings, *args)

    def moved(self: Any, missing_keys: Iterable[str], *args: Any, **named: Any) -> None:
        missing = set(missing_keys)
        keys = [key for key in self.state_dict(keep_vars=True) if key in missing]
        move(self, _Ordered(keys), *args, **named)
        for key in keys:
            self.get_parameter_or_buffer(key)._is_hf_initialized = True

    module._get_resolved_checkpoint_files = files
    module._get_dtype = dtype
    module.log_state_dict_report = lambda *_, **__: None
    model._load_pretrained_model = staticmethod(built)
    model._move_missing_keys_from_meta_to_device = moved


class _Ordered(tuple[str, ...]):
    """Keys in the model's order, as they would be loaded."""

    def __sub__(self, others: Iterable[str]) -> list[str]:
        left_out = set(others)
        return [key for key in self if key not in left_out]
