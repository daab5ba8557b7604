"""Kimi-K3: Kimi delta attention and gated latent attention, experts in a narrower space, a vision tower.

Source: names, shapes and dtypes of the published checkpoint. Routed experts work on a projection of the
residual stream (`routed_expert_hidden_size`); each half of a layer reads earlier blocks of the stream
through a one-column projection (`attn_res_block_size`).
"""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.blocks.decoder import causal_decoder, layer_count, repeated
from willfit.architectures.blocks.experts import Experts, experts_of
from willfit.architectures.blocks.feed_forward import gated_mlp, router
from willfit.architectures.blocks.latent import latent_attention_of, latent_attention_tensors
from willfit.architectures.blocks.layer_types import sparse_layers
from willfit.architectures.blocks.state_space import convolution as short_convolution
from willfit.architectures.blocks.tensors import buffer, column, linear, parameter, rms_norm, row
from willfit.architectures.blocks.towers import convolution, learned_positions, stacked, tower_shape
from willfit.architectures.mixers import Mixer
from willfit.architectures.mixers.recurrent import gated_delta
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor, Tower
from willfit.checkpoints.config import Config
from willfit.errors import BadInput
from willfit.quantities import round_up

#: The decays of the delta heads are stored in a vector padded to a multiple of this.
_DECAY_PADDING = 128


def build(
    config: Config, prefix: str = "language_model.model", head_name: str = "language_model.lm_head"
) -> Architecture:
    """The architecture of a Kimi-K3 config.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint.
    """
    text = config.section("text_config") or config
    vision = config.section("vision_config")
    decoder = _decoder(text, prefix, head_name)
    return replace(
        decoder,
        model_type=config.text("model_type", default="kimi_k3"),
        towers=(_tower(vision, decoder.hidden_size),) if vision else (),
    )


def _decoder(config: Config, prefix: str, head_name: str) -> Architecture:
    hidden = config.integer("hidden_size")
    count = layer_count(config)
    section = config.section("linear_attn_config")
    if section is None:
        raise BadInput(
            f"{config.where}: the section 'linear_attn_config' is missing", "it is needed to size the model"
        )
    heads, head_dim = section.integer("num_heads"), section.integer("head_dim")
    kernel = section.integer("short_conv_kernel_size", default=4)
    delta = gated_delta(heads, head_dim, heads, head_dim, kernel, "kimi delta")
    latent = latent_attention_of(config)
    block = f"{prefix}.layers.{{layer}}"

    def layer(key: tuple[bool, bool]) -> Layer:
        attends, routes = key
        module = f"{block}.self_attn"
        mixer: Mixer = latent if attends else delta
        if attends:
            gate = linear(
                f"{module}.g_proj", hidden, latent.output_width, "attention", split=column(latent.heads)
            )
            projections = latent_attention_tensors(module, hidden, latent) + gate
        else:
            projections = _delta_tensors(module, hidden, heads, head_dim, kernel)
        tensors = (
            *_stream_reader(f"{block}.self_attention_res", hidden),
            *rms_norm(f"{block}.input_layernorm", hidden),
            *projections,
            *_stream_reader(f"{block}.mlp_res", hidden),
            *rms_norm(f"{block}.post_attention_layernorm", hidden),
        )
        if routes:
            experts = experts_of(config)
            tensors += _mixture(config, f"{block}.block_sparse_moe", hidden, experts)
            return Layer(tensors, (mixer,), experts.feed_forward)
        width = config.integer("intermediate_size")
        return Layer(tensors + gated_mlp(f"{block}.mlp", hidden, width), (mixer,), FeedForward(width))

    # The list counts layers from 1.
    attending = set(section.integers("full_attn_layers"))
    return causal_decoder(
        config,
        family="kimi_k3",
        layers=repeated(
            layer,
            zip(
                (index + 1 in attending for index in range(count)), sparse_layers(config, count), strict=True
            ),
        ),
        hidden=hidden,
        vocab=config.integer("vocab_size"),
        rope_dim=0 if config.boolean("mla_use_nope", default=True) else latent.rope_dim,
        prefix=prefix,
        head_name=head_name,
        final_norm=(
            *_stream_reader(f"{prefix}.output_attn_res", hidden),
            *rms_norm(f"{prefix}.norm", hidden),
        ),
    )


def _stream_reader(name: str, hidden: int) -> tuple[Tensor, ...]:
    """Norm and one-column projection that weigh earlier blocks of the residual stream."""
    return (*rms_norm(f"{name}_norm", hidden), *linear(f"{name}_proj", hidden, 1, "mlp"))


def _delta_tensors(prefix: str, hidden: int, heads: int, head_dim: int, kernel: int) -> tuple[Tensor, ...]:
    """Kimi delta attention whose forget gate alone goes through a bottleneck."""
    inner, by_head = heads * head_dim, column(heads)
    tensors: tuple[Tensor, ...] = ()
    for name in ("q", "k", "v"):
        tensors += linear(f"{prefix}.{name}_proj", hidden, inner, "mixer", split=by_head)
        tensors += short_convolution(f"{prefix}.{name}_conv1d", inner, kernel, split=by_head)
    return (
        *tensors,
        *linear(f"{prefix}.f_a_proj", hidden, head_dim, "mixer"),
        *linear(f"{prefix}.f_b_proj", head_dim, inner, "mixer", split=by_head),
        *parameter(f"{prefix}.A_log", (round_up(heads, _DECAY_PADDING),), "mixer"),
        *parameter(f"{prefix}.dt_bias", (inner,), "mixer", by_head),
        *linear(f"{prefix}.b_proj", hidden, heads, "mixer", split=by_head),
        *linear(f"{prefix}.g_proj", hidden, inner, "mixer", split=by_head),
        *rms_norm(f"{prefix}.o_norm", head_dim),
        *linear(f"{prefix}.o_proj", inner, hidden, "mixer", split=row(heads)),
    )


def _mixture(config: Config, prefix: str, hidden: int, experts: Experts) -> tuple[Tensor, ...]:
    """Router on the residual stream, routed experts between a projection down and one up, shared experts."""
    latent = config.integer("routed_expert_hidden_size")
    norm = config.boolean("latent_moe_use_norm", default=False)
    return (
        *router(f"{prefix}.gate", hidden, experts.count),
        *buffer(f"{prefix}.gate.e_score_correction_bias", (experts.count,), "router"),
        # Experts are divided inside, so what enters and leaves them is whole on every rank.
        *linear(f"{prefix}.routed_expert_down_proj", hidden, latent, "mlp"),
        *gated_mlp(
            f"{prefix}.experts.{{expert}}",
            latent,
            experts.width,
            part="experts",
            names=("w1", "w3", "w2"),
            copies=experts.count,
        ),
        *(rms_norm(f"{prefix}.routed_expert_norm", latent) if norm else ()),
        *linear(f"{prefix}.routed_expert_up_proj", latent, hidden, "mlp"),
        *gated_mlp(f"{prefix}.shared_experts", hidden, experts.shared_width),
    )


def _tower(config: Config, text_hidden: int) -> Tower:
    """MoonViT in its second version: RMS norms, no biases, attention wider than the stream."""
    shape = tower_shape(
        config,
        hidden=("vt_hidden_size",),
        layers=("vt_num_hidden_layers",),
        heads=("vt_num_attention_heads",),
        width=("vt_intermediate_size",),
    )
    hidden, heads = shape.hidden, shape.heads
    inner = config.integer("qkv_hidden_size", default=hidden)
    patch = config.integer("patch_size")
    merged = hidden
    for side in config.integers("merge_kernel_size"):
        merged *= side
    rows = config.integer("init_pos_emb_height") * config.integer("init_pos_emb_width")
    block = "vision_tower.encoder.blocks.{layer}"
    layer = (
        *rms_norm(f"{block}.norm0", hidden, part="vision"),
        *linear(f"{block}.wqkv", hidden, 3 * inner, "vision", split=column(heads)),
        *linear(f"{block}.wo", inner, hidden, "vision", split=row(heads)),
        *rms_norm(f"{block}.norm1", hidden, part="vision"),
        *linear(f"{block}.mlp.fc0", hidden, shape.width, "vision", split=column(shape.width)),
        *linear(f"{block}.mlp.fc1", shape.width, hidden, "vision", split=row(shape.width)),
    )
    tensors = (
        *convolution("vision_tower.patch_embed.proj", (hidden, 3, patch, patch), "vision", bias=False),
        *learned_positions("vision_tower.patch_embed.pos_emb", rows, hidden, "vision"),
        *stacked(layer, shape.layers),
        *rms_norm("vision_tower.encoder.final_layernorm", hidden, part="vision"),
        *linear("mm_projector.proj.0", merged, merged, "vision"),
        *linear("mm_projector.proj.2", merged, text_hidden, "vision"),
        *rms_norm("mm_projector.post_norm", text_hidden, part="vision"),
    )
    return shape.tower("vision", tensors)
