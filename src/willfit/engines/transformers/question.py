"""An engine-neutral question put to transformers."""

from __future__ import annotations

from dataclasses import replace

from willfit.engines.base import Machine, Question, Subject
from willfit.engines.solving import largest
from willfit.engines.support import too_long
from willfit.engines.transformers.engine import estimate
from willfit.engines.transformers.eras import NEWEST
from willfit.engines.transformers.settings import CacheKind, Settings
from willfit.errors import BadInput
from willfit.estimate import Capacity, Estimate
from willfit.quantities import format_bytes

#: More sequences than this are not asked of one generate() call.
MOST_USERS = 4096

#: Quantization methods that it has no quantizer for (`quantizers/auto.py: AUTO_QUANTIZER_MAPPING`, 5.23.0).
_NEVER = frozenset({"exl2", "exl3", "mlc", "mlx", "modelopt", "modelopt_fp4", "modelopt_mixed"})


def answer(subject: Subject, machine: Machine, question: Question) -> Estimate:
    """One generate() call over all users at once, each with the prompt of the question.

    Where that has none, a prompt nearly fills the context: the worst case of the first pass, and one step of decoding
    follows it, with the context full.

    Raises
    ------
    BadInput
        If the cache is asked for in a dtype that transformers has none in.
    """
    context = question.context_for(subject.architecture)
    prompt = min(question.prompt.tokens, context - 1) if question.prompt else context - 1
    cache: CacheKind = "dynamic"
    if question.kv_dtype in ("int4", "int8"):
        cache = "quantized"
    elif question.kv_dtype not in ("auto", subject.architecture.dtype):
        raise BadInput(
            f"transformers has no {question.kv_dtype} cache",
            "int8 and int4 are its quantized caches; or --engine vllm",
        )
    settings = Settings(
        version=question.version or NEWEST,
        batch=question.users,
        input_len=max(1, prompt),
        output_len=context - prompt + 1,
        cache=cache,
        cache_bits=8 if question.kv_dtype == "int8" else 4,
        phase="prefill" if subject.architecture.encoder_only else "generate",
    )
    found = estimate(subject, machine, settings)
    capacity = None if subject.architecture.encoder_only else _capacity(subject, machine, settings, context)
    remedies = _remedies(subject, found, question, capacity)
    details = {**found.details, "context": context, "users": question.users}
    refused = found.refusal or _format(subject) or too_long(subject.architecture, context)
    return replace(found, capacity=capacity, refusal=refused, remedies=remedies, details=details)


def _format(subject: Subject) -> str:
    """Why it does not load the model as it is stored; empty if it does."""
    method = subject.recipe.method
    return (
        f"transformers does not load {method} checkpoints; take one in fp8, awq or nf4"
        if method in _NEVER
        else ""
    )


def _capacity(subject: Subject, machine: Machine, settings: Settings, context: int) -> Capacity | None:
    """The longest prompt of one user, and the most users of the asked context."""
    if any(device.usable_bytes is None and not device.is_cpu for device in machine.devices):
        return None

    def excess(length: int, batch: int) -> float:
        asked = replace(settings, batch=batch, input_len=max(1, length - 1), output_len=2)
        places = estimate(subject, machine, asked).devices
        return max(place.interval_bytes[0] - (place.usable_bytes or 0) for place in places)

    longest = largest(lambda length: excess(length, 1), subject.architecture.max_positions or context)
    users = largest(lambda batch: excess(context, batch), MOST_USERS)
    return Capacity(max(users * context, longest), longest, float(users))


def _remedies(
    subject: Subject, found: Estimate, question: Question, capacity: Capacity | None
) -> tuple[str, ...]:
    short = [
        place.peak_bytes - place.usable_bytes
        for place in found.devices
        if place.usable_bytes is not None and place.peak_bytes > place.usable_bytes
    ]
    if not short:
        return ()
    remedies = []
    if capacity is not None and capacity.max_context >= 256:
        remedies.append(f"a context of {capacity.max_context // 256 * 256:,} tokens for one user")
    if capacity is not None and 1 <= capacity.max_concurrency < question.users:
        remedies.append(f"a batch of {capacity.max_concurrency:.0f}")
    if subject.recipe.name in ("bf16", "fp16", "fp32"):
        remedies.append("4-bit weights (--format nf4)")
    remedies.append(
        f"{format_bytes(max(short))} more memory, or another device beside it (device_map='auto')"
    )
    return tuple(remedies)
