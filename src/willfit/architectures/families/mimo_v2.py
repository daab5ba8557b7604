"""MiMo-V2: windows with attention sinks between full layers of other head counts, and experts.

Source: transformers `models/mimo_v2_flash`; names are the checkpoints'. MiMo-V2.5 (`mimo_v2`) fuses queries,
keys and values. Every published checkpoint has three multi-token-prediction modules, dense and sliding, which
configs do not mention.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors, fused_qkv
from willfit.architectures.blocks.decoder import bounded_count, causal_decoder, layer_count, repeated
from willfit.architectures.blocks.experts import expert_tensors, experts_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.layer_types import kinds_of, sparse_layers
from willfit.architectures.blocks.mtp import mtp_modules
from willfit.architectures.blocks.tensors import column, linear, parameter, rms_norm, row
from willfit.architectures.mixers import Attention
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config
from willfit.errors import BadInput


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a MiMo-V2 config.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint (longer inside a larger model).
    """
    hidden = config.integer("hidden_size")
    width = config.integer("intermediate_size")
    count = layer_count(config)

    def attention_part(module: str, slides: bool) -> tuple[Attention, tuple[Tensor, ...]]:
        attention = _attention(config, slides)
        sinks = config.boolean(
            "add_swa_attention_sink_bias" if slides else "add_full_attention_sink_bias", default=False
        )
        return attention, (
            *_attention_tensors(config, module, hidden, attention),
            *(
                parameter(
                    f"{module}.attention_sink_bias",
                    (attention.heads,),
                    "attention",
                    column(attention.heads),
                )
                if sinks
                else ()
            ),
        )

    def layer(key: tuple[bool, bool]) -> Layer:
        slides, routes = key
        block = f"{prefix}.layers.{{layer}}"
        attention, projections = attention_part(f"{block}.self_attn", slides)
        tensors = (
            *rms_norm(f"{block}.input_layernorm", hidden),
            *projections,
            *rms_norm(f"{block}.post_attention_layernorm", hidden),
        )
        if routes:
            experts = experts_of(config)
            tensors += expert_tensors(f"{block}.mlp", hidden, experts, bias="gate.e_score_correction_bias")
            return Layer(tensors, (attention,), experts.feed_forward)
        return Layer(tensors + gated_mlp(f"{block}.mlp", hidden, width), (attention,), FeedForward(width))

    def module() -> Layer:
        block = f"{prefix}.mtp.layers.{{layer}}"
        attention, projections = attention_part(f"{block}.self_attn", True)
        tensors = (
            *rms_norm(f"{block}.enorm", hidden),
            *rms_norm(f"{block}.hnorm", hidden),
            *linear(f"{block}.eh_proj", 2 * hidden, hidden, "mtp"),
            *rms_norm(f"{block}.input_layernorm", hidden),
            *projections,
            *rms_norm(f"{block}.pre_mlp_layernorm", hidden),
            *gated_mlp(f"{block}.mlp", hidden, width),
            *rms_norm(f"{block}.final_layernorm", hidden),
        )
        return Layer(tensors, (attention,), FeedForward(width))

    modules = (module(),) * bounded_count(config, "num_nextn_predict_layers", default=3)
    return causal_decoder(
        config,
        family="mimo_v2",
        layers=repeated(layer, zip(_sliding(config, count), sparse_layers(config, count), strict=True)),
        hidden=hidden,
        vocab=config.integer("vocab_size"),
        rope_dim=config.integer("head_dim"),
        prefix=prefix,
        head_name=head_name,
        **mtp_modules(modules),
    )


def _attention(config: Config, slides: bool) -> Attention:
    """Head counts and widths, which sliding layers have of their own (`swa_...`)."""

    def field(name: str) -> int:
        return config.integer(f"swa_{name}", name) if slides else config.integer(name)

    return Attention(
        heads=field("num_attention_heads"),
        kv_heads=field("num_key_value_heads"),
        head_dim=field("head_dim"),
        value_dim=field("v_head_dim"),
        window=config.integer("sliding_window", "sliding_window_size") if slides else 0,
    )


def _attention_tensors(config: Config, module: str, hidden: int, attention: Attention) -> tuple[Tensor, ...]:
    bias = config.boolean("attention_bias", default=False)
    if config.text("attention_projection_layout", default="split") != "fused_qkv":
        return attention_tensors(module, hidden, attention, bias=bias)
    return (
        *fused_qkv(f"{module}.qkv_proj", hidden, attention, bias=bias),
        *linear(f"{module}.o_proj", attention.output_width, hidden, "attention", split=row(attention.heads)),
    )


def _sliding(config: Config, layers: int) -> list[bool]:
    pattern = config.integers("hybrid_layer_pattern")
    if len(pattern) >= layers:
        return [flag == 1 for flag in pattern[:layers]]
    kinds = kinds_of(config, layers)
    if kinds is None:
        raise BadInput(
            f"{config.where}: the field 'hybrid_layer_pattern' (or layer_types) is missing",
            "it says which layers slide",
        )
    return ["sliding" in kind for kind in kinds]
