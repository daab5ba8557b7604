"""What routed experts hold in a forward pass (`integrations/moe.py`)."""

from __future__ import annotations

from typing import Any

from willfit.architectures.model import Architecture, FeedForward
from willfit.engines.transformers.eras import Era
from willfit.engines.transformers.passes import Pass

#: Hidden states alive beside the experts: the model's `inputs_embeds`, the layer's input, the residual after
#: attention, and its normed copy.
_HIDDEN = 4

#: int64 indices of an expert's rows: unsorted, sorted, their order and its inverse.
_INDICES = 4 * 8

#: Model types whose routers weight in fp32, so that what experts give is upcast by its weight
#: (`models/*/modeling_*.py`: what the router returns is not cast back; 5.0.0 and 5.23.0).
_WIDE_WEIGHTS = frozenset(
    (
        "afmoe", "axk1", "axk2", "bailing_hybrid", "deepseek_ocr2", "deepseek_v2", "deepseek_v3", "deepseek_v32",
        "dots1", "exaone_moe", "gemma4", "gemma4_text", "glm4_moe", "glm4_moe_lite", "glm4v_moe", "glm4v_moe_text",
        "glm5_next", "glm5_next_text", "glm_moe_dsa", "hy_v3", "kimi_k2", "kimi_k25", "kimi_linear", "longcat_flash",
        "mimo_v2", "mimo_v2_flash", "minimax", "minimax_m2", "minimax_m3_vl", "minimax_m3_vl_text", "mixtral",
        "nemotron_h", "solar_open", "youtu",
    )
)  # fmt: skip

#: Model types with experts of their own, which `generate` cannot switch (no `use_experts_implementation`; 5.23.0).
_OWN_EXPERTS = frozenset(
    ("dbrx", "jetmoe", "llama4", "llama4_text", "longcat_flash", "step3p7", "switch_transformers")
)


def experts(architecture: Architecture, era: Era, step: Pass, ffn: FeedForward) -> tuple[Any, str]:
    """The routed experts; where they run one after the other, one sees its even share of the tokens.

    Returns
    -------
    tuple[Any, str]
        Bytes and the formula.
    """
    hidden, inner = architecture.hidden_size, ffn.expert_width // step.ranks
    rows = step.tokens * ffn.top_k
    base = _HIDDEN * step.tokens * hidden * step.width
    if era.grouped_experts:
        if copied := copied_experts(architecture, step, ffn):
            size = base + rows * (hidden + inner) * step.width + sum(copied)
            return size, (
                f"{step.tokens} tokens x ({_HIDDEN} x {hidden} hidden + {ffn.top_k} experts x {hidden + inner}) x "
                f"{step.width} B + {sum(copied)} B of copies of their experts"
            )
        # Selected tokens, gate and up in one, activation and product; or four times the selected tokens, on
        # their way through down projection, weighting and reordering.
        upcast = is_upcast(architecture)
        weighted = 2 * 4 // step.width if upcast else 2
        wide = max(hidden + 4 * inner, (2 + weighted) * hidden)
        size = base + rows * (wide * step.width + _INDICES)
        text = f"{step.tokens} tokens x ({_HIDDEN} x {hidden} hidden x {step.width} B"
        return size, f"{text} + {ffn.top_k} experts x ({wide} x {step.width} B + {_INDICES} B of indices))"
    one_hot = rows * ffn.experts * 8
    share = rows // ffn.experts + 1
    size = base + step.tokens * hidden * step.width + one_hot + share * (2 * hidden + 3 * inner) * step.width
    text = f"{step.tokens} tokens x {_HIDDEN + 1} x {hidden} hidden x {step.width} B"
    text += f" + {rows} rows x {ffn.experts} experts x 8 B of a mask"
    return size, f"{text} + {share} rows of one expert x (2 x {hidden} + 3 x {inner}) x {step.width} B"


def is_upcast(architecture: Architecture) -> bool:
    """Whether a router's weights are fp32: by its code, and wherever it has a correction buffer."""
    return architecture.model_type in _WIDE_WEIGHTS or any(
        tensor.part == "router" and tensor.kind == "buffer"
        for layer, _ in architecture.blocks
        for tensor in layer.tensors
    )


def copied_experts(architecture: Architecture, step: Pass, ffn: FeedForward) -> list[Any]:
    """Bytes of the matrices that decoding copies for each row: into an expert, and out of it, both alive at once.

    `generation/utils.py: _optimize_model_for_decode` switches to `integrations/moe.py: batched_mm_experts_forward`,
    from 5.0 on and on every device but the CPU.
    """
    if not step.copies_experts or architecture.model_type in _OWN_EXPERTS:
        return []
    matrix = (
        step.tokens * ffn.top_k * architecture.hidden_size * (ffn.expert_width // step.ranks) * step.width
    )
    return [2 * matrix if ffn.gated else matrix, matrix]
