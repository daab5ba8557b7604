"""Whisper: an audio encoder with a convolutional stem, and a text decoder that attends over it.

Source: transformers `models/whisper/modeling_whisper.py`. The encoder always sees `max_source_positions`
(1500, 30 s of audio) positions, so cross-attention keeps keys and values of that many.
"""

from __future__ import annotations

from willfit.architectures.blocks.decoder import dtype_of, layer_count, repeated
from willfit.architectures.blocks.seq2seq import decoder_layer, encoder_layer
from willfit.architectures.blocks.tensors import column, embedding, layer_norm, linear
from willfit.architectures.blocks.towers import audio_stem, learned_positions
from willfit.architectures.model import Architecture
from willfit.checkpoints.config import Config


def build(config: Config) -> Architecture:
    """The architecture of a Whisper config."""
    hidden = config.integer("d_model", "hidden_size")
    vocab = config.integer("vocab_size")
    source = config.integer("max_source_positions", default=1500)
    positions = config.integer("max_target_positions", default=448)
    encoder_heads, encoder_width = (
        config.integer("encoder_attention_heads"),
        config.integer("encoder_ffn_dim"),
    )
    decoder_heads, decoder_width = (
        config.integer("decoder_attention_heads"),
        config.integer("decoder_ffn_dim"),
    )
    tied = config.boolean("tie_word_embeddings", default=True)
    return Architecture(
        model_type="whisper",
        family="whisper",
        hidden_size=hidden,
        vocab_size=vocab,
        max_positions=positions,
        dtype=dtype_of(config, default="fp32"),
        embeddings=(
            *audio_stem(
                "model.encoder", hidden, config.integer("num_mel_bins", default=80), source, "embedding"
            ),
            *embedding("model.decoder.embed_tokens", vocab, hidden),
            *learned_positions("model.decoder.embed_positions", positions, hidden),
        ),
        encoder=repeated(
            lambda _: encoder_layer(
                "model.encoder.layers.{layer}", hidden, encoder_heads, encoder_width, key_bias=False
            ),
            (0,) * layer_count(config, "encoder_layers"),
        ),
        layers=repeated(
            lambda _: decoder_layer(
                "model.decoder.layers.{layer}",
                hidden,
                decoder_heads,
                decoder_width,
                key_bias=False,
                source_tokens=source,
            ),
            (0,) * layer_count(config, "decoder_layers"),
        ),
        shared=layer_norm("model.encoder.layer_norm", hidden),
        head=layer_norm("model.decoder.layer_norm", hidden)
        + (() if tied else linear("proj_out", hidden, vocab, "head", split=column(vocab))),
        tied=tied,
        encoder_tokens=source,
    )
