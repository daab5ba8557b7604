"""BART and mBART: encoder-decoders with learned positions, layer norms and biases everywhere.

Source: transformers `models/bart/modeling_bart.py`, `models/mbart/modeling_mbart.py`. mBART adds a last
norm to each stack.
"""

from __future__ import annotations

from willfit.architectures.blocks.decoder import dtype_of, is_headless, layer_count, repeated
from willfit.architectures.blocks.seq2seq import decoder_layer, encoder_layer
from willfit.architectures.blocks.tasks import classifier, task_of
from willfit.architectures.blocks.tensors import buffer, column, embedding, layer_norm, linear
from willfit.architectures.blocks.towers import learned_positions
from willfit.architectures.model import Architecture, Layer, Tensor
from willfit.checkpoints.config import Config

#: Both stacks' position tables begin with two rows that are never used.
_POSITION_OFFSET = 2


def build(config: Config) -> Architecture:
    """The architecture of a BART or mBART config."""
    model_type = config.text("model_type", default="bart")
    hidden = config.integer("d_model", "hidden_size")
    vocab = config.integer("vocab_size")
    positions = config.integer("max_position_embeddings")
    task = task_of(config)
    bare = is_headless(config)
    dot = "" if bare else "model."

    def layers(stack: str) -> tuple[Layer, ...]:
        make = encoder_layer if stack == "encoder" else decoder_layer
        heads = config.integer(f"{stack}_attention_heads", "num_attention_heads")
        width = config.integer(f"{stack}_ffn_dim")
        prefix = f"{dot}{stack}.layers.{{layer}}"
        count = layer_count(config, f"{stack}_layers")
        return repeated(lambda _: make(prefix, hidden, heads, width), (0,) * count)

    embeddings: tuple[Tensor, ...] = embedding(f"{dot}shared", vocab, hidden)
    for stack in ("encoder", "decoder"):
        rows = positions + _POSITION_OFFSET
        embeddings += learned_positions(f"{dot}{stack}.embed_positions", rows, hidden)
        embeddings += layer_norm(f"{dot}{stack}.layernorm_embedding", hidden)
    final_norms = model_type == "mbart"
    tied = config.boolean("tie_word_embeddings", default=True)
    head = layer_norm(f"{dot}decoder.layer_norm", hidden) if final_norms else ()
    if task == "ForSequenceClassification":
        head += linear("classification_head.dense", hidden, hidden, "head", bias=True)
        head += classifier("classification_head.out_proj", hidden, config)
    elif not bare:
        head += buffer("final_logits_bias", (1, vocab), "head")
        head += () if tied else linear("lm_head", hidden, vocab, "head", split=column(vocab))
    return Architecture(
        model_type=model_type,
        family="bart",
        hidden_size=hidden,
        vocab_size=vocab,
        max_positions=positions,
        dtype=dtype_of(config, default="fp32"),
        embeddings=embeddings,
        encoder=layers("encoder"),
        layers=layers("decoder"),
        shared=layer_norm(f"{dot}encoder.layer_norm", hidden) if final_norms else (),
        head=head,
        tied=tied and not bare and not task,
    )
