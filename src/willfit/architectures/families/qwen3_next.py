"""Qwen3-Next and the language models of Qwen3.5 and 3.6: gated delta nets and gated attention, three to one.

Source: transformers `models/qwen3_next`, `models/qwen3_5`, `models/qwen3_5_moe`; the multi-token-prediction
module's names are those of the published checkpoints. Qwen3.5 stores all experts of a layer in two tensors,
its quantized checkpoints and Qwen3-Next store them one by one.
"""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.blocks.decoder import bounded_count, causal_decoder, repeated, shape_of
from willfit.architectures.blocks.delta import delta_net_tensors, gated_attention_tensors
from willfit.architectures.blocks.feed_forward import fused_experts, gated_mlp, router
from willfit.architectures.blocks.layer_types import kinds_of
from willfit.architectures.blocks.mtp import mtp_modules
from willfit.architectures.blocks.state_space import state_dtype_of
from willfit.architectures.blocks.tensors import embedding, linear, rms_norm
from willfit.architectures.mixers import Mixer
from willfit.architectures.mixers.recurrent import gated_delta
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Qwen3-Next or Qwen3.5 language model.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint (longer inside a larger model).
    """
    shape = shape_of(config, width_default=0)
    hidden = shape.hidden
    first_generation = config.text("model_type", default="qwen3_next") == "qwen3_next"
    key_heads, key_dim = config.integer("linear_num_key_heads"), config.integer("linear_key_head_dim")
    value_heads, value_dim = config.integer("linear_num_value_heads"), config.integer("linear_value_head_dim")
    kernel = config.integer("linear_conv_kernel_dim", default=4)
    delta = gated_delta(
        key_heads, key_dim, value_heads, value_dim, kernel, state_dtype=state_dtype_of(config)
    )

    def layer(key: tuple[str, bool], block: str = f"{prefix}.layers.{{layer}}") -> Layer:
        kind, routes = key
        mixer: Mixer
        if kind == "linear_attention":
            mixer = delta
            tensors = delta_net_tensors(
                f"{block}.linear_attn",
                hidden,
                key_heads,
                key_dim,
                value_heads,
                value_dim,
                kernel,
                fused=first_generation,
            )
        else:
            mixer = attention = shape.attention(gated=True)
            tensors = gated_attention_tensors(f"{block}.self_attn", hidden, attention)
        if routes:
            one_by_one = first_generation or "quantization_config" in config
            mlp, widths = expert_mlp(config, f"{block}.mlp", hidden, one_by_one=one_by_one)
        else:
            width = config.integer("intermediate_size")
            mlp, widths = gated_mlp(f"{block}.mlp", hidden, width), FeedForward(width)
        tensors += (
            *mlp,
            *rms_norm(f"{block}.input_layernorm", hidden),
            *rms_norm(f"{block}.post_attention_layernorm", hidden),
        )
        return Layer(tensors, (mixer,), widths)

    sparse = _sparse_layers(config, shape.layers)
    module = layer(("full_attention", sparse[-1]), "mtp.layers.{layer}")
    return causal_decoder(
        config,
        family="qwen3_next",
        layers=repeated(layer, zip(qwen_kinds(config, shape.layers), sparse, strict=True)),
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        head_name=head_name,
        **mtp_modules(_mtp_layers(config, hidden, shape.vocab, module, 1 if first_generation else 0)),
    )


def qwen_kinds(config: Config, layers: int) -> list[str]:
    """The kind of each layer: as `layer_types` says, or attention in every `full_attention_interval`-th."""
    interval = config.integer("full_attention_interval", default=4)
    return kinds_of(config, layers) or [
        "linear_attention" if (index + 1) % interval else "full_attention" for index in range(layers)
    ]


def expert_mlp(
    config: Config, prefix: str, hidden: int, *, one_by_one: bool
) -> tuple[tuple[Tensor, ...], FeedForward]:
    """Experts with a gated shared expert, as Qwen3-Next has them, and their widths.

    Parameters
    ----------
    one_by_one
        Whether the checkpoint stores each expert by itself.
    """
    experts, width = config.integer("num_experts"), config.integer("moe_intermediate_size")
    shared = config.integer("shared_expert_intermediate_size")
    routed = (
        gated_mlp(f"{prefix}.experts.{{expert}}", hidden, width, part="experts", copies=experts)
        if one_by_one
        else fused_experts(f"{prefix}.experts", hidden, width, experts)
    )
    tensors = (
        *router(f"{prefix}.gate", hidden, experts),
        *routed,
        *gated_mlp(f"{prefix}.shared_expert", hidden, shared),
        *linear(f"{prefix}.shared_expert_gate", hidden, 1, "mlp"),
    )
    top_k = config.integer("num_experts_per_tok")
    return tensors, FeedForward(shared, experts=experts, top_k=top_k, expert_width=width)


def _sparse_layers(config: Config, layers: int) -> tuple[bool, ...]:
    if config.integer("num_experts", default=0) == 0:
        return (False,) * layers
    dense = config.integers("mlp_only_layers")
    step = config.integer("decoder_sparse_step", default=1)
    return tuple(index not in dense and (index + 1) % step == 0 for index in range(layers))


def _mtp_layers(config: Config, hidden: int, vocab: int, module: Layer, default: int) -> tuple[Layer, ...]:
    """Attention layers after a fusion of embedding and state, with one norm after the last."""
    count = bounded_count(config, "mtp_num_hidden_layers", "num_nextn_predict_layers", default=default)
    if not count:
        return ()
    fusion = (
        *(
            embedding("mtp.embed_tokens", vocab, hidden)
            if config.boolean("mtp_use_dedicated_embeddings", default=False)
            else ()
        ),
        *rms_norm("mtp.pre_fc_norm_embedding", hidden),
        *rms_norm("mtp.pre_fc_norm_hidden", hidden),
        *linear("mtp.fc", 2 * hidden, hidden, "mtp"),
    )
    modules = [module] * count
    modules[0] = replace(module, tensors=fusion + module.tensors)
    modules[-1] = replace(modules[-1], tensors=modules[-1].tensors + rms_norm("mtp.norm", hidden))
    return tuple(modules)
