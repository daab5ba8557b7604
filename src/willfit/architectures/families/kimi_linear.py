"""Kimi Linear and the language model of Kimi K3: Kimi delta attention, latent attention, and experts.

Source: transformers `models/kimi_linear`; names as in the published checkpoints. Kimi K3 adds to each layer
the residuals of earlier blocks (`attn_res_block_size`), gates the output of latent attention, and lets its
routed experts work in a narrower latent space (`routed_expert_hidden_size`).
"""

from __future__ import annotations

from willfit.architectures.blocks.decoder import causal_decoder, layer_count, repeated
from willfit.architectures.blocks.delta import kimi_delta_tensors
from willfit.architectures.blocks.experts import Experts, experts_of
from willfit.architectures.blocks.feed_forward import gated_mlp, router
from willfit.architectures.blocks.latent import latent_attention_of, latent_attention_tensors
from willfit.architectures.blocks.layer_types import kinds_of, sparse_layers
from willfit.architectures.blocks.state_space import state_dtype_of
from willfit.architectures.blocks.tensors import buffer, column, linear, rms_norm
from willfit.architectures.mixers import Mixer
from willfit.architectures.mixers.recurrent import gated_delta
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config
from willfit.quantities import round_up


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Kimi Linear or Kimi K3 language model.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint (longer inside a larger model).
    """
    hidden = config.integer("hidden_size")
    count = layer_count(config)
    section = config.section("linear_attn_config") or config
    heads = section.integer("num_heads", "linear_num_heads")
    head_dim = section.integer("head_dim" if section is not config else "linear_head_dim")
    kernel = section.integer("short_conv_kernel_size", "linear_conv_kernel_dim", default=4)
    delta = gated_delta(heads, head_dim, heads, head_dim, kernel, "kimi delta", state_dtype_of(config))
    latent = latent_attention_of(config)
    residuals = "attn_res_block_size" in config
    block = f"{prefix}.layers.{{layer}}"
    attention = f"{block}.self_attn"
    # Kimi K3 stores the decays of its 96 heads in a vector padded to 128.
    full_rank = section.boolean("use_full_rank_gate", default=False)
    delta_tensors = kimi_delta_tensors(
        attention,
        hidden,
        heads,
        head_dim,
        kernel,
        forget_rank=head_dim,
        gate_rank=0 if full_rank else head_dim,
        decay_shape=(round_up(heads, 128),) if full_rank else (1, 1, heads, 1),
    )
    latent_tensors = latent_attention_tensors(attention, hidden, latent)
    if config.boolean("mla_use_output_gate", default=False):
        latent_tensors += linear(
            f"{attention}.g_proj", hidden, latent.output_width, "attention", split=column(latent.heads)
        )

    def layer(key: tuple[bool, bool]) -> Layer:
        is_delta, routes = key
        mixer: Mixer = delta if is_delta else latent
        tensors = (
            *(_residual(f"{block}.self_attention_res", hidden) if residuals else ()),
            *rms_norm(f"{block}.input_layernorm", hidden),
            *(delta_tensors if is_delta else latent_tensors),
            *(_residual(f"{block}.mlp_res", hidden) if residuals else ()),
            *rms_norm(f"{block}.post_attention_layernorm", hidden),
        )
        if routes:
            experts = experts_of(config)
            tensors += _expert_tensors(config, f"{block}.block_sparse_moe", hidden, experts)
            return Layer(tensors, (mixer,), experts.feed_forward)
        width = config.integer("intermediate_size")
        return Layer(tensors + gated_mlp(f"{block}.mlp", hidden, width), (mixer,), FeedForward(width))

    kinds = kinds_of(config, count)
    # The lists of layers count from 1.
    attending = set(section.integers("full_attn_layers"))
    linear_layers = (
        [kind == "linear_attention" for kind in kinds]
        if kinds
        else [index + 1 not in attending for index in range(count)]
    )
    final = _residual(f"{prefix}.output_attn_res", hidden) if residuals else ()
    return causal_decoder(
        config,
        family="kimi_linear",
        layers=repeated(layer, zip(linear_layers, sparse_layers(config, count), strict=True)),
        hidden=hidden,
        vocab=config.integer("vocab_size"),
        rope_dim=0 if config.boolean("mla_use_nope", default=True) else latent.rope_dim,
        prefix=prefix,
        head_name=head_name,
        final_norm=final + rms_norm(f"{prefix}.norm", hidden),
    )


def _residual(name: str, hidden: int) -> tuple[Tensor, ...]:
    """What weighs the outputs of earlier blocks of layers by attention over depth."""
    return (*rms_norm(f"{name}_norm", hidden), *linear(f"{name}_proj", hidden, 1, "mlp"))


def _expert_tensors(config: Config, prefix: str, hidden: int, experts: Experts) -> tuple[Tensor, ...]:
    latent = config.integer("routed_expert_hidden_size", default=0)
    tensors = (
        *router(f"{prefix}.gate", hidden, experts.count),
        *buffer(f"{prefix}.gate.e_score_correction_bias", (experts.count,), "router"),
        *gated_mlp(
            f"{prefix}.experts.{{expert}}",
            latent or hidden,
            experts.width,
            part="experts",
            names=("w1", "w3", "w2"),
            copies=experts.count,
        ),
    )
    if experts.shared_width:
        tensors += gated_mlp(f"{prefix}.shared_experts", hidden, experts.shared_width)
    if latent:
        tensors += linear(f"{prefix}.routed_expert_down_proj", hidden, latent, "mlp")
        if config.boolean("latent_moe_use_norm", default=False):
            tensors += rms_norm(f"{prefix}.routed_expert_norm", latent)
        tensors += linear(f"{prefix}.routed_expert_up_proj", latent, hidden, "mlp")
    return tensors
