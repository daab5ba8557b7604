"""What lies beside a model: adapters and a projector for pictures or sound."""

from __future__ import annotations

from willfit.engines.llama_cpp.sizing import Sizing
from willfit.engines.llama_cpp.terms import cite
from willfit.estimate import Term, exact


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
