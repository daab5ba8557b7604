"""The language model of GLM-5 Next: Kimi delta attention, latent attention with an indexer, and experts.

Source: transformers `models/glm5_next`; names as in the published checkpoints, whose multi-token-prediction
module continues the layers and has no hyper-connections. Manifold-constrained hyper-connections widen the
residual stream to `hc_mult` streams, which each half of a layer collapses, expands and mixes.
"""

from __future__ import annotations

from willfit.architectures.blocks.compressed import hyper_connection_tensors
from willfit.architectures.blocks.decoder import bounded_count, causal_decoder, layer_count, repeated
from willfit.architectures.blocks.delta import kimi_delta_tensors
from willfit.architectures.blocks.experts import expert_tensors, experts_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.latent import latent_attention_of, latent_attention_tensors
from willfit.architectures.blocks.layer_types import indexed_layers, kinds_of, sparse_layers
from willfit.architectures.blocks.mtp import deepseek_mtp_tensors, mtp_modules
from willfit.architectures.blocks.state_space import state_dtype_of
from willfit.architectures.blocks.tensors import parameter, rms_norm
from willfit.architectures.mixers import Mixer
from willfit.architectures.mixers.recurrent import gated_delta
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a GLM-5 Next language model.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint (longer inside a larger model).
    """
    hidden = config.integer("hidden_size")
    vocab = config.integer("vocab_size")
    count = layer_count(config)
    section = config.section("linear_attn_config") or config
    heads = section.integer("num_heads", "linear_num_heads", default=64)
    head_dim = section.integer("head_dim" if section is not config else "linear_head_dim", default=128)
    kernel = section.integer("short_conv_kernel_size", "linear_conv_kernel_dim", default=4)
    delta = gated_delta(heads, head_dim, heads, head_dim, kernel, "kimi delta", state_dtype_of(config))
    streams = config.integer("hc_mult", default=4)
    block = f"{prefix}.layers.{{layer}}"

    def layer(key: tuple[bool, bool, bool], extra: tuple[Tensor, ...] = ()) -> Layer:
        is_delta, indexes, routes = key
        attention = f"{block}.self_attn"
        mixer: Mixer
        if is_delta:
            mixer = delta
            tensors = kimi_delta_tensors(
                attention, hidden, heads, head_dim, kernel, forget_rank=head_dim, gate_rank=head_dim
            )
        else:
            latent = mixer = latent_attention_of(
                config,
                index_heads=config.integer("index_n_heads") if indexes else 0,
                index_dim=config.integer("index_head_dim") if indexes else 0,
                index_pool=config.integer("index_kpool", default=16),
            )
            tensors = latent_attention_tensors(attention, hidden, latent)
            if indexes:
                pool = f"{attention}.indexer.index_kpool_compress"
                tensors += parameter(f"{pool}_ape", (latent.index_pool, latent.index_dim), "attention")
                tensors += parameter(f"{pool}_gate", (latent.index_dim, hidden), "attention")
        tensors += (
            *rms_norm(f"{block}.input_layernorm", hidden),
            *rms_norm(f"{block}.post_attention_layernorm", hidden),
            *extra,
        )
        if routes:
            experts = experts_of(config)
            tensors += expert_tensors(f"{block}.mlp", hidden, experts, bias="gate.e_score_correction_bias")
            return Layer(tensors, (mixer,), experts.feed_forward)
        width = config.integer("intermediate_size")
        return Layer(tensors + gated_mlp(f"{block}.mlp", hidden, width), (mixer,), FeedForward(width))

    kinds = kinds_of(config, count) or [
        "linear_attention" if index % 4 != 3 else "indexed_attention" for index in range(count)
    ]
    sparse = sparse_layers(config, count)
    fusion = deepseek_mtp_tensors(block, hidden, vocab, copies=False)
    module = layer((False, True, sparse[-1]), fusion)
    modules = (module,) * bounded_count(config, "num_nextn_predict_layers", default=1)
    connections = hyper_connection_tensors(block, hidden, streams)
    keys = zip(
        (kind == "linear_attention" for kind in kinds),
        indexed_layers(config, count),
        sparse,
        strict=True,
    )
    return causal_decoder(
        config,
        family="glm5_next",
        layers=repeated(lambda key: layer(key, connections), keys),
        hidden=hidden,
        vocab=vocab,
        rope_dim=config.integer("qk_rope_head_dim", default=0),
        prefix=prefix,
        head_name=head_name,
        **mtp_modules(modules, first=count),
    )
