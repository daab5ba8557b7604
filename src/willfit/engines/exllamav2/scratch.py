"""The scratch that modules share on a card, and what a layer takes on top while it computes a part of a prompt.

A module's matrices are unpacked to the scratch, its inputs and intermediates lie in it. It is as large as the module
that asks for most, the head included: `scratch_space_fixed` of each module's class.
"""

from __future__ import annotations

from willfit.architectures.mixers import Attention
from willfit.architectures.model import Architecture, Layer
from willfit.engines.exllamav2.eras import Era
from willfit.engines.exllamav2.settings import Resolved, Settings
from willfit.quantities import ceil_div

_HALF, _SINGLE = 2, 4

#: What each buffer has at its end.
_END = 128


def scratch_parts(
    architecture: Architecture, settings: Settings, resolved: Resolved, ranks: int = 1
) -> dict[str, tuple[int, str]]:
    """What each kind of module of a quantized model asks of the scratch, and how that comes about.

    Parameters
    ----------
    ranks
        Tensor-parallel cards, which divide outputs.
    """
    era, chunk, hidden = settings.era, resolved.chunk, architecture.hidden_size
    found: dict[str, tuple[int, str]] = {}
    for layer, _ in architecture.blocks:
        for name, wide, matrix in _asked(layer, hidden, ranks):
            unpacked = _unpacked(matrix, era)
            size = chunk * wide * _HALF + unpacked
            text = f"{chunk} tokens x {wide} x {_HALF} B + {unpacked} B of a matrix"
            if size > found.get(name, (0, ""))[0]:
                found[name] = size, text
    vocabulary = ceil_div(architecture.vocab_size, ranks)
    unpacked = _unpacked(hidden * vocabulary, era)
    positions = _positions(settings, chunk)
    size = unpacked + positions * vocabulary * _SINGLE
    text = f"{unpacked} B of a matrix"
    if positions:
        text += f" + {positions} positions x {vocabulary} x {_SINGLE} B"
    found["head"] = size, text
    return found


def work_of(
    layer: Layer, hidden: int, resolved: Resolved, ranks: int = 1, scores: bool = False, repeats: bool = False
) -> tuple[int, int]:
    """Bytes of each token of a part of a prompt beside the scratch: expected, and most.

    Queries and the output of attention are there at once with the stream, and keys and values where they do not go to
    the cache directly. An MLP works in the scratch; experts one after another, with the sum of what they give.

    Parameters
    ----------
    scores
        Scores of all heads are made, twice at a time; a part of a prompt is cut so that they are no more than its
        square.
    repeats
        Keys and values are repeated for all heads.
    """
    expected, most = _HALF * hidden, 2 * _HALF * hidden
    for mixer in layer.mixers:
        if isinstance(mixer, Attention):
            wide = ceil_div(mixer.heads * (mixer.head_dim + mixer.value_dim), ranks) * _HALF
            more = 2 * _HALF * ceil_div(mixer.heads, ranks) * resolved.chunk if scores else 0
            if repeats and mixer.kv_heads < mixer.heads:
                more += ceil_div(wide * resolved.length, resolved.chunk)
            expected = max(expected, _HALF * hidden + wide + more)
            keys = ceil_div(mixer.elements_per_token, ranks) * _HALF
            most = max(most, 2 * _HALF * hidden + wide + keys + 2 * more)
    ffn = layer.feed_forward
    if ffn is not None and ffn.experts:
        share = ceil_div(ffn.top_k * (2 * hidden + 2 * ffn.expert_width) * _HALF, ffn.experts)
        marks = ffn.experts * (ffn.top_k * 8 + _SINGLE + _HALF)
        expected = max(expected, 3 * _HALF * hidden + marks + share)
        most = max(most, 4 * _HALF * hidden + marks + ffn.top_k * (2 * hidden + 2 * ffn.expert_width) * _HALF)
    return expected, most


def rotary_bytes(architecture: Architecture, resolved: Resolved) -> tuple[int, str]:
    """Sines and cosines of each rotary table (`device.py: prepare_sincos`), and how they come about."""
    mixers = [mixer for layer, _ in architecture.blocks for mixer in layer.mixers]
    wide = max((mixer.head_dim for mixer in mixers if isinstance(mixer, Attention)), default=0)
    tables = max(1, len(architecture.ropes))
    size = tables * 2 * resolved.length * wide * _HALF
    return size, f"{tables} tables x 2 x {resolved.length} positions x {wide} x {_HALF} B"


def _positions(settings: Settings, chunk: int) -> int:
    """Positions whose scores have a place in the scratch."""
    if settings.era.scores == "none":
        return 0
    asked = settings.max_output_len if settings.era.scores == "asked" else None
    return chunk if asked is None else min(asked, chunk)


def _unpacked(elements: int, era: Era) -> int:
    return _HALF * (min(elements, era.matrix_elements) if era.matrix_elements else elements) + _END


def _asked(layer: Layer, hidden: int, ranks: int) -> list[tuple[str, int, int]]:
    """Modules of a layer: name, numbers of each token in the scratch, elements of the largest matrix."""
    found = []
    for mixer in layer.mixers:
        if isinstance(mixer, Attention):
            wide = mixer.heads * mixer.head_dim
            found.append(("attention", max(wide, hidden), hidden * ceil_div(wide, ranks)))
    ffn = layer.feed_forward
    if ffn is not None and ffn.width:
        wide = ceil_div(ffn.width, ranks)
        found.append(("mlp", hidden + 2 * max(hidden, wide), hidden * wide))
    if ffn is not None and ffn.experts:
        wide = ceil_div(ffn.expert_width, ranks)
        found.append(("experts", 2 * hidden + 2 * wide + ffn.experts, hidden * wide))
    return found
