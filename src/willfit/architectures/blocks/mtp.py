"""Multi-token-prediction modules: layers that are stored with a model but are no part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from willfit.architectures.model import Layer


def mtp_modules(layers: Sequence[Layer], first: int = 0) -> dict[str, Any]:
    """The fields `mtp` and `mtp_layers` of an `Architecture`.

    Parameters
    ----------
    layers
        The modules, their own embeddings, projections and norms included. `{layer}` in their tensors' names
        stands for the module's index.
    first
        The first module's index: the number of layers where modules continue the model's own, else 0.
    """
    tensors = tuple(
        replace(tensor, name=tensor.name.replace("{layer}", str(index)), part="mtp")
        for index, layer in enumerate(layers, first)
        for tensor in layer.tensors
    )
    return {"mtp": tensors, "mtp_layers": tuple(layers)}
