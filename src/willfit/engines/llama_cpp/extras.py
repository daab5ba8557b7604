"""What lies beside a model: adapters and a projector for pictures or sound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isqrt

from willfit.engines.llama_cpp.backends.processor import Processor
from willfit.engines.llama_cpp.graph.pictures import Encoder, reserve
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


@dataclass(frozen=True, slots=True)
class Pictures:
    """What a projector's encoder computes with, by buffer: on its device, and in plain memory.

    Attributes
    ----------
    first
        Bytes for the picture that programs run it on at start.
    most
        Bytes for the largest picture.
    """

    first: Mapping[str, int]
    most: Mapping[str, int]


def projector_compute(sizing: Sizing) -> Pictures:
    """The compute buffers of a projector's encoder, which grow with the pictures that it is given."""
    shape = sizing.settings.mmproj_encoder
    if shape is None:
        return Pictures({}, {})
    first = _computed(sizing, shape)
    largest = _largest(shape, sizing.settings.image_tokens)
    if largest <= shape.side:
        return Pictures(first, first)
    return Pictures(first, _computed(sizing, replace(shape, side=largest)))


def _largest(shape: Encoder, tokens: int | None) -> int:
    """Side of the largest picture; a limit on tokens goes before the model's own."""
    if not shape.largest or not tokens:
        return shape.largest
    return isqrt(tokens) * shape.patch * shape.merge


def _computed(sizing: Sizing, shape: Encoder) -> dict[str, int]:
    settings = sizing.settings
    flash = settings.mmproj_flash
    processor = Processor()
    on_device = settings.mmproj_offload and bool(sizing.devices)
    backends: tuple[Backend, ...] = (sizing.model.backends[0], processor) if on_device else (processor,)
    flash = sizing.resolved.era.flash_pictures if flash is None else flash
    found = reserve(shape, backends, 0 if on_device else None, flash)
    return {one.place: size for one, size in zip(backends, found.bytes, strict=True)}


def projector_compute_term(sizing: Sizing, pictures: Pictures, place: str) -> Term | None:
    """What a projector's encoder computes of one picture, in one buffer; None if nothing is there."""
    size, shape = pictures.first.get(place, 0), sizing.settings.mmproj_encoder
    if not size or shape is None:
        return None
    text = f"{size} B for a picture of {shape.side} x {shape.side} pixels, {shape.patches} patches"
    unsure = 1 if shape.known else _UNKNOWN
    least = 0 if sizing.settings.mmproj_waits else size // unsure
    most = max(size, pictures.most[place]) * unsure
    return between("projector_compute", size, least, most, text, cite(sizing, "pictures"))
