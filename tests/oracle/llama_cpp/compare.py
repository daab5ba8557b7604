"""willfit's answer to the oracle's question, and where the two differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from willfit.checkpoints.checkpoint import Checkpoint
from willfit.checkpoints.gguf import GgufHeader
from willfit.engines.base import Machine
from willfit.engines.llama_cpp.settings import Settings
from willfit.engines.llama_cpp.sizing import size_up
from willfit.engines.subject import subject_of
from willfit.hardware.device import Device
from willfit.hardware.table import find_device

from .live import Answer, Gpu

#: The library's settings under willfit's names, where they differ.
_NAMES = {"offload_kqv": "kv_offload", "use_extra_bufts": "repack"}
_FLASH = {"auto": "auto", True: "on", False: "off"}
_DEVICES = {
    "cuda": "GeForce RTX 4090",
    "rocm": "Instinct MI300X",
    "vulkan": "GeForce RTX 4090",
    "metal": "M4 Max",
}

#: The release of the pinned library.
VERSION = "b11258"

Parts = dict[str, Any]


def ours(
    header: GgufHeader, settings: Mapping[str, Any], gpus: Sequence[Gpu], version: str = VERSION
) -> Parts:
    """What willfit says: bytes of each part by buffer, and what was settled."""
    subject = subject_of(Checkpoint("oracle", "gguf file", gguf=header))
    named = {_NAMES.get(name, name): value for name, value in settings.items()}
    named["flash_attn"] = _FLASH[named.get("flash_attn", "auto")]
    if "tensor_split" in named:
        named["tensor_split"] = tuple(named["tensor_split"])
    if "override_tensor" in named:
        named["override_tensor"] = tuple((pattern, place) for pattern, place in named["override_tensor"])
    backend = gpus[0].backend if gpus else "cpu"
    named = {"no_alloc": True, "fusion": not gpus or bool(gpus[0].fusion), **named}
    asked = Settings(program="api", version=version, backend=backend, fit=False, mmap=False, **named)  # type: ignore[arg-type]
    found = size_up(subject, Machine(tuple(map(_device, gpus))), asked, [gpu.free_bytes for gpu in gpus])
    caches = dict(found.context.keys_values)
    for place, size in found.context.states.items():
        caches[place] = caches.get(place, 0) + size
    return {
        "model": found.model.bytes,
        "context": caches,
        "compute": dict(found.context.compute),
        "output_mib": round(found.context.output / 2**20, 2),
        "flash_attn": found.context.flash_attn,
        "n_ctx": found.resolved.n_ctx,
    }


def _device(gpu: Gpu) -> Device:
    device = find_device(_DEVICES[gpu.backend])
    capability = f"{gpu.capability // 10}.{gpu.capability % 10}"
    if gpu.backend == "rocm":
        capability = f"gfx{gpu.capability:x}"
    return replace(device, compute_capability=capability)


def theirs(answer: Answer) -> Parts:
    """What the library says, under the names of `ours`."""
    return {
        "model": answer.model,
        "context": answer.context,
        "compute": answer.compute,
        "output_mib": round(sum(size for _, size in answer.settled["output_buffers"]), 2),
        "flash_attn": answer.settled["flash_attn"],
        "n_ctx": answer.settled["n_ctx"],
    }


def differences(library: Parts, willfit: Parts) -> dict[str, tuple[Any, Any]]:
    """Parts in which the two differ: what the library says, and what willfit says. Empty buffers are none."""
    found = {}
    for part, value in library.items():
        mine = willfit[part]
        if isinstance(value, dict):
            if _filled(value) != _filled(mine):
                found[part] = (_filled(value), _filled(mine))
        elif value != mine:
            found[part] = (value, mine)
    return found


def _filled(sizes: Mapping[str, int]) -> dict[str, int]:
    return {place: sizes[place] for place in sorted(sizes) if sizes[place]}
