"""A whole layer: norms, token mixer, feed-forward part and residuals, as the family places them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from willfit.architectures.mixers import CrossAttention, Recurrent
from willfit.architectures.model import Layer
from willfit.architectures.traits import Traits
from willfit.training.modelling.altup import altup_layer
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.feeding import feed
from willfit.training.modelling.gemma import experts_beside, with_own_input
from willfit.training.modelling.mixing import mix
from willfit.training.modelling.norms import normed
from willfit.training.modelling.roles import Norm, Roles, roles_of
from willfit.training.modelling.sequence import gathered, scattered
from willfit.training.tape import Value


def block(builder: Builder, value: Value, layer: Layer, traits: Traits) -> Value:
    """Write a layer's operations on the builder's tape.

    Parameters
    ----------
    builder
        Writes the tape.
    value
        The residual stream.
    layer, traits
        The layer, and what belongs to its family.

    Returns
    -------
    Value
        The residual stream behind the layer.
    """
    roles = roles_of(layer)
    if traits.block == "altup":
        return altup_layer(
            builder, value, layer, roles, traits,
            lambda given: mix(builder, given, layer, roles, traits),
            lambda given: feed(builder, given, layer, roles, traits),
        )  # fmt: skip
    if traits.block in ("parallel", "parallel_shared_norm"):
        return _parallel(builder, value, layer, roles, traits)
    branches = [part for part in ("attention", "cross", "mlp") if _has(layer, part)]
    norms = roles.norms or _unweighted(traits, len(branches))
    kind = traits.block
    if kind == "post_branch" and any(isinstance(mixer, Recurrent) for mixer in layer.mixers):
        # OLMo-Hybrid norms the input of its recurrent layers, and the output of attention.
        kind = "sequential"
    places = _places(norms, kind, branches)
    for part in branches:
        value = _branch(builder, value, layer, roles, traits, part, places)
    if any("per_layer_input_gate" in tensor.name for tensor in layer.tensors):
        value = with_own_input(builder, value, layer, roles, traits)
    return value


def _unweighted(traits: Traits, count: int) -> tuple[Norm, ...]:
    """Norms that have no parameters (OLMo)."""
    return (Norm(None),) * count if traits.norm == "layer_norm_plain" else ()


def _has(layer: Layer, part: str) -> bool:
    """Whether a layer has a residual branch."""
    if part == "mlp":
        # Zamba's hybrid layers have an MLP that all of them share, which is not among their own tensors.
        return layer.feed_forward is not None and any(t.part in ("mlp", "experts") for t in layer.tensors)
    looks_across = [isinstance(mixer, CrossAttention) for mixer in layer.mixers]
    return any(looks_across) if part == "cross" else not all(looks_across)


_NUMBERED = re.compile(r"_[12]\.weight$|per_layer")


@dataclass(frozen=True, slots=True)
class _Places:
    """Norms before a branch, behind what it does, and behind its sum with the stream; for attention and MLP."""

    before: dict[str, Norm]
    behind: dict[str, Norm]
    summed: dict[str, Norm]


def _places(norms: Sequence[Norm], block: str, branches: Sequence[str]) -> _Places:
    if block == "sandwich" and len(norms) >= 2 * len(branches):
        # Norms with numbers, and of a layer's own input, belong to neither branch.
        norms = [n for n in norms if n.weight is None or not _NUMBERED.search(n.weight.name)]
        pairs = {part: norms[2 * index : 2 * index + 2] for index, part in enumerate(branches)}
        return _Places(
            {part: pair[0] for part, pair in pairs.items()},
            {part: pair[1] for part, pair in pairs.items()},
            {},
        )
    alone = dict(zip(branches, norms, strict=False))
    if block == "post_branch":
        return _Places({}, alone, {})
    if block == "post":
        return _Places({}, {}, alone)
    behind = {"mlp": norms[-1]} if len(norms) == len(branches) + 1 else {}
    return _Places(alone, behind, {})


def _branch(
    builder: Builder,
    value: Value,
    layer: Layer,
    roles: Roles,
    traits: Traits,
    part: str,
    places: _Places,
) -> Value:
    """One residual branch: norm, what it does, perhaps a norm behind it, dropout, and the sum."""
    tape = builder.tape
    given = _norm(builder, value, places.before.get(part), traits)
    if traits.block == "normed_residual":
        value = given
    tape.module = part
    if part == "mlp":
        done = feed(builder, given, layer, roles, traits)
    else:
        mixed = mix(builder, gathered(builder, given), layer, roles, traits, part == "cross")
        done = scattered(builder, mixed)
    if part == "mlp" and builder.manner.experts_beside and roles.experts and layer.feed_forward is not None:
        done = experts_beside(builder, value, done, roles, layer.feed_forward, traits)
    tape.module = "residual"
    done = tape.dropout(done, traits.hidden_dropout if builder.step.training else 0.0)
    done = _norm(builder, done, places.behind.get(part), traits)
    tape.module = "residual"
    if traits.residual_multiplier is not None:
        done = tape.scale(done)
    if traits.block == "normed_residual":
        value, done = tape.scale(value), tape.scale(done)
    return _norm(builder, tape.add(value, done), places.summed.get(part), traits)


def _parallel(builder: Builder, value: Value, layer: Layer, roles: Roles, traits: Traits) -> Value:
    """Attention and MLP side by side on the same residual stream."""
    tape = builder.tape
    given = _norm(builder, value, roles.norms[0], traits)
    tape.module = "attention"
    mixed = scattered(builder, mix(builder, gathered(builder, given), layer, roles, traits))
    if traits.block == "parallel" and len(roles.norms) > 1:
        given = _norm(builder, value, roles.norms[1], traits)
    tape.module = "mlp"
    fed = feed(builder, given, layer, roles, traits)
    tape.module = "residual"
    probability = traits.hidden_dropout if builder.step.training else 0.0
    together = tape.add(tape.dropout(mixed, probability), tape.dropout(fed, probability))
    return tape.add(together, value)


def _norm(builder: Builder, value: Value, norm: Norm | None, traits: Traits) -> Value:
    if norm is None:
        return value
    builder.tape.module = "norm"
    if norm.weight is None:
        return normed(builder, value, None, None, builder.step.stream_tokens, traits.norm)
    return builder.norm(value, norm.weight, traits.norm, norm.bias)
