"""An engine-neutral question put to transformers."""

from __future__ import annotations

from dataclasses import replace

from willfit.engines.base import Machine, Question, Subject
from willfit.engines.transformers.engine import estimate
from willfit.engines.transformers.eras import NEWEST
from willfit.engines.transformers.settings import Settings
from willfit.estimate import Capacity, Estimate
from willfit.quantities import format_bytes


def answer(subject: Subject, machine: Machine, question: Question) -> Estimate:
    """One generate() call over all users at once, each with a prompt that nearly fills the context.

    The longest prompt is the worst case: the answer's tokens only add to the cache, which is as large either way.
    """
    context = question.context_for(subject.architecture)
    settings = Settings(
        version=question.version or NEWEST,
        batch=question.users,
        input_len=max(1, context - 1),
        output_len=1,
        phase="prefill" if subject.architecture.encoder_only else "generate",
    )
    found = estimate(subject, machine, settings)
    capacity = None if subject.architecture.encoder_only else _capacity(subject, machine, settings, context)
    remedies = _remedies(subject, found, question, capacity)
    return replace(found, capacity=capacity, remedies=remedies, details={**found.details, "context": context})


def _capacity(subject: Subject, machine: Machine, settings: Settings, context: int) -> Capacity | None:
    """Longest prompt of one user, by bisection: memory never falls as the prompt grows."""
    if any(device.usable_bytes is None and not device.is_cpu for device in machine.devices):
        return None

    def fits(length: int, batch: int) -> bool:
        asked = replace(settings, batch=batch, input_len=max(1, length - 1))
        return estimate(subject, machine, asked).verdict != "does_not_fit"

    low, high = 0, subject.architecture.max_positions or context
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle, 1):
            low = middle
        else:
            high = middle - 1
    users, above = 0, 1
    while above <= 4096 and fits(context, above):
        users, above = above, 2 * above
    while above - users > 1:
        middle = (users + above) // 2
        if fits(context, middle):
            users = middle
        else:
            above = middle
    return Capacity(users * context or low, low, float(users))


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
