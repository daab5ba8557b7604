"""Multi-token-prediction modules: layers that are stored with a model but are no part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from willfit.architectures.blocks.tensors import column, embedding, linear, rms_norm
from willfit.architectures.model import Layer, Tensor


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


def deepseek_mtp_tensors(block: str, hidden: int, vocab: int, *, copies: bool) -> tuple[Tensor, ...]:
    """What a module has beyond a decoder layer, as DeepSeek-V3 stores it.

    Parameters
    ----------
    block
        Name of the module, with `{layer}`.
    hidden, vocab
        Width of the residual stream and rows of the token table.
    copies
        Whether it stores a token table and a head of its own, copies of the model's.
    """
    return (
        *(embedding(f"{block}.embed_tokens", vocab, hidden) if copies else ()),
        *rms_norm(f"{block}.enorm", hidden),
        *rms_norm(f"{block}.hnorm", hidden),
        *linear(f"{block}.eh_proj", 2 * hidden, hidden, "mtp"),
        *rms_norm(f"{block}.shared_head.norm", hidden),
        *(linear(f"{block}.shared_head.head", hidden, vocab, "head", split=column(vocab)) if copies else ()),
    )
