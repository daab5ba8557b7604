"""GPT-J and CodeGen: attention and a plain MLP side by side behind one layer norm, rotary embedding.

Sources: transformers `models/gptj/modeling_gptj.py`, `models/codegen/modeling_codegen.py`. CodeGen fuses the
query, key and value projections.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors, fused_qkv
from willfit.architectures.blocks.decoder import causal_decoder, shape_of
from willfit.architectures.blocks.feed_forward import plain_mlp
from willfit.architectures.blocks.tensors import layer_norm, linear, row
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


def build(config: Config, prefix: str = "transformer", head_name: str = "lm_head") -> Architecture:
    """The architecture of a GPT-J or CodeGen config."""
    hidden = config.integer("n_embd", "hidden_size")
    shape = shape_of(config.with_defaults(n_inner=4 * hidden))
    attention = shape.attention()
    block = f"{prefix}.h.{{layer}}"
    if config.text("model_type", default="gptj") == "codegen":
        projections = (
            *fused_qkv(f"{block}.attn.qkv_proj", hidden, attention),
            *linear(f"{block}.attn.out_proj", hidden, hidden, "attention", split=row(shape.heads)),
        )
    else:
        names = ("q_proj", "k_proj", "v_proj", "out_proj")
        projections = attention_tensors(f"{block}.attn", hidden, attention, names=names)
    layer = Layer(
        (
            *layer_norm(f"{block}.ln_1", hidden),
            *projections,
            *plain_mlp(f"{block}.mlp", hidden, shape.width, bias=True, names=("fc_in", "fc_out")),
        ),
        (attention,),
        FeedForward(shape.width, gated=False),
    )
    return causal_decoder(
        config,
        family="gptj",
        layers=(layer,) * shape.layers,
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=config.integer("rotary_dim", default=shape.head_dim),
        prefix=prefix,
        embed_name="wte",
        head_name=head_name,
        head_bias=True,
        final_norm=layer_norm(f"{prefix}.ln_f", hidden),
    )
