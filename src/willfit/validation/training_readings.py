"""What the source of a training run leaves open: every usual reading of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from willfit.training.settings import PrecisionSettings, TrainingSettings
from willfit.validation.cases import Case
from willfit.validation.training_cases import settings_of

#: Frameworks with model code of their own, which always calls PyTorch's attention.
_OWN_CODE = ("litgpt", "torchtitan", "torchtune", "megatron")

#: Where a source gives no more than an upper bound of lengths, the longest batch lies somewhere between half of it and
#: all of it: (share, weight).
_LENGTHS = ((1.0, 0.25), (0.75, 0.5), (0.5, 0.25))

#: Dtypes that people train in, where nothing is said: 16 bits alone, and float32 under autocast.
_PRECISIONS = (
    PrecisionSettings(weights="bf16", compute="bf16"),
    PrecisionSettings(weights="fp32", compute="bf16", autocast=True),
)


def readings(case: Case) -> tuple[TrainingSettings, ...]:
    """The run as its framework would do it where nothing is said, and then every other usual way.

    Of `unknown_settings`, those that no memory depends on (a recipe of 8-bit products) have one reading.
    """
    first = settings_of(case)
    unknown = set(case.fields.get("unknown_settings") or ())
    found = [
        replace(first, **changes)  # type: ignore[arg-type]
        for changes in (
            {name: value for name, value in combination if name}
            for combination in product(
                _checkpointings(case, first, unknown),
                _attentions(case, unknown),
                _precisions(unknown),
                _targets(first, unknown),
            )
        )
    ]
    return tuple(found)


def lengths(case: Case, settings: TrainingSettings) -> Iterator[tuple[TrainingSettings, float]]:
    """The run with each length that its longest batch may have, and the weight of that."""
    if case.settings.get("seq_len_kind") != "upper_bound" or not settings.seq_len:
        yield settings, 1.0
        return
    for share, weight in _LENGTHS:
        yield replace(settings, seq_len=int(settings.seq_len * share)), weight


def is_settled(case: Case) -> bool:
    """Whether the source says everything that memory depends on."""
    return case.settings.get("seq_len_kind") != "upper_bound" and len(readings(case)) == 1


_Choices = list[tuple[str, object]]


def _checkpointings(case: Case, first: TrainingSettings, unknown: set[str]) -> _Choices:
    if "activation_checkpointing" not in unknown:
        return [("", None)]
    kinds = ("none", "full", "selective-op") if case.engine == "torchtitan" else ("none", "full")
    others = [("checkpointing", replace(first.checkpointing, kind=kind)) for kind in kinds]
    return [("checkpointing", replace(first.checkpointing, kind=None)), *others]


def _attentions(case: Case, unknown: set[str]) -> _Choices:
    if "attn_impl" not in unknown or case.engine in _OWN_CODE:
        return [("", None)]
    return [("", None), ("attention", "flash_attention_2")]


def _precisions(unknown: set[str]) -> _Choices:
    if "precision" not in unknown:
        return [("", None)]
    return [("", None), *(("precision", one) for one in _PRECISIONS)]


def _targets(first: TrainingSettings, unknown: set[str]) -> _Choices:
    if "lora.targets" not in unknown or first.adapter is None:
        return [("", None)]
    return [("", None), ("adapter", replace(first.adapter, targets=("all-linear",)))]
