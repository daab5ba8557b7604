"""All rules of thumb that apply to a model, side by side."""

from __future__ import annotations

from willfit.architectures.model import Architecture, Layer
from willfit.quantities import DTYPE_BYTES, dtype_name
from willfit.rules.hub_calculator import hub_calculator
from willfit.rules.layer_by_layer import layer_by_layer
from willfit.rules.optimizer_bytes import STATES, optimizer_bytes
from willfit.rules.overhead import weights_and_a_fifth
from willfit.rules.parameter_bytes import parameter_bytes
from willfit.rules.result import RuleResult
from willfit.rules.sample_activations import largest_batch, sample_activations
from willfit.rules.training_states import training_states

_FP32_BYTES = 4


def rules_for(
    architecture: Architecture,
    bits: int | None = None,
    tokens: int = 2048,
    batch: int = 1,
    card_bytes: int | None = None,
) -> tuple[RuleResult, ...]:
    """Every rule that needs no more than a model, its width, a length and a batch.

    Parameters
    ----------
    architecture
        The model.
    bits
        Bits of a parameter as loaded; those of the config's dtype if None.
    tokens
        Tokens of a sequence, cut to what the model can take.
    batch
        Sequences or samples.
    card_bytes
        Memory of a card, to ask for the largest batch; that rule is left out if None.

    Returns
    -------
    tuple[RuleResult, ...]
        Inference first, then training, then the hub's table. A model without an MLP has no rule for
        activations.
    """
    bits = bits or 8 * DTYPE_BYTES[dtype_name(architecture.dtype)]
    value_bytes = max(1, bits // 8)
    tokens = min(tokens, architecture.max_positions or tokens)
    parameters = architecture.parameters
    layers = (*architecture.encoder, *architecture.layers)
    states = training_states(parameters, value_bytes)
    results = [
        parameter_bytes(parameters, bits),
        weights_and_a_fifth(parameters, bits),
        layer_by_layer(
            len(layers),
            architecture.hidden_size,
            architecture.vocab_size,
            0 if architecture.ropes else architecture.max_positions,
            tokens,
            value_bytes,
            batch,
        ),
        states,
    ]
    intermediate = max((_used_width(layer) for layer in layers), default=0)
    if intermediate:
        shape = (architecture.hidden_size, intermediate, len(layers), tokens, value_bytes)
        results.append(sample_activations(*shape, batch))
        if card_bytes is not None:
            sample = int(sample_activations(*shape).value)
            results.append(largest_batch(card_bytes, int(states.value), sample))
    results += [optimizer_bytes(parameters, optimizer) for optimizer in STATES]
    base = parameters - sum(tensor.elements for tensor in architecture.head if tensor.part == "head")
    results += hub_calculator(_FP32_BYTES * base, _FP32_BYTES * _largest_layer(architecture))
    return tuple(results)


def _used_width(layer: Layer) -> int:
    """MLP channels that one token uses: dense and shared ones, and those of its experts."""
    ffn = layer.feed_forward
    return ffn.width + ffn.top_k * ffn.expert_width if ffn else 0


def _largest_layer(architecture: Architecture) -> int:
    """Parameters of the largest decoder layer or embedding table."""
    blocks = (*architecture.encoder_blocks, *architecture.blocks)
    sizes = [sum(t.elements for t in layer.tensors if t.kind != "buffer") for layer, _ in blocks]
    return max([*sizes, *(tensor.elements for tensor in architecture.embeddings)], default=0)
