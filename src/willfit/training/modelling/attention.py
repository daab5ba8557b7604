"""Softmax attention with its projections: norms of heads, positions, gates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from willfit.architectures.mixers import Attention
from willfit.architectures.model import Tensor
from willfit.architectures.traits import Traits
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.norms import normed
from willfit.training.modelling.prompted import prompted
from willfit.training.modelling.rotary import rotated
from willfit.training.modelling.scores import attend, rank_heads, repeated
from willfit.training.tape import Value


@dataclass(frozen=True, slots=True)
class Parts:
    """An attention's tensors by what they do.

    Attributes
    ----------
    inward, outward
        Matrices that project the input, and the one that projects back.
    gate
        The matrix of a gate on the output, if it has one of its own.
    biases
        By the name of the module.
    norms, inner
        Of queries and keys, and of the output before it is projected back.
    """

    inward: tuple[Tensor, ...]
    outward: Tensor
    gate: Tensor | None
    biases: dict[str, Tensor]
    norms: tuple[Tensor, ...]
    inner: tuple[Tensor, ...] = ()

    def bias(self, tensor: Tensor) -> Tensor | None:
        """The bias of a matrix's module."""
        return self.biases.get(module_of(tensor))


def attention(
    builder: Builder, value: Value, tensors: Sequence[Tensor], mixer: Attention, traits: Traits
) -> Value:
    """Project, rotate, attend, and project back.

    Parameters
    ----------
    builder
        Writes the tape.
    value
        The normed input.
    tensors
        The attention's tensors.
    mixer, traits
        Its shape, and what belongs to the family: norms of heads, soft caps, dropout.
    """
    parts = parts_of(tensors)
    queries, keys, values, gate = _projected(builder, value, parts, mixer)
    if builder.manner.splits == "copies" and mixer.kv_heads > 1:
        # Keys and values are there for every head now.
        mixer = replace(mixer, kv_heads=mixer.heads)
    late = builder.manner.norms_late
    if not late:
        queries, keys = head_norms(builder, queries, keys, parts.norms, mixer, traits)
    by_head = builder.manner.by_head
    if by_head:
        queries, keys, values = (builder.tape.copy(one) for one in (queries, keys, values))
    if builder.manner.rope != "none":
        queries, by_head = rotated(builder, queries, first=True)
        if not mixer.shares_cache:
            keys, _ = rotated(builder, keys)
    if builder.manner.value_norm and not mixer.shares_cache:
        rows = values.elements // mixer.value_dim
        values = normed(builder, values, None, None, rows, builder.manner.value_norm)
    if late:
        queries, keys = head_norms(builder, queries, keys, parts.norms, mixer, traits)
    keys, values = (_behind_prefix(builder, one) for one in (keys, values))
    mixed = attend(builder, queries, keys, values, mixer, traits, by_head)
    if builder.manner.gathers_output and not builder.step.flash:
        mixed = builder.tape.copy(mixed)
    if parts.gate is not None:
        gate = builder.linear(value, parts.gate, parts.bias(parts.gate))
    if gate is not None:
        mixed = gated(builder, mixed, gate)
    for norm in parts.inner:
        mixed = builder.norm(mixed, norm, traits.norm, rows=builder.step.tokens)
    found = builder.linear(mixed, parts.outward, parts.bias(parts.outward))
    if builder.step.prompt_tokens:
        return prompted(builder, found, value, parts.inward, parts.outward, mixer)
    return found


def parts_of(tensors: Sequence[Tensor]) -> Parts:
    """Sort an attention's tensors."""
    matrices = [tensor for tensor in tensors if tensor.kind == "linear"]
    outward = next((t for t in reversed(matrices) if t.split is not None and t.split.axis == 1), matrices[-1])
    gate = next((t for t in matrices if t.name.rpartition(".")[0].endswith((".gate_proj", ".g_proj"))), None)
    norms = [tensor for tensor in tensors if tensor.kind == "norm" and not tensor.name.endswith(".bias")]
    return Parts(
        tuple(tensor for tensor in matrices if tensor is not outward and tensor is not gate),
        outward,
        gate,
        {module_of(tensor): tensor for tensor in tensors if tensor.kind == "bias"},
        tuple(tensor for tensor in norms if "sub_norm" not in tensor.name),
        tuple(tensor for tensor in norms if "sub_norm" in tensor.name),
    )


def gated(builder: Builder, mixed: Value, gate: Value) -> Value:
    """The output times the sigmoid of a gate: per element, or per head."""
    tape = builder.tape
    opened = tape.run("sigmoid", (gate,), gate.elements, gate.dtype, saves_output=True)
    return tape.multiply(mixed, opened)


def _projected(
    builder: Builder, value: Value, parts: Parts, mixer: Attention
) -> tuple[Value, Value, Value, Value | None]:
    heads, kv_heads = rank_heads(builder, mixer)
    tape, tokens = builder.tape, builder.step.tokens
    sizes = (
        tokens * heads * mixer.head_dim,
        tokens * kv_heads * mixer.head_dim,
        tokens * kv_heads * mixer.value_dim,
    )
    if len(parts.inward) == 1 and not mixer.shares_cache:
        fused = builder.linear(value, parts.inward[0], parts.bias(parts.inward[0]))
        queries, keys, values = tape.split(fused, sizes)
        if builder.manner.splits == "copies":
            queries, keys, values = _copied(builder, queries, keys, values, heads, kv_heads)
        return queries, keys, values, None
    found = [builder.linear(value, tensor, parts.bias(tensor)) for tensor in parts.inward]
    queries, gate = found[0], None
    if mixer.gated and queries.elements == 2 * sizes[0]:
        # Each head's gate lies behind its queries, so that all gates together are a copy.
        queries, gate = tape.split(queries, (sizes[0], sizes[0]))
        gate = tape.copy(gate)
    if mixer.shares_cache:
        # Keys and values of an earlier layer, which that layer holds.
        keys, values = (tape.held(size, queries.dtype, True) for size in sizes[1:])
        return queries, keys, values, gate
    if len(found) == 2:
        # Keys and values in one matrix, or values made from the keys' projection.
        keys, values = (found[1], found[1]) if mixer.value_is_key else tape.split(found[1], sizes[1:])
        return queries, keys, values, gate
    return queries, found[1], found[2], gate


def _copied(
    builder: Builder, queries: Value, keys: Value, values: Value, heads: int, kv_heads: int
) -> tuple[Value, Value, Value]:
    """Falcon's split: keys and values are chosen by index, which copies, and repeated for all heads of their group."""
    tape = builder.tape
    keys, values = tape.copy(keys), tape.copy(values)
    if kv_heads == 1:
        return queries, keys, values
    times = heads // kv_heads
    return tape.copy(queries), repeated(builder, keys, times), repeated(builder, values, times)


def head_norms(
    builder: Builder, queries: Value, keys: Value, norms: Sequence[Tensor], mixer: Attention, traits: Traits
) -> tuple[Value, Value]:
    """Norms of queries and keys: of each head, or of all heads at once."""
    plain = traits.qk_norm_kind == "rms_plain"
    if traits.qk_norm == "none" or not (norms or plain):
        return queries, keys
    found = []
    for value, own in ((queries, _first(norms, keys=False)), (keys, _first(norms, keys=True))):
        rows = builder.step.tokens if traits.qk_norm == "whole" else value.elements // mixer.head_dim
        if own is None:
            found.append(normed(builder, value, None, None, rows, "rms_plain") if plain else value)
            continue
        done = builder.norm(value, own, traits.qk_norm_kind, rows=rows)
        # Heads with norms of their own are put together again (`StableLmLayerNormPerHead`).
        found.append(builder.tape.copy(done) if ".norms." in own.name else done)
    return found[0], found[1]


def _first(norms: Sequence[Tensor], keys: bool) -> Tensor | None:
    """The norm of queries, or of keys; the first, if each head has its own."""
    return next((t for t in norms if (".k_" in t.name or "key" in t.name) == keys), None)


def module_of(tensor: Tensor) -> str:
    """Name of the module that a parameter belongs to."""
    return tensor.name.rpartition(".")[0]


def _behind_prefix(builder: Builder, value: Value) -> Value:
    """Keys or values with a trained prefix in front of them, which a cache concatenates (PEFT `get_prompt`)."""
    step, tape = builder.step, builder.tape
    if not step.prefix_tokens:
        return value
    size = value.elements * step.keys // (step.keys - step.prefix_tokens)
    prefix = tape.held(size - value.elements, value.dtype, grad=True)
    return tape.run("prefix", (value, prefix), size, value.dtype)
