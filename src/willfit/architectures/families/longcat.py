"""LongCat-Flash: two attentions and two MLPs a layer beside its experts, some of which compute nothing.

Source: transformers `models/longcat_flash`; n-gram embeddings (LongCat-Flash-Lite) after "Scaling Embeddings
Outperforms Scaling Experts"; names are the checkpoints'. Zero experts pass their input on and have no
weights. Every published checkpoint has one multi-token-prediction module, which configs do not mention.
"""

from __future__ import annotations

from willfit.architectures.blocks.decoder import bounded_count, causal_decoder, layer_count, repeated
from willfit.architectures.blocks.experts import Experts
from willfit.architectures.blocks.feed_forward import gated_mlp, router
from willfit.architectures.blocks.latent import latent_attention_of, latent_attention_tensors
from willfit.architectures.blocks.mtp import mtp_modules
from willfit.architectures.blocks.tensors import buffer, embedding, linear, rms_norm
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a LongCat-Flash config.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint (longer inside a larger model).
    """
    hidden = config.integer("hidden_size")
    vocab = config.integer("vocab_size")
    width = config.integer("ffn_hidden_size", "intermediate_size")
    bias = config.boolean("attention_bias", default=False)
    attention = latent_attention_of(config)
    experts = Experts(
        count=config.integer("n_routed_experts"),
        top_k=config.integer("moe_topk", "num_experts_per_tok"),
        width=config.integer("expert_ffn_hidden_size", "moe_intermediate_size"),
    )
    choices = experts.count + config.integer("zero_expert_num", default=0)
    block = f"{prefix}.layers.{{layer}}"

    def layer(_: int) -> Layer:
        tensors: tuple[Tensor, ...] = ()
        for half in (0, 1):
            tensors += (
                *rms_norm(f"{block}.input_layernorm.{half}", hidden),
                *latent_attention_tensors(f"{block}.self_attn.{half}", hidden, attention, bias=bias),
                *rms_norm(f"{block}.post_attention_layernorm.{half}", hidden),
                *gated_mlp(f"{block}.mlps.{half}", hidden, width),
            )
        tensors += (
            *router(f"{block}.mlp.router.classifier", hidden, choices),
            *buffer(f"{block}.mlp.router.e_score_correction_bias", (choices,), "router"),
            *gated_mlp(
                f"{block}.mlp.experts.{{expert}}",
                hidden,
                experts.width,
                part="experts",
                copies=experts.count,
            ),
        )
        # A token's choices fall on zero experts too, so its share of the weights counts them.
        feed_forward = FeedForward(
            2 * width, experts=choices, top_k=experts.top_k, expert_width=experts.width
        )
        return Layer(tensors, (attention, attention), feed_forward)

    module = f"{prefix}.mtp.layers.{{layer}}"
    draft = Layer(
        (
            *embedding(f"{prefix}.mtp.embed_tokens", vocab, hidden),
            *rms_norm(f"{module}.enorm.m", hidden),
            *rms_norm(f"{module}.hnorm.m", hidden),
            *linear(f"{module}.eh_proj", 2 * hidden, hidden, "mtp"),
            *rms_norm(f"{module}.input_layernorm", hidden),
            *latent_attention_tensors(f"{module}.self_attn", hidden, attention, bias=bias),
            *rms_norm(f"{module}.post_attention_layernorm", hidden),
            *gated_mlp(f"{module}.transformer_layer.mlp", hidden, width),
            *rms_norm(f"{prefix}.mtp.norm", hidden),
        ),
        (attention,),
        FeedForward(width),
    )
    return causal_decoder(
        config,
        family="longcat",
        layers=repeated(layer, (0,) * layer_count(config)),
        hidden=hidden,
        vocab=vocab,
        rope_dim=attention.rope_dim,
        prefix=prefix,
        head_name=head_name,
        embeddings=(
            *embedding(f"{prefix}.embed_tokens", vocab, hidden),
            *_ngram_embeddings(f"{prefix}.ngram_embeddings", config, hidden, vocab),
        ),
        **mtp_modules((draft,) * bounded_count(config, "num_nextn_predict_layers", default=1)),
    )


def _ngram_embeddings(prefix: str, config: Config, hidden: int, vocab: int) -> tuple[Tensor, ...]:
    """Tables for n-grams of 2 to `emb_neighbor_num` tokens, `emb_split_num` for each, and their projections.

    Tables have different odd numbers of rows, so that their hashes collide differently.
    """
    if "emb_neighbor_num" not in config:
        return ()
    tables = config.integer("emb_split_num") * (config.integer("emb_neighbor_num") - 1)
    rows = int(config.number("ngram_vocab_size_ratio") * vocab)
    width = hidden // tables
    tensors: tuple[Tensor, ...] = ()
    for index in range(tables):
        tensors += embedding(f"{prefix}.embedders.{index}", rows + 2 * index + 1, width)
        tensors += linear(f"{prefix}.post_projs.{index}", width, hidden, "embedding")
    return tensors
