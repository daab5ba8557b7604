"""By how much activations of engines that few measurements show may differ from the rule, as their pools tell."""

from __future__ import annotations

from willfit.engines.base import Machine, Subject
from willfit.engines.tensorrt_llm.sizing import size_up as size_up_tensorrt_llm
from willfit.engines.tgi.sizing import size_up as size_up_tgi
from willfit.estimate import Term
from willfit.validation.cases import Case
from willfit.validation.fits.base import Fit
from willfit.validation.predictors import tensorrt_llm, tgi
from willfit.validation.predictors.serving import machine_of
from willfit.validation.predictors.vllm import subject_of


def _activations(case: Case) -> float | None:
    """What the logged pool leaves for activations, beside the terms that are known, over the rule."""
    tokens, known = case.measured.get("kv_cache_tokens"), case.engine in ("tensorrt-llm", "tgi")
    if tokens is None or not known or not isinstance(case.fields.get("gpu"), str):
        return None
    terms, pool, token_bytes, share = _sized(case, subject_of(case), machine_of(case))
    rule = next(term.bytes for term in terms if term.name == "activations")
    return (rule + (pool - float(tokens) * token_bytes) / share) / rule


def _sized(case: Case, subject: Subject, machine: Machine) -> tuple[tuple[Term, ...], int, int, float]:
    """Terms before the pool, the pool, bytes of a token, and by how much a pool shrinks for a byte taken before."""
    if case.engine == "tgi":
        served = size_up_tgi(subject, machine, tgi.settings_of(case))
        return served.inside, served.pool_bytes, served.cache.pools[0].token_bytes, 1.0
    sized = size_up_tensorrt_llm(subject, machine, tensorrt_llm.settings_of(case))
    per_token = sum(pool.token_bytes for pool in sized.cache.pools)
    return sized.terms, sized.pool_bytes, per_token, sized.resolved.free_gpu_memory_fraction


FITS = (Fit("borrowed.activation_ratio", "ratio", _activations),)
