"""Decoders with multi-head latent attention: DeepSeek-V2 and V3 with their relatives, dense or with experts.

Source: transformers `models/deepseek_v2`, `deepseek_v3`, `deepseek_v32`, `glm_moe_dsa`, `axk1`, `mistral4`,
`minicpm3`, `youtu`; the multi-token-prediction module is section 2.2 of the DeepSeek-V3 report, its names
those of the published checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.blocks.decoder import bounded_count, causal_decoder, layer_count, repeated
from willfit.architectures.blocks.experts import expert_tensors, experts_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.latent import latent_attention_of, latent_attention_tensors
from willfit.architectures.blocks.layer_types import indexed_layers, sparse_layers
from willfit.architectures.blocks.mtp import deepseek_mtp_tensors, mtp_modules
from willfit.architectures.blocks.tensors import buffer, rms_norm
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config


@dataclass(frozen=True, slots=True)
class Variant:
    """How a relative differs from DeepSeek-V3.

    Attributes
    ----------
    experts
        False for a dense model.
    router_bias
        The router has a correction bias (routing without an auxiliary loss).
    post_mlp_norm
        A norm over the experts' output, which dense layers store and do not use.
    mtp_head
        The multi-token-prediction module has its own copies of the token table and of the head.
    tied
        What an absent `tie_word_embeddings` means.
    """

    experts: bool = True
    router_bias: bool = True
    post_mlp_norm: bool = False
    mtp_head: bool = True
    tied: bool = False


#: By `model_type`.
VARIANTS: dict[str, Variant] = {
    "axk1": Variant(router_bias=False, post_mlp_norm=True),
    "deepseek_v2": Variant(router_bias=False),
    "glm_moe_dsa": Variant(mtp_head=False),
    "minicpm3": Variant(experts=False, tied=True),
    "mistral4": Variant(router_bias=False),
    "youtu": Variant(experts=False, tied=True),
}


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a decoder with multi-head latent attention.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint (longer inside a larger model).
    """
    variant = VARIANTS.get(config.text("model_type", default="deepseek_v3"), Variant())
    hidden = config.integer("hidden_size")
    vocab = config.integer("vocab_size")
    count = layer_count(config)
    bias = config.boolean("attention_bias", default=False)
    sparse = sparse_layers(config, count) if variant.experts else (False,) * count
    indexed = indexed_layers(config, count)
    block = f"{prefix}.layers.{{layer}}"

    def layer(key: tuple[bool, bool], extra: tuple[Tensor, ...] = ()) -> Layer:
        routes, has_indexer = key
        attention = latent_attention_of(
            config,
            index_heads=config.integer("index_n_heads") if has_indexer else 0,
            index_dim=config.integer("index_head_dim") if has_indexer else 0,
        )
        tensors = (
            *rms_norm(f"{block}.input_layernorm", hidden),
            *latent_attention_tensors(f"{block}.self_attn", hidden, attention, bias=bias),
            *rms_norm(f"{block}.post_attention_layernorm", hidden),
        )
        post_norm = f"{block}.post_mlp_layernorm"
        if routes:
            experts = experts_of(config)
            router_bias = "gate.e_score_correction_bias" if variant.router_bias else ""
            tensors += expert_tensors(f"{block}.mlp", hidden, experts, bias=router_bias)
            if variant.post_mlp_norm:
                tensors += rms_norm(post_norm, hidden)
            return Layer(tensors + extra, (attention,), experts.feed_forward)
        width = config.integer("intermediate_size")
        tensors += gated_mlp(f"{block}.mlp", hidden, width)
        if variant.post_mlp_norm:
            tensors += buffer(f"{post_norm}.weight", (hidden,), "norm")
        return Layer(tensors + extra, (attention,), FeedForward(width))

    module = layer(
        (sparse[-1], "index_n_heads" in config),
        deepseek_mtp_tensors(block, hidden, vocab, copies=variant.mtp_head),
    )
    modules = (module,) * bounded_count(config, "num_nextn_predict_layers", default=0)
    return causal_decoder(
        config,
        family="deepseek",
        layers=repeated(layer, zip(sparse, indexed, strict=True)),
        hidden=hidden,
        vocab=vocab,
        rope_dim=config.integer("qk_rope_head_dim"),
        tied_default=variant.tied,
        prefix=prefix,
        head_name=head_name,
        **mtp_modules(modules, first=count),
    )
