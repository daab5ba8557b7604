"""Heads that guess several tokens at once from one hidden state: Medusa and IBM's MLP speculator.

Medusa: https://arxiv.org/abs/2401.10774, a block of residual layers and a vocabulary head for each token. MLP
speculator: https://arxiv.org/abs/2404.19124, a small recurrence with a table, a projection and a head for each
token, or shared by all of them. Neither keeps a cache.
"""

from __future__ import annotations

from willfit.architectures.blocks.decoder import bounded_count, dtype_of
from willfit.architectures.blocks.tensors import column, embedding, layer_norm, linear
from willfit.architectures.model import Architecture, Tensor
from willfit.checkpoints.config import Config


def build(config: Config) -> Architecture:
    """The architecture of such a head."""
    kind = config.text("model_type")
    return _medusa(config) if kind == "medusa" else _mlp_speculator(config)


def _medusa(config: Config) -> Architecture:
    hidden, vocab = config.integer("hidden_size"), config.integer("vocab_size")
    blocks = bounded_count(config, "num_heads", "medusa_num_heads")
    layers = bounded_count(config, "num_hidden_layers", "medusa_num_layers", default=1)
    truncated = config.integer("truncated_vocab_size", default=vocab)
    bias = config.boolean("medusa_fc_bias", default=False)
    tensors: tuple[Tensor, ...] = ()
    for block in range(blocks):
        for layer in range(layers):
            tensors += linear(f"blocks.{block}.layers.{layer}", hidden, hidden, "mlp", bias=bias)
    if config.boolean("original_lm_head", default=False):
        head = linear("lm_head", hidden, truncated, "head", split=column(truncated))
    else:
        head = ()
        for block in range(blocks):
            head += linear(f"lm_heads.{block}", hidden, vocab, "head", split=column(vocab))
    return _token_heads(config, "medusa", hidden, vocab, tensors, head)


def _mlp_speculator(config: Config) -> Architecture:
    vocab, outer = config.integer("vocab_size"), config.integer("emb_dim")
    inner = config.integer("inner_dim", default=0) or outer
    stages = bounded_count(config, "n_predict", "num_lookahead_tokens")
    own = 1 if config.boolean("tie_weights", default=False) else stages
    tensors = linear("proj.0", outer, inner, "mlp")
    for stage in range(1, min(stages, own + 1)):
        tensors += linear(f"proj.{stage}", inner, inner, "mlp")
    tables: tuple[Tensor, ...] = ()
    heads: tuple[Tensor, ...] = ()
    for stage in range(own):
        tables += embedding(f"emb.{stage}", vocab, inner)
        heads += linear(f"head.{stage}", inner, vocab, "head", split=column(vocab))
        tensors += layer_norm(f"ln.{stage}", inner)
    return _token_heads(config, "mlp_speculator", outer, vocab, tensors, heads, tables)


def _token_heads(
    config: Config,
    kind: str,
    hidden: int,
    vocab: int,
    tensors: tuple[Tensor, ...],
    head: tuple[Tensor, ...],
    tables: tuple[Tensor, ...] = (),
) -> Architecture:
    return Architecture(
        model_type=kind,
        family="token_heads",
        hidden_size=hidden,
        vocab_size=vocab,
        max_positions=0,
        dtype=dtype_of(config),
        embeddings=tables,
        layers=(),
        head=head,
        tied=False,
        shared=tensors,
    )
