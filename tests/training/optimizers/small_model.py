"""The small model of `tracker.py` as records, and Llama models of a few sizes."""

from __future__ import annotations

from willfit.training.parameters import Parameter

_LAYER = "model.layers.{layer}."
SMALL = (
    Parameter("model.embed_tokens.weight", (97, 64), "embedding", "embedding"),
    Parameter(_LAYER + "self_attn.q_proj.weight", (64, 64), "attention", "linear", 2),
    Parameter(_LAYER + "self_attn.k_proj.weight", (32, 64), "attention", "linear", 2),
    Parameter(_LAYER + "self_attn.v_proj.weight", (32, 64), "attention", "linear", 2),
    Parameter(_LAYER + "self_attn.o_proj.weight", (64, 64), "attention", "linear", 2),
    Parameter(_LAYER + "mlp.up_proj.weight", (160, 64), "mlp", "linear", 2),
    Parameter(_LAYER + "mlp.down_proj.weight", (64, 160), "mlp", "linear", 2),
    Parameter(_LAYER + "input_layernorm.weight", (64,), "norm", "norm", 2),
    Parameter("model.norm.weight", (64,), "norm", "norm"),
    Parameter("lm_head.weight", (97, 64), "head", "linear"),
)
ELEMENTS = 78_144
TENSORS = 17


def llama(hidden, width, layers, vocabulary=32_000, keys=None):
    """Parameters of a Llama model."""
    keys = keys or hidden
    attention = (("q", hidden, hidden), ("k", keys, hidden), ("v", keys, hidden), ("o", hidden, hidden))
    mlp = (("gate", width, hidden), ("up", width, hidden), ("down", hidden, width))
    return [
        Parameter("model.embed_tokens.weight", (vocabulary, hidden), "embedding", "embedding"),
        *(
            Parameter(f"{_LAYER}self_attn.{name}_proj.weight", (rows, columns), "attention", "linear", layers)
            for name, rows, columns in attention
        ),
        *(
            Parameter(f"{_LAYER}mlp.{name}_proj.weight", (rows, columns), "mlp", "linear", layers)
            for name, rows, columns in mlp
        ),
        Parameter(_LAYER + "input_layernorm.weight", (hidden,), "norm", "norm", layers),
        Parameter(_LAYER + "post_attention_layernorm.weight", (hidden,), "norm", "norm", layers),
        Parameter("model.norm.weight", (hidden,), "norm", "norm"),
        Parameter("lm_head.weight", (vocabulary, hidden), "head", "linear"),
    ]
