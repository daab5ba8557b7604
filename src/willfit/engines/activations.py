"""How wide a layer is at its widest instant: shared by engines that run layers one after another."""

from __future__ import annotations

from willfit.architectures.mixers import LatentAttention
from willfit.architectures.model import Architecture, Layer
from willfit.quantities import ceil_div


def layer_activation_elements(layer: Layer, hidden: int, ranks: int) -> int:
    """Elements per token that are alive at the widest instant of a layer.

    The MLP holds gate and up (or up alone) and their product beside the residual stream and two copies of it;
    attention holds queries, keys, values and the output of the heads.
    """
    widest = 0
    for mixer in layer.mixers:
        live = mixer.projected_width + mixer.output_width
        if isinstance(mixer, LatentAttention):
            live = mixer.projected_width + mixer.heads * (mixer.nope_dim + mixer.value_dim)
        widest = max(widest, ceil_div(live, ranks) + 3 * hidden)
    ffn = layer.feed_forward
    if ffn is not None:
        if ffn.width:
            wide = (3 if ffn.gated else 2) * ffn.width
            widest = max(widest, ceil_div(wide, ranks) + 3 * hidden)
        if ffn.experts:
            # Workspaces of a fused kernel: gate-up and down outputs of every routed token, each the larger of the
            # two widths that share it (vLLM, `fused_moe/experts/triton_moe.py`).
            up = ceil_div((2 if ffn.gated else 1) * ffn.expert_width, ranks)
            routed = ffn.top_k * (max(up // 2, hidden) + max(up, hidden))
            widest = max(widest, routed + 3 * hidden)
    return widest


def widest_layer_elements(architecture: Architecture, ranks: int) -> int:
    """The widest of all decoder layers."""
    hidden = architecture.hidden_size
    return max(
        (layer_activation_elements(layer, hidden, ranks) for layer, _ in architecture.blocks),
        default=3 * hidden,
    )
