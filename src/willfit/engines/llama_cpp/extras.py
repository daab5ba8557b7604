"""What lies beside a model: adapters and a projector for pictures or sound."""

from __future__ import annotations

from collections.abc import Mapping

from willfit.engines.llama_cpp.backends.processor import Processor
from willfit.engines.llama_cpp.graph.pictures import reserve
from willfit.engines.llama_cpp.graph.scheduler import Backend
from willfit.engines.llama_cpp.sizing import Sizing
from willfit.engines.llama_cpp.terms import cite
from willfit.estimate import Term, between, exact

#: An encoder whose builder was not followed may need this many times less or more.
_UNKNOWN = 3


def lora_term(sizing: Sizing, index: int | None) -> Term | None:
    """Adapters on a device, or on the host: they lie with the layers that they change.

    Parameters
    ----------
    index
        Which device; None for the host.
    """
    size = sizing.settings.lora_bytes
    if not size:
        return None
    places = sizing.model.places.layers
    here = sum(place == index for place in places)
    if not here:
        return None
    share = size * here // len(places)
    text = f"{size} B of adapters x {here}/{len(places)} (share of the layers)"
    return exact("lora", share, text, cite(sizing, "adapters"))


def projector_term(sizing: Sizing) -> Term | None:
    """The weights of a projector."""
    size = sizing.settings.mmproj_bytes
    if not size:
        return None
    return exact("projector", size, f"{size} B of tensors", cite(sizing, "projector"))


def projector_compute(sizing: Sizing) -> Mapping[str, int]:
    """Bytes of the compute buffers of a projector's encoder by buffer: on its device, and in plain memory."""
    shape = sizing.settings.mmproj_encoder
    if shape is None:
        return {}
    processor = Processor()
    on_device = sizing.settings.mmproj_offload and bool(sizing.devices)
    backends: tuple[Backend, ...] = (sizing.model.backends[0], processor) if on_device else (processor,)
    found = reserve(shape, backends, 0 if on_device else None, sizing.resolved.era.flash_pictures)
    return {one.place: size for one, size in zip(backends, found.bytes, strict=True)}


def projector_compute_term(sizing: Sizing, sizes: Mapping[str, int], place: str) -> Term | None:
    """What a projector's encoder computes of one picture, in one buffer; None if nothing is there."""
    size, shape = sizes.get(place, 0), sizing.settings.mmproj_encoder
    if not size or shape is None:
        return None
    text = f"{size} B for a picture of {shape.side} x {shape.side} pixels, {shape.patches} patches"
    cited = cite(sizing, "pictures")
    if shape.known:
        return exact("projector_compute", size, text, cited)
    return between("projector_compute", size, size // _UNKNOWN, size * _UNKNOWN, text, cited)
