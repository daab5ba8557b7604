"""What the predictors of serving engines share: a case's card, its version, its settings under an engine's names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from willfit.engines.base import Machine
from willfit.engines.paged import PagedCache
from willfit.hardware.table import find_device
from willfit.quantities import GIB
from willfit.validation.cases import Case
from willfit.validation.scoring import Prediction, Unpredictable

#: How cases call degrees of parallelism.
DEGREES = {
    "tensor_parallel": "tp",
    "data_parallel": "dp",
    "expert_parallel_size": "ep",
    "context_parallel": "cp",
}


def settings_from(case: Case, known: Iterable[str], names: Mapping[str, str]) -> dict[str, Any]:
    """The case's settings that an engine has, and its version.

    Parameters
    ----------
    known
        The engine's own names.
    names
        Keys of cases that the engine calls otherwise.
    """
    renamed = {names.get(key, key): value for key, value in case.settings.items() if value is not None}
    given = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in renamed.items()
        if key in known
    }
    if case.fields.get("engine_version"):
        given["version"] = str(case.fields["engine_version"])
    return given


def machine_of(case: Case) -> Machine:
    """The case's devices, with the visible total where it was logged.

    Raises
    ------
    Unpredictable
        If its card is not stated.
    """
    gpu = case.fields.get("gpu")
    if not isinstance(gpu, str):
        raise Unpredictable("the source does not name the card")
    device, total = find_device(gpu), case.measured.get("gpu_total_gib")
    if total is not None:
        device = replace(device, usable_bytes=int(total * GIB))
    return Machine((device,) * max(1, int(case.fields.get("n_gpus") or 1)))


def known_only(case: Case, setting: str, found: dict[str, Any], pool: Iterable[str]) -> dict[str, Any]:
    """What can be predicted where a setting that decides the pool is not known: all but the pool."""
    if setting not in case.unknown_settings:
        return found
    return {key: value for key, value in found.items() if key not in set(pool)}


def whole(value: float) -> Prediction:
    """A prediction without uncertainty."""
    return Prediction(value, value, value)


def paged_figures(cache: PagedCache, pool: int, interval: tuple[int, int]) -> dict[str, Prediction]:
    """Tokens and bytes of a paged cache with so many bytes."""
    sizes = (pool, *interval)
    return {
        "kv_cache_tokens": Prediction(*(float(cache.tokens(size)) for size in sizes)),
        "kv_cache_gib": Prediction(*(cache.allocated(size) / GIB for size in sizes)),
    }
