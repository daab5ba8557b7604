"""Two outputs per layer, token and sample for the activations, and the batch that this leaves room for."""

from __future__ import annotations

from willfit.errors import BadInput
from willfit.rules.result import RuleResult

_WHY = (
    "It keeps two outputs per layer, while backward keeps every tensor that a gradient needs, and the logits."
)
_SOURCE = "aidisruptionpub.com, Surprising truths about GPU memory for large models"


def sample_activations(
    hidden: int, intermediate: int, layers: int, tokens: int, bytes_per_value: int = 2, batch: int = 1
) -> RuleResult:
    """Activations of a batch in bytes: (hidden + intermediate) x tokens x layers x bytes x samples.

    Parameters
    ----------
    hidden, intermediate, layers
        Widths of the model and of its MLP, and number of layers.
    tokens
        Tokens of one sample.
    bytes_per_value
        Bytes of one activation.
    batch
        Samples.
    """
    rows = tokens * batch
    return RuleResult(
        name="activations per sample",
        inputs={
            "hidden": hidden,
            "intermediate": intermediate,
            "layers": layers,
            "tokens": tokens,
            "bytes_per_value": bytes_per_value,
            "batch": batch,
        },
        value=(hidden + intermediate) * layers * rows * bytes_per_value,
        unit="B",
        formula=f"({hidden} + {intermediate}) x {layers} layers x {rows} tokens x {bytes_per_value} B",
        why=_WHY,
        source=_SOURCE,
    )


def largest_batch(card_bytes: int, state_bytes: int, bytes_per_sample: int) -> RuleResult:
    """How many samples fit beside the states; 0 if the states alone do not fit.

    Parameters
    ----------
    card_bytes
        Memory of the card.
    state_bytes
        Weights, gradients and optimizer states.
    bytes_per_sample
        Activations of one sample.

    Raises
    ------
    BadInput
        If a sample takes nothing.
    """
    if bytes_per_sample <= 0:
        raise BadInput(f"a sample of {bytes_per_sample} B sets no limit to the batch")
    return RuleResult(
        name="largest batch",
        inputs={"card_bytes": card_bytes, "state_bytes": state_bytes, "bytes_per_sample": bytes_per_sample},
        value=max(0, (card_bytes - state_bytes) // bytes_per_sample),
        unit="samples",
        formula=f"({card_bytes} - {state_bytes}) B / {bytes_per_sample} B",
        why="It fills the card to its nominal size, which no program gets, with samples that are too small.",
        source=_SOURCE,
    )
