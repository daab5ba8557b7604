"""DBRX: nested config, fused projections, all experts of a layer stacked along one axis.

Source: transformers `models/dbrx/modeling_dbrx.py`.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import fused_qkv
from willfit.architectures.blocks.decoder import causal_decoder, layer_count, repeated
from willfit.architectures.blocks.feed_forward import router
from willfit.architectures.blocks.tensors import layer_norm, linear, row
from willfit.architectures.mixers import Attention
from willfit.architectures.model import Architecture, FeedForward, Layer, Split, Tensor
from willfit.checkpoints.config import Config
from willfit.errors import BadInput


def build(config: Config, prefix: str = "transformer", head_name: str = "lm_head") -> Architecture:
    """The architecture of a DBRX config.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint (longer inside a larger model).
    """
    attn, ffn = config.section("attn_config"), config.section("ffn_config")
    if attn is None or ffn is None:
        raise BadInput(f"{config.where}: 'attn_config' or 'ffn_config' is missing", "a DBRX config has both")
    hidden = config.integer("d_model")
    heads = config.integer("n_heads")
    head_dim = hidden // heads
    attention = Attention(heads, attn.integer("kv_n_heads", default=1), head_dim, head_dim)
    width = ffn.integer("ffn_hidden_size")
    experts = ffn.integer("moe_num_experts")
    block = f"{prefix}.blocks.{{layer}}"
    norms = f"{block}.norm_attn_norm"
    stacked = (experts * width, hidden)

    def layer(_: int) -> Layer:
        tensors = (
            *layer_norm(f"{norms}.norm_1", hidden, bias=False),
            *fused_qkv(f"{norms}.attn.Wqkv", hidden, attention),
            *linear(f"{norms}.attn.out_proj", attention.output_width, hidden, "attention", split=row(heads)),
            *layer_norm(f"{norms}.norm_2", hidden, bias=False),
            *router(f"{block}.ffn.router.layer", hidden, experts),
            # Down projections are stored transposed, so ranks divide the first axis of all three.
            *(
                Tensor(f"{block}.ffn.experts.mlp.{name}", stacked, "experts", "linear", Split(0, width))
                for name in ("w1", "v1", "w2")
            ),
        )
        feed_forward = FeedForward(
            0, experts=experts, top_k=ffn.integer("moe_top_k", default=1), expert_width=width
        )
        return Layer(tensors, (attention,), feed_forward)

    return causal_decoder(
        config,
        family="dbrx",
        layers=repeated(layer, (0,) * layer_count(config)),
        hidden=hidden,
        vocab=config.integer("vocab_size"),
        rope_dim=head_dim,
        prefix=prefix,
        embed_name="wte",
        head_name=head_name,
        final_norm=layer_norm(f"{prefix}.norm_f", hidden, bias=False),
    )
