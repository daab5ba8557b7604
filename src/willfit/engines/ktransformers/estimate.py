"""KTransformers as an estimate: by version SGLang with kt-kernel, or one of its own programs."""

from __future__ import annotations

from dataclasses import replace

from willfit.engines import sglang
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.ktransformers.alone import estimate_alone
from willfit.engines.ktransformers.eras import NEWEST
from willfit.engines.ktransformers.hybrid import estimate_hybrid, own_method
from willfit.engines.ktransformers.settings import Settings
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.quantities import dtype_name, round_up

NAME = "ktransformers"

#: Tokens of a page of a cache for several users.
_PAGE = 256


def answer(subject: Subject, machine: Machine, question: Question) -> Estimate:
    """One expert of each layer on cards, as `kt run` has it, and the others as the checkpoint stores them.

    Raises
    ------
    BadInput
        If the cache is asked for in a dtype that there is none in, or no device is given.
    """
    if not machine.devices:
        raise BadInput("KTransformers needs a card", "name one with --gpu 'rtx 4090'")
    settings = Settings(version=question.version or NEWEST)
    context = question.context_for(subject.architecture)
    if settings.program == "sglang":
        serving = sglang.Settings(
            version=settings.serving.version,
            tp_size=len(machine.devices),
            kv_cache_dtype=question.kv_dtype,
            context_length=context,
        )
        settings = replace(
            settings, sglang=serving, kt_method=own_method(subject, settings) or settings.kt_method
        )
        return estimate(subject, machine, settings, question.users)
    if question.kv_dtype != "auto" and dtype_name(question.kv_dtype) not in ("fp16", "bf16"):
        raise BadInput(f"KTransformers {settings.version} has no {question.kv_dtype} cache", "leave it out")
    served = settings.program == "balance_serve"
    settings = replace(
        settings,
        cache_lens=question.users * round_up(context, _PAGE) if served else context,
        max_batch_size=max(question.users, settings.max_batch_size),
        gpus=len(machine.devices),
    )
    return estimate_alone(subject, machine, settings, question.users, context)


def estimate(subject: Subject, machine: Machine, settings: Settings, users: int = 1) -> Estimate:
    """What KTransformers would allocate on each card and in RAM.

    Parameters
    ----------
    subject
        The model as stored: for SGLang its own files, for the programs before GGUF files.
    machine
        Its cards, in the order in which they are used.
    settings
        Of either program.
    users
        Sequences that shall run at once.

    Raises
    ------
    BadInput
        If there are fewer cards than the settings need, or a setting is wrong.
    """
    if settings.program == "sglang":
        return estimate_hybrid(subject, machine, settings, users)
    return estimate_alone(subject, machine, settings, users, 0)
