"""Predictions for cases of Text Generation Inference: what it logs at start-up."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from willfit.engines.tgi import Settings
from willfit.engines.tgi.sizing import size_up
from willfit.validation.cases import Case
from willfit.validation.predictors.serving import machine_of, paged_figures, settings_from
from willfit.validation.predictors.vllm import subject_of

_NAMES = {"tensor_parallel": "num_shard"}


def predict(case: Case) -> dict[str, Any]:
    """`Setting max batch total tokens to`; see `scoring.Predictor`.

    Raises
    ------
    Unpredictable
        If no config of the model is known, or its card is not stated.
    """
    subject = subject_of(case)
    sizing = size_up(subject, machine_of(case), settings_of(case))
    return paged_figures(sizing.cache, sizing.pool_bytes, sizing.pool_interval)


def settings_of(case: Case) -> Settings:
    """The case's settings under TGI's names."""
    return Settings(**settings_from(case, {field.name for field in fields(Settings)}, _NAMES))
