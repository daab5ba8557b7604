"""Multi-head latent attention, as training runs it: keys and values of every head are made from the latent."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.architectures.mixers import Attention, LatentAttention
from willfit.architectures.model import Tensor
from willfit.architectures.traits import Traits
from willfit.training.modelling.attention import gated, module_of, parts_of
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.rotary import rotated
from willfit.training.modelling.scores import attend
from willfit.training.tape import Value


def latent_attention(
    builder: Builder, value: Value, tensors: Sequence[Tensor], mixer: LatentAttention, traits: Traits
) -> Value:
    """Compress, expand, rotate, attend and project back (transformers `DeepseekV3Attention`).

    Parameters
    ----------
    builder
        Writes the tape.
    value
        The normed input.
    tensors
        Down- and up-projections, norms of the latents, and the indexer's.
    mixer, traits
        Its shape, and dropout.
    """
    tape, step = builder.tape, builder.step
    named = {module_of(t).rpartition(".")[2]: t for t in tensors if t.kind == "linear"}
    norms = {module_of(t).rpartition(".")[2]: t for t in tensors if t.kind == "norm"}
    parts = parts_of([t for t in tensors if ".indexer." not in t.name])
    heads, rows = max(1, mixer.heads // step.tensor_ranks), step.tokens
    width = mixer.nope_dim + mixer.rope_dim
    turns = bool(mixer.rope_dim) and builder.manner.rope != "none"

    queries = value
    if mixer.query_rank:
        latent = builder.linear(value, named["q_a_proj"], parts.bias(named["q_a_proj"]))
        queries = builder.norm(latent, norms["q_a_layernorm"], traits.norm, rows=rows)
        _index(builder, mixer)
    queries = builder.linear(queries, named["q_b_proj" if mixer.query_rank else "q_proj"])
    if turns:
        still, turned = tape.split(queries, (rows * heads * mixer.nope_dim, rows * heads * mixer.rope_dim))
        turned, _ = rotated(builder, turned)
        queries = tape.run("cat", (still, turned), rows * heads * width, queries.dtype)

    down = named["kv_a_proj_with_mqa"]
    compressed = builder.linear(value, down, parts.bias(down))
    latent, turned = tape.split(compressed, (rows * mixer.kv_rank, rows * mixer.rope_dim))
    latent = builder.norm(latent, norms["kv_a_layernorm"], traits.norm, rows=rows)
    if turns:
        turned, _ = rotated(builder, turned)
    expanded = builder.linear(latent, named["kv_b_proj"])
    still, values = tape.split(expanded, (rows * heads * mixer.nope_dim, rows * heads * mixer.value_dim))
    # What is rotated is one for all heads, and copied beside what each head has of its own.
    keys = tape.run("cat", (still, turned), rows * heads * width, still.dtype)

    shape = Attention(mixer.heads, mixer.heads, width, mixer.value_dim, window=mixer.window)
    mixed = attend(builder, queries, keys, values, shape, traits, by_head=turns)
    if parts.gate is not None:
        mixed = gated(builder, mixed, builder.linear(value, parts.gate, parts.bias(parts.gate)))
    return builder.linear(mixed, parts.outward, parts.bias(parts.outward))


def _index(builder: Builder, mixer: LatentAttention) -> None:
    """The sparse indexer, which runs without a gradient: float32 scores of each of its heads, and their positive part.

    transformers `DeepseekV32Indexer.forward`.
    """
    if mixer.index_dim:
        step = builder.step
        scores = step.batch * mixer.index_heads * step.length * step.keys
        queries = step.tokens * mixer.index_heads * mixer.index_dim
        builder.tape.run(
            "index", (), step.tokens * step.keys, "fp32", forward_temp=4 * (2 * scores + queries)
        )
