"""A plain transformer counted layer by layer: matrices only, a fourfold MLP, keys and values in full."""

from __future__ import annotations

from willfit.rules.result import RuleResult


def layer_by_layer(
    layers: int,
    hidden: int,
    vocabulary: int,
    positions: int,
    tokens: int,
    bytes_per_value: int = 4,
    batch: int = 1,
) -> RuleResult:
    """Weights, one output per layer and the cache of keys and values, in bytes.

    Parameters
    ----------
    layers, hidden, vocabulary, positions
        Shape of the model; positions are the rows of a learned position table, 0 without one.
    tokens, batch
        Length and number of sequences.
    bytes_per_value
        Bytes of every value.
    """
    tables = (vocabulary + positions) * hidden
    per_layer = 4 * hidden**2 + 2 * hidden * (4 * hidden)
    row = tokens * batch * hidden * bytes_per_value
    parts = {
        "embeddings": tables * bytes_per_value,
        "layers": layers * per_layer * bytes_per_value,
        "activations": layers * row,
        "kv_cache": layers * 2 * row,
    }
    return RuleResult(
        name="layer by layer",
        inputs={
            "layers": layers,
            "hidden": hidden,
            "vocabulary": vocabulary,
            "positions": positions,
            "tokens": tokens,
            "bytes_per_value": bytes_per_value,
            "batch": batch,
        },
        value=sum(parts.values()),
        unit="B",
        formula=(
            f"(({vocabulary} + {positions}) x {hidden} + {layers} x 12 x {hidden}^2) x {bytes_per_value} B"
            f" + {layers} x (1 + 2) x {tokens * batch} x {hidden} x {bytes_per_value} B"
        ),
        why="It takes every model for an early one: no grouped keys, gated MLP, experts, norms or own head.",
        source="tutorials that count a 12-layer encoder by hand",
        parts=parts,
    )
