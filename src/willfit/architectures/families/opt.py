"""OPT: learned positions, layer norms, biases; the 350M model projects a narrower embedding in and out.

Source: transformers `models/opt/modeling_opt.py`.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, shape_of
from willfit.architectures.blocks.feed_forward import plain_mlp
from willfit.architectures.blocks.tensors import column, embedding, layer_norm, linear
from willfit.architectures.blocks.towers import learned_positions
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config

#: Rows of the position table before position 0.
_POSITION_OFFSET = 2


def build(config: Config, prefix: str = "model.decoder", head_name: str = "lm_head") -> Architecture:
    """The architecture of an OPT config."""
    shape = shape_of(config)
    hidden = shape.hidden
    narrow = config.integer("word_embed_proj_dim", default=hidden)
    bias = config.boolean("enable_bias", default=True)
    scaled = config.boolean("layer_norm_elementwise_affine", default=True)
    norms_before = config.boolean("do_layer_norm_before", default=True)
    last_norm = scaled and norms_before and not config.boolean("_remove_final_layer_norm", default=False)
    positions = config.integer("max_position_embeddings", default=2048) + _POSITION_OFFSET
    attention = shape.attention()
    block = f"{prefix}.layers.{{layer}}"
    layer = Layer(
        (
            *attention_tensors(
                f"{block}.self_attn",
                hidden,
                attention,
                bias=bias,
                out_bias=bias,
                names=("q_proj", "k_proj", "v_proj", "out_proj"),
            ),
            *(layer_norm(f"{block}.self_attn_layer_norm", hidden) if scaled else ()),
            *plain_mlp(block, hidden, shape.width, bias=bias, names=("fc1", "fc2")),
            *(layer_norm(f"{block}.final_layer_norm", hidden) if scaled else ()),
        ),
        (attention,),
        FeedForward(shape.width, gated=False),
    )
    tied = config.boolean("tie_word_embeddings", default=True)
    vocab = shape.vocab
    return causal_decoder(
        config,
        family="opt",
        layers=(layer,) * shape.layers,
        hidden=hidden,
        vocab=vocab,
        embeddings=(
            *embedding(f"{prefix}.embed_tokens", vocab, narrow),
            *learned_positions(f"{prefix}.embed_positions", positions, hidden),
            *(linear(f"{prefix}.project_in", narrow, hidden, "embedding") if narrow != hidden else ()),
        ),
        head=(
            *(layer_norm(f"{prefix}.final_layer_norm", hidden) if last_norm else ()),
            *(linear(f"{prefix}.project_out", hidden, narrow, "head") if narrow != hidden else ()),
            *(() if tied else linear(head_name, narrow, vocab, "head", split=column(vocab))),
        ),
        tied=tied,
    )
