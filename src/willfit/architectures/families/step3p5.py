"""Step-3.5 and the text model of Step-3.7: gated heads, more of them in sliding layers, fused experts.

Source: transformers `models/step3p7` with its `conversion_mapping.py`, whose names are the checkpoints'.
Multi-token-prediction modules are dense, slide, and have a head of their own.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import bounded_count, causal_decoder, layer_count, repeated
from willfit.architectures.blocks.feed_forward import gated_mlp, router
from willfit.architectures.blocks.layer_types import kinds_of, sparse_layers
from willfit.architectures.blocks.mtp import mtp_modules
from willfit.architectures.blocks.tensors import buffer, column, linear, rms_norm
from willfit.architectures.mixers import Attention
from willfit.architectures.model import Architecture, FeedForward, Layer, Split, Tensor
from willfit.checkpoints.config import Config
from willfit.errors import BadInput

_UNSTATED_HEADS = (
    "the config does not state the heads of sliding layers (`attention_other_setting`): sized with those of"
    " full layers, published Step models have half as many again"
)


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Step-3.5 config.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint (longer inside a larger model).
    """
    hidden = config.integer("hidden_size")
    vocab = config.integer("vocab_size")
    width = config.integer("intermediate_size")
    count = layer_count(config)
    drafts = bounded_count(config, "num_nextn_predict_layers", default=0)
    # The list of kinds goes on over the modules.
    kinds = kinds_of(config, count + drafts) or ["full_attention"] * (count + drafts)
    block = f"{prefix}.layers.{{layer}}"

    def layer(key: tuple[bool, bool], extra: tuple[Tensor, ...] = ()) -> Layer:
        slides, routes = key
        attention = _attention(config, slides)
        tensors = (
            *rms_norm(f"{block}.input_layernorm", hidden),
            *attention_tensors(f"{block}.self_attn", hidden, attention, qk_norm=True),
            *linear(
                f"{block}.self_attn.g_proj",
                hidden,
                attention.heads,
                "attention",
                split=column(attention.heads),
            ),
            *rms_norm(f"{block}.post_attention_layernorm", hidden),
        )
        if not routes:
            tensors += gated_mlp(f"{block}.mlp", hidden, width)
            return Layer(tensors + extra, (attention,), FeedForward(width))
        mixture, feed_forward = _mixture(config, block, hidden)
        return Layer(tensors + mixture, (attention,), feed_forward)

    extra = (
        *rms_norm(f"{block}.enorm", hidden),
        *rms_norm(f"{block}.hnorm", hidden),
        *linear(f"{block}.eh_proj", 2 * hidden, hidden, "mtp"),
        *rms_norm(f"{block}.transformer.shared_head.norm", hidden),
        *linear(f"{block}.transformer.shared_head.output", hidden, vocab, "head", split=column(vocab)),
    )
    sliding = ["sliding" in kind for kind in kinds]
    stated = "attention_other_setting" in config or "num_sliding_attention_heads" in config
    return causal_decoder(
        config,
        family="step3p5",
        layers=repeated(layer, zip(sliding[:count], _sparse_layers(config, count), strict=True)),
        hidden=hidden,
        vocab=vocab,
        rope_dim=config.integer("head_dim"),
        prefix=prefix,
        head_name=head_name,
        notes=(_UNSTATED_HEADS,) if any(sliding) and not stated else (),
        **mtp_modules([layer((slides, False), extra) for slides in sliding[count:]], first=count),
    )


def _attention(config: Config, slides: bool) -> Attention:
    other = config.section("attention_other_setting") if slides else None
    section = other or config
    head_dim = section.integer("head_dim")
    heads = section.integer("num_attention_heads")
    if slides and other is None:
        heads = config.integer("num_sliding_attention_heads", default=heads)
    return Attention(
        heads=heads,
        kv_heads=section.integer("num_attention_groups", "num_key_value_heads"),
        head_dim=head_dim,
        value_dim=head_dim,
        window=config.integer("sliding_window") if slides else 0,
    )


def _mixture(config: Config, block: str, hidden: int) -> tuple[tuple[Tensor, ...], FeedForward]:
    experts = config.integer("moe_num_experts", "num_experts", "n_routed_experts")
    width = config.integer("moe_intermediate_size")
    shared = config.integer("share_expert_dim", default=0)
    up, down = (experts, width, hidden), (experts, hidden, width)
    tensors = (
        *router(f"{block}.moe.gate", hidden, experts),
        *(
            buffer(f"{block}.moe.router_bias", (experts,), "router")
            if config.boolean("use_moe_router_bias", default=False)
            else ()
        ),
        Tensor(f"{block}.moe.gate_proj.weight", up, "experts", "linear", Split(1, width)),
        Tensor(f"{block}.moe.up_proj.weight", up, "experts", "linear", Split(1, width)),
        Tensor(f"{block}.moe.down_proj.weight", down, "experts", "linear", Split(2, width)),
        *(gated_mlp(f"{block}.share_expert", hidden, shared) if shared else ()),
    )
    top_k = config.integer("moe_top_k", "num_experts_per_tok")
    return tensors, FeedForward(shared, experts=experts, top_k=top_k, expert_width=width)


def _sparse_layers(config: Config, layers: int) -> tuple[bool, ...]:
    """Files of Step-3.5 list the layers with experts in one string of numbers."""
    if "moe_layers_enum" not in config:
        return sparse_layers(config, layers)
    text = config.text("moe_layers_enum")
    try:
        sparse = {int(number) for number in text.split(",")}
    except ValueError:
        raise BadInput(
            f"{config.where}: 'moe_layers_enum' is {text[:40]!r}, expected numbers with commas"
        ) from None
    return tuple(index in sparse for index in range(layers))
