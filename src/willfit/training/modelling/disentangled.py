"""DeBERTa's attention: scores of contents, and of contents with relative positions both ways."""

from __future__ import annotations

from willfit.training.modelling.builder import Builder
from willfit.training.tape import Value

#: Relative positions that have an embedding (twice `position_buckets` of DeBERTa v3's configs).
_SPAN = 512


def disentangled_scores(builder: Builder, queries: Value, keys: Value, heads: int, width: int) -> Value:
    """Scores with a bias for relative positions (transformers `DisentangledSelfAttention.forward`).

    Scores of each token with every relative position are gathered by distance; the gathered, and int64 numbers for
    each pair of tokens, are kept.

    Parameters
    ----------
    builder
        Writes the tape.
    queries, keys
        Of all heads, each head for itself.
    heads, width
        Of the rank, and of one.
    """
    tape, step = builder.tape, builder.step
    pairs = step.batch * heads * step.length * step.keys
    scaled = tape.scale(keys)
    scores = tape.run("scores", (queries, scaled), pairs, queries.dtype, saves=(queries, scaled))
    numbers = 8 * step.length * step.keys
    far = step.batch * heads * step.length * _SPAN
    bias: Value | None = None
    for one in (queries, keys):
        # Embeddings of positions after dropout, and its mask, are kept once.
        own = 3 * _SPAN * heads * width if one is queries else 0
        positions = tape.run(
            "positions", (one,), step.batch * heads * _SPAN * width, one.dtype, kept_bytes=own
        )
        both = tape.run("bmm", (one,), far, one.dtype, saves=(one, positions))
        found = tape.run("gather", (both,), pairs, one.dtype, saves=(both,), kept_bytes=numbers)
        bias = found if bias is None else tape.add(bias, found)
    assert bias is not None
    # Masked places are a byte for each pair.
    return tape.run(
        "masked_fill",
        (tape.add(scores, bias),),
        pairs,
        scores.dtype,
        kept_bytes=step.batch * step.length * step.keys,
    )
