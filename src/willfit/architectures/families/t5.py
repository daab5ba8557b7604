"""T5 and its kin: RMS norms, relative position biases, no linear biases, plain or gated MLP.

Source: transformers `models/t5/modeling_t5.py`, `models/umt5/modeling_umt5.py`. T5 and mT5 hold one table of
relative biases per stack, UMT5 one per layer. An absent `tie_word_embeddings` means tied. An explicit false
(T5 1.1, Flan-T5, mT5) means an output projection of its own: transformers 5.23 asks for tying in all of them,
but leaves two different stored tables untied when it loads them.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import dtype_of, is_headless, layer_count, repeated
from willfit.architectures.blocks.feed_forward import gated_mlp, plain_mlp
from willfit.architectures.blocks.tensors import column, embedding, linear, rms_norm
from willfit.architectures.mixers import Attention, CrossAttention
from willfit.architectures.model import Architecture, FeedForward, Layer, Split, Tensor
from willfit.checkpoints.config import Config

_PROJECTIONS = ("q", "k", "v", "o")


def build(config: Config) -> Architecture:
    """The architecture of a T5-like config."""
    model_type = config.text("model_type", default="t5")
    hidden = config.integer("d_model", "hidden_size")
    vocab = config.integer("vocab_size")
    encoder_layers = layer_count(config, "num_layers", "num_hidden_layers")
    encoder_alone = "EncoderModel" in "".join(config.strings("architectures")[:1])
    if encoder_alone or "num_decoder_layers" not in config:
        decoder_layers = encoder_layers
    else:
        decoder_layers = layer_count(config, "num_decoder_layers")
    per_layer = model_type == "umt5"
    encoder = repeated(lambda _: _layer(config, "encoder", hidden, per_layer), (0,) * encoder_layers)
    decoder = repeated(lambda _: _layer(config, "decoder", hidden, per_layer), (0,) * decoder_layers)
    stacks = ("encoder",) if encoder_alone else ("encoder", "decoder")
    biases = () if per_layer else tuple(t for s in stacks for t in _biases(config, f"{s}.block.0.layer.0"))
    tied = config.boolean("tie_word_embeddings", default=True)
    encoder_norm = rms_norm("encoder.final_layer_norm", hidden)
    head = rms_norm("decoder.final_layer_norm", hidden)
    if not tied and not is_headless(config):
        head += linear("lm_head", hidden, vocab, "head", split=column(vocab))
    return Architecture(
        model_type=model_type,
        family="t5",
        hidden_size=hidden,
        vocab_size=vocab,
        # Positions are relative: this is what it was trained with, not what it can have.
        max_positions=config.integer("n_positions", default=0),
        dtype=dtype_of(config, default="fp32"),
        embeddings=embedding("shared", vocab, hidden),
        encoder=() if encoder_alone else encoder,
        layers=encoder if encoder_alone else decoder,
        shared=biases if encoder_alone else (*biases, *encoder_norm),
        head=encoder_norm if encoder_alone else head,
        tied=tied and not is_headless(config),
        encoder_only=encoder_alone,
        causal=not encoder_alone,
    )


def _layer(config: Config, stack: str, hidden: int, per_layer: bool) -> Layer:
    """One layer of the encoder, or of the decoder with attention over the encoder's output."""
    heads = config.integer("num_heads", "num_attention_heads")
    head_dim = config.integer("d_kv", "head_dim")
    width = config.integer("d_ff", "intermediate_size")
    gated = config.text("feed_forward_proj", default="relu").startswith("gated")
    decodes = stack == "decoder"
    block = f"{stack}.block.{{layer}}.layer"
    attention = Attention(heads, heads, head_dim, head_dim, keeps_cache=decodes)
    tensors = attention_tensors(f"{block}.0.SelfAttention", hidden, attention, names=_PROJECTIONS)
    if per_layer:
        tensors += _biases(config, f"{block}.0")
    tensors += rms_norm(f"{block}.0.layer_norm", hidden)
    if decodes:
        tensors += attention_tensors(f"{block}.1.EncDecAttention", hidden, attention, names=_PROJECTIONS)
        tensors += rms_norm(f"{block}.1.layer_norm", hidden)
    last = f"{block}.{2 if decodes else 1}"
    if gated:
        tensors += gated_mlp(f"{last}.DenseReluDense", hidden, width, names=("wi_0", "wi_1", "wo"))
    else:
        tensors += plain_mlp(f"{last}.DenseReluDense", hidden, width, names=("wi", "wo"))
    tensors += rms_norm(f"{last}.layer_norm", hidden)
    cross = (CrossAttention(heads, heads, head_dim),) if decodes else ()
    return Layer(tensors, (attention, *cross), FeedForward(width, gated))


def _biases(config: Config, block: str) -> tuple[Tensor, ...]:
    """A learned bias per bucket of relative distance and head."""
    heads = config.integer("num_heads", "num_attention_heads")
    buckets = config.integer("relative_attention_num_buckets", default=32)
    name = f"{block}.SelfAttention.relative_attention_bias.weight"
    return (Tensor(name, (buckets, heads), "attention", "other", Split(1, heads)),)
