"""ModernBERT: rotary pre-norm encoder, gated MLP, local attention in all but every n-th layer.

Source: transformers `models/modernbert/modeling_modernbert.py` and `configuration_modernbert.py`. The first
layer has no attention norm, because the embeddings were just normalised.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import fused_qkv
from willfit.architectures.blocks.decoder import repeated, shape_of
from willfit.architectures.blocks.encoders import encoder_only
from willfit.architectures.blocks.layer_types import kinds_of
from willfit.architectures.blocks.rotary import ropes_of
from willfit.architectures.blocks.tasks import classifier, task_of
from willfit.architectures.blocks.tensors import column, embedding, layer_norm, linear, row
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config


def build(config: Config) -> Architecture:
    """The architecture of a ModernBERT config."""
    shape = shape_of(config)
    hidden, width = shape.hidden, shape.width
    task = task_of(config)
    dot = "model." if task else ""
    norm_bias = config.boolean("norm_bias", default=False)
    attention_bias = config.boolean("attention_bias", default=False)
    mlp_bias = config.boolean("mlp_bias", default=False)

    def layer(key: tuple[bool, int]) -> Layer:
        first, window = key
        prefix = f"{dot}layers.{{layer}}"
        attention = shape.attention(window=window, keeps_cache=False)
        return Layer(
            (
                *(() if first else layer_norm(f"{prefix}.attn_norm", hidden, bias=norm_bias)),
                *fused_qkv(f"{prefix}.attn.Wqkv", hidden, attention, bias=attention_bias),
                *linear(
                    f"{prefix}.attn.Wo",
                    hidden,
                    hidden,
                    "attention",
                    bias=attention_bias,
                    split=row(shape.heads),
                ),
                *layer_norm(f"{prefix}.mlp_norm", hidden, bias=norm_bias),
                *linear(f"{prefix}.mlp.Wi", hidden, 2 * width, "mlp", bias=mlp_bias, split=column(width)),
                *linear(f"{prefix}.mlp.Wo", width, hidden, "mlp", bias=mlp_bias, split=row(width)),
            ),
            (attention,),
            FeedForward(width),
        )

    tied = config.boolean("tie_word_embeddings", default=True)
    return encoder_only(
        config,
        family="modernbert",
        embeddings=(
            *embedding(f"{dot}embeddings.tok_embeddings", shape.vocab, hidden),
            *layer_norm(f"{dot}embeddings.norm", hidden, bias=norm_bias),
        ),
        layers=repeated(layer, _keys(config, shape.layers)),
        head=layer_norm(f"{dot}final_norm", hidden, bias=norm_bias)
        + _head(config, hidden, shape.vocab, task, tied, norm_bias),
        hidden=hidden,
        tied=tied and task == "ForMaskedLM",
        ropes=ropes_of(config, shape.head_dim),
    )


def _keys(config: Config, layers: int) -> list[tuple[bool, int]]:
    """For each layer whether it is the first, and its window.

    The window is `local_attention` tokens, half on each side; 0 in global layers.
    """
    window = config.integer("local_attention", default=128)
    kinds = kinds_of(config, layers)
    if kinds is None:
        every = config.integer("global_attn_every_n_layers", default=3)
        local = [index % every != 0 for index in range(layers)]
    else:
        local = ["sliding" in kind for kind in kinds]
    return [(index == 0, window if is_local else 0) for index, is_local in enumerate(local)]


def _head(
    config: Config, hidden: int, vocab: int, task: str, tied: bool, norm_bias: bool
) -> tuple[Tensor, ...]:
    if not task:
        return ()
    shared = (
        *linear("head.dense", hidden, hidden, "head", bias=config.boolean("classifier_bias", default=False)),
        *layer_norm("head.norm", hidden, bias=norm_bias, part="head"),
    )
    if task != "ForMaskedLM":
        return shared + classifier("classifier", hidden, config)
    decoder = linear(
        "decoder",
        hidden,
        vocab,
        "head",
        bias=config.boolean("decoder_bias", default=True),
        split=column(vocab),
    )
    return shared + (decoder[1:] if tied else decoder)
