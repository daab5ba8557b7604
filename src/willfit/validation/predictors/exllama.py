"""Predictions for cases of ExLlamaV2 and ExLlamaV3: what the driver's tool shows of a card."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.engines.base import Machine, Subject
from willfit.engines.subject import subject_from_config
from willfit.estimate import combined
from willfit.quantities import GIB
from willfit.validation.cases import Case
from willfit.validation.predictors.serving import machine_of, settings_from
from willfit.validation.predictors.vllm import subject_of
from willfit.validation.scoring import Prediction, hull

#: What settings may be as well, where the source does not say them.
_OTHERWISE = {"max_output_len": None, "flash_attention": False, "max_batch_size": 1, "chunk_size": 512}

#: There while a prompt runs, and given back after a model is loaded.
_PASSING = ("activations", "logits")


def predict(case: Case) -> dict[str, Any]:
    """The fullest card; see `scoring.Predictor`.

    Where a setting that matters is not known, the interval holds what each of its values would give.

    Raises
    ------
    Unpredictable
        If no config of the model is known, or its card is not stated.
    """
    engine = import_module(f"willfit.engines.{case.engine}")
    given = settings_from(case, engine.Settings.__dataclass_fields__, {})
    if given.get("max_output_len") == 0:
        given["max_output_len"] = None
    given["max_seq_len"] = given.get("cache_size")
    settings, subject, machine = engine.Settings(**given), subject_of_conversion(case), machine_of(case)
    loaded = case.settings.get("phase") == "load"
    found = _held(engine, subject, machine, settings, loaded)
    if "phase" in case.unknown_settings:
        found = hull(found, _held(engine, subject, machine, settings, True))
    for name, other in _OTHERWISE.items():
        if name in case.unknown_settings:
            found = hull(found, _held(engine, subject, machine, replace(settings, **{name: other}), loaded))
    return {"nvidia_smi_gib": found, "ambiguous_gib": found}


def _held(engine: Any, subject: Subject, machine: Machine, settings: Any, loaded: bool) -> Prediction:
    place = max(engine.estimate(subject, machine, settings).devices, key=lambda one: one.peak_bytes)
    terms = [term for term in place.terms if not (loaded and term.name in _PASSING)]
    size, low, high = combined(terms)
    return Prediction(size / GIB, low / GIB, high / GIB)


def subject_of_conversion(case: Case) -> Subject:
    """The case's model; a conversion's format stands in the place of that of the model it was made of."""
    stored, entry = case.fields.get("checkpoint_format"), find(str(case.fields.get("catalogue")))
    if stored is None or entry is None:
        return subject_of(case)
    return subject_from_config(str(case.fields.get("model")), Config(entry.config, entry.id), str(stored))
