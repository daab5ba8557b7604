"""One side of a comparison under names that all engines share, and in what two sides differ."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from willfit.architectures.held import cache_bytes_per_token
from willfit.architectures.mixers import LatentAttention
from willfit.architectures.model import Architecture
from willfit.asking import Answer
from willfit.comparing.records import Fact
from willfit.engines.changes import Change, changes_of
from willfit.estimate import CONTEXT_NAMES, Estimate
from willfit.quantities import DTYPE_BYTES, format_bytes, format_count

#: Settings that are described under a common name.
_COMMON = frozenset(
    (*CONTEXT_NAMES, "users", "kv_cache_dtype", "dtype", "tensor_parallel", "pipeline_parallel")
)

#: Details that follow from the answer and are no settings.
_RESULTS = frozenset(("num_gpu_blocks", "num_blocks", "max_total_num_tokens", "max_total_token_num"))


#: Terms that grow with the sequences.
_GROWING = frozenset(("kv_cache", "recurrent_state", "activations", "logits", "fragmentation"))


@dataclass(frozen=True, slots=True)
class Side:
    """An answer, with what its numbers depend on."""

    answer: Answer

    @property
    def estimate(self) -> Estimate:
        """The estimate."""
        return self.answer.estimate

    @property
    def architecture(self) -> Architecture:
        """The model."""
        return self.answer.subject.architecture

    @property
    def details(self) -> dict[str, Any]:
        """Resolved settings, under the engine's names."""
        return self.estimate.details

    @property
    def context(self) -> int:
        """Tokens of the longest sequence; 0 if the engine does not say."""
        return self.estimate.context

    @property
    def users(self) -> int:
        """Sequences at once."""
        return int(self.details.get("users") or 1)

    @property
    def ranks(self) -> tuple[int, int]:
        """Degrees of tensor and pipeline parallelism."""
        return int(self.details.get("tensor_parallel") or 1), int(self.details.get("pipeline_parallel") or 1)

    @property
    def cache_dtype(self) -> str:
        """Dtype of the cache."""
        name = str(self.details.get("kv_cache_dtype") or self.details.get("dtype") or "auto")
        return name if name in DTYPE_BYTES else self.architecture.dtype

    @property
    def element_bytes(self) -> int:
        """Bytes of an element of the cache."""
        return DTYPE_BYTES[self.cache_dtype]

    @property
    def pool_bytes(self) -> int | None:
        """The pool that the engine allocates for sequences; None for engines that take what these need."""
        demands = self.estimate.demands
        return max(0, sum(demand.pool_bytes for demand in demands)) if demands else None

    @property
    def room_bytes(self) -> int:
        """The pool, or what devices, or else the host, have beside what does not grow with the sequences."""
        if self.pool_bytes is not None:
            return self.pool_bytes
        return sum(
            (place.usable_bytes or 0) - sum(term.bytes for term in place.terms if term.name not in _GROWING)
            for place in self.estimate.devices or (self.estimate.host,)
        )

    @property
    def needed_bytes(self) -> int | None:
        """What the asked sequences need of the pool."""
        demands = self.estimate.demands
        return sum(demand.needed_bytes for demand in demands) if demands else None

    @property
    def settings(self) -> dict[str, Any]:
        """Resolved settings that are the engine's own, numbers and words only."""
        return {
            name: value
            for name, value in self.details.items()
            if name not in _COMMON and name not in _RESULTS and isinstance(value, int | float | str)
        }


def facts_of(a: Side, b: Side) -> tuple[Fact, ...]:
    """In what the two sides differ."""
    one, other = _described(a), _described(b)
    if a.estimate.engine == b.estimate.engine:
        one |= {name: _value(value) for name, value in a.settings.items()}
        other |= {name: _value(value) for name, value in b.settings.items()}
    return tuple(
        Fact(name, one[name], other[name]) for name in one if other.get(name, one[name]) != one[name]
    )


def engine_changes(a: Side, b: Side) -> tuple[Change, ...]:
    """What the engine does differently with one of these models; nothing for different engines."""
    eras = a.details.get("era"), b.details.get("era")
    if a.estimate.engine != b.estimate.engine or None in eras:
        return ()
    kinds = _kinds(a.answer) | _kinds(b.answer)
    return tuple(change for change in changes_of(*eras) if not change.only or kinds & {*change.only})


def _kinds(answer: Answer) -> set[str]:
    """What a model has that only some have (`Words.only`)."""
    architecture, method = answer.subject.architecture, answer.subject.recipe.method
    layers = [layer for layer, _ in architecture.blocks]
    mixers = [mixer for layer in layers for mixer in layer.mixers]
    found = {
        "windows": any(getattr(mixer, "window", 0) or getattr(mixer, "chunk", 0) for mixer in mixers),
        "states": any(mixer.fixed_states for mixer in mixers),
        "latents": any(isinstance(mixer, LatentAttention) for mixer in mixers),
        "experts": any(layer.feed_forward and layer.feed_forward.experts for layer in layers),
        "towers": bool(architecture.towers),
        "drafts": bool(architecture.mtp),
        "gptq": method == "gptq",
    }
    return {name for name, has in found.items() if has}


def _described(side: Side) -> dict[str, str]:
    """A side in words."""
    subject, architecture = side.answer.subject, side.architecture
    per_parameter = subject.weight_bytes / max(1, architecture.parameters)
    described = {
        "model": subject.model,
        "parameters": format_count(architecture.parameters),
        "layers": str(len(architecture.layers)),
        "format": f"{subject.recipe.name} ({per_parameter:.2f} B a parameter)",
        "engine": f"{side.estimate.engine} {side.estimate.engine_version}",
        "device": _devices(side.estimate),
        "devices used": str(len(side.estimate.devices)),
    }
    if side.context:
        described["context"] = f"{side.context:,}"
    described["users"] = f"{side.users:,}"
    for name, degree in zip(("tensor parallel", "pipeline parallel"), side.ranks, strict=True):
        described[name] = str(degree)
    if side.details.get("dtype"):
        described["dtype"] = str(side.details["dtype"])
    if side.details.get("kv_cache_dtype"):
        described["cache dtype"] = str(side.details["kv_cache_dtype"])
    if not architecture.encoder_only:
        described["cache a token"] = format_bytes(cache_bytes_per_token(architecture, side.element_bytes))
    if architecture.max_positions:
        described["model's limit"] = f"{architecture.max_positions:,}"
    return described


def _devices(estimate: Estimate) -> str:
    counted = Counter(device.name for device in estimate.devices)
    return " + ".join(f"{count} × {name}" if count > 1 else name for name, count in counted.items())


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if round(value, 2) == value else f"{value:g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
