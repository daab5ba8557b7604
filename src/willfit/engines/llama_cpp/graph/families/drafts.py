"""The graphs of layers that draft tokens behind a model (`graph_mtp` of `src/models/*.cpp`)."""

from __future__ import annotations

from dataclasses import replace

from willfit.engines.llama_cpp.graph.families.decoder import Decoder
from willfit.engines.llama_cpp.graph.families.gated_delta import GatedDelta
from willfit.engines.llama_cpp.graph.families.styles import STYLES, style_of
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import Node

#: Architectures whose drafting layer is one of their own layers with attention, between other norms.
_GATED = frozenset(("qwen35", "qwen35moe", "qwen3next"))
_PLAIN = frozenset(("glm4moe",))


class _GatedDraft(GatedDelta):
    """Qwen's layer with gated attention; there are no states."""

    def __init__(self, net: Network) -> None:
        Decoder.__init__(self, net, self.STYLE)


def is_known(architecture: str) -> bool:
    """Whether there is a builder for an architecture's drafting layer."""
    return architecture in _GATED or (architecture in _PLAIN and architecture in STYLES)


def build(net: Network, index: int) -> None:
    """Build the graph of the drafting layer at `index`.

    Raises
    ------
    MissingTensor
        If the file lacks what it needs.
    """
    tokens = net.input("I32", net.batch.tokens, name="tokens")
    hidden = net.input("F32", net.hidden, net.batch.tokens, name="vectors of the model")
    net.layer = index
    table = net.weight("nextn.embed_tokens.weight")
    rows = net.get_rows(table if table is not None else net.weights["token_embd.weight"], tokens)
    if net.meta.architecture in _GATED:
        decoder: Decoder = _GatedDraft(net)
    else:
        decoder = Decoder(net, replace(style_of(net), crop="after norm"))
    given = net.normed(hidden, net.needed("nextn.hnorm.weight"))
    known = net.normed(rows, net.needed("nextn.enorm.weight"))
    x = net.linear(net.needed("nextn.eh_proj.weight"), net.concat(known, given, 0))
    x = decoder.layer(x)
    norm = net.weight("nextn.shared_head_norm.weight")
    head = net.weight("nextn.shared_head_head.weight")
    net.layer = -1
    y = net.normed(x, norm if norm is not None else net.weights["output_norm.weight"])
    y.is_output = True
    y = net.get_rows(y, decoder.rows)
    logits: Node = net.mul_mat(head if head is not None else net.weights["output.weight"], y)
    net.finish(y, logits)
