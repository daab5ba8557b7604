"""GPT-2 and GPTBigCode (StarCoder 1, SantaCoder): learned positions, layer norms, biases, a plain MLP.

Sources: transformers `models/gpt2/modeling_gpt2.py`, `models/gpt_bigcode/modeling_gpt_bigcode.py`. GPT-2
stores its linear weights as (in, out); shapes here are (out, in). GPTBigCode shares one key and value head.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import fused_qkv
from willfit.architectures.blocks.decoder import causal_decoder, shape_of
from willfit.architectures.blocks.feed_forward import plain_mlp
from willfit.architectures.blocks.tensors import embedding, layer_norm, linear, row
from willfit.architectures.blocks.towers import learned_positions
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


def build(config: Config) -> Architecture:
    """The architecture of a GPT-2 or GPTBigCode config."""
    bigcode = config.text("model_type", default="gpt2") == "gpt_bigcode"
    dot = "transformer." if bigcode else ""
    one_kv_head = bigcode and config.boolean("multi_query", default=True)
    hidden = config.integer("n_embd", "hidden_size")
    config = config.with_defaults(n_inner=4 * hidden, n_positions=1024)
    shape = shape_of(config)
    attention = shape.attention(kv_heads=1) if one_kv_head else shape.attention()
    positions = config.integer("n_positions", "max_position_embeddings")
    block = f"{dot}h.{{layer}}"
    layer = Layer(
        (
            *layer_norm(f"{block}.ln_1", hidden),
            *fused_qkv(f"{block}.attn.c_attn", hidden, attention, bias=True),
            *linear(f"{block}.attn.c_proj", hidden, hidden, "attention", bias=True, split=row(shape.heads)),
            *layer_norm(f"{block}.ln_2", hidden),
            *plain_mlp(f"{block}.mlp", hidden, shape.width, bias=True, names=("c_fc", "c_proj")),
        ),
        (attention,),
        FeedForward(shape.width, gated=False),
    )
    return causal_decoder(
        config,
        family="gpt2",
        layers=(layer,) * shape.layers,
        hidden=hidden,
        vocab=shape.vocab,
        tied_default=True,
        embeddings=(
            *embedding(f"{dot}wte", shape.vocab, hidden),
            *learned_positions(f"{dot}wpe", positions, hidden),
        ),
        final_norm=layer_norm(f"{dot}ln_f", hidden),
    )
