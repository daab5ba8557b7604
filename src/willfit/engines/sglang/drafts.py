"""Models that draft tokens: what they hold, and how many layers of cache they add.

`speculative/eagle_worker_v2.py`, `models/llama_eagle.py`, `models/llama_eagle3.py`,
`model_executor/model_runner_components/spec_aux_hidden_state.py` (0.5.23).
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.model import Architecture, Layer
from willfit.engines.base import Subject
from willfit.engines.sglang.segments import fused_name
from willfit.engines.sglang.settings import Settings
from willfit.engines.sglang.sources import SOURCES
from willfit.engines.sglang.weights import draft_bytes, vocabulary_bytes
from willfit.formats.weights import rank_shape
from willfit.quantities import DTYPE_BYTES

#: Algorithms whose drafts are a layer like the model's own, with a projection of its hidden states.
_EAGLE = ("EAGLE", "EAGLE3")

#: An EAGLE3 head projects three of the model's hidden states and attends to two; its own vocabulary is shorter.
_STATES, _INPUTS, _SHORT_VOCABULARY = 3, 2, 32_000

#: By what factors a draft that is taken to be like the model may be less or more.
_LIKE_THE_MODEL = (0.4, 2.0)


@dataclass(frozen=True, slots=True)
class Draft:
    """What a draft adds on a rank.

    Attributes
    ----------
    loaded
        Bytes that loading it takes, with an embedding and a head that are replaced by the model's afterwards.
    kept
        Bytes that stay.
    layers
        Layers of cache for as many tokens as the pool has.
    sureness
        By what factors the bytes may be less or more.
    """

    loaded: int
    kept: int
    layers: int
    sureness: tuple[float, float]
    formula: str
    reference: str


def draft_of(subject: Subject, settings: Settings, dtype: str) -> Draft | None:
    """The draft of a model; None if nothing is drafted, or nothing is known of what drafts.

    A draft in a repository of its own is taken to be one dense layer like the model's.
    """
    algorithm, architecture = settings.speculative_algorithm, subject.architecture
    if settings.mtp and architecture.mtp:
        kept = draft_bytes(subject, settings, dtype)
        formula = f"{kept} B of the multi-token-prediction module"
        loaded = kept + vocabulary_bytes(subject, settings, dtype)
        return Draft(
            loaded,
            kept,
            len(architecture.mtp_layers),
            (1.0, 1.0),
            formula,
            SOURCES.cite("weights", settings.version),
        )
    if algorithm not in _EAGLE or settings.mtp:
        return None
    size = DTYPE_BYTES[dtype]
    layer = _dense_layer(architecture)
    if layer is None:
        return None
    hidden, third = architecture.hidden_size, algorithm == "EAGLE3"
    elements = 0
    for tensor in layer.tensors:
        if tensor.part not in ("attention", "mlp") or len(tensor.shape) != 2:
            continue
        part = rank_shape(tensor, settings.tp_size)
        wider = _INPUTS if third and fused_name(tensor.name).endswith(".qkv") else 1
        elements += part[0] * part[1] * wider
    elements += (_STATES if third else 2) * hidden * hidden
    kept = elements * size
    table = architecture.vocab_size * hidden * size // settings.tp_size
    head = _SHORT_VOCABULARY * hidden * size // settings.tp_size if third else table
    kept += head if third else 0
    formula = f"{kept} B of a layer like the model's and a projection of hidden states"
    loaded = kept + table + (0 if third else head)
    return Draft(loaded, kept, 1, _LIKE_THE_MODEL, formula, SOURCES.cite("drafts", settings.version))


def _dense_layer(architecture: Architecture) -> Layer | None:
    """A layer with attention and without routed experts, the last one if there are several."""
    for layer in reversed(architecture.layers):
        if layer.mixers and layer.feed_forward and not layer.feed_forward.experts:
            return layer
    return architecture.layers[-1] if architecture.layers else None
