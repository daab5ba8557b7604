"""The estimate of a training run: ranks, their accounts, the terms of each device and of the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from willfit.calibration import constant
from willfit.engines.base import Machine, Subject
from willfit.errors import BadInput
from willfit.estimate import DeviceEstimate, Estimate, Term, between, combined
from willfit.training.account import Account, account
from willfit.training.base_model import base_recipe, converted_note, experts_note
from willfit.training.figures import figures
from willfit.training.frameworks.table import resolve
from willfit.training.holding import Holding
from willfit.training.host import host_terms
from willfit.training.layout import Ranks, in_flight, ranks_of, stages_of, with_data
from willfit.training.modelling.known import roughly_modelled
from willfit.training.outside import communicators, context, fragmentation
from willfit.training.pieces import Replayed
from willfit.training.remedies import remedies
from willfit.training.rollout import Rollout, colocated, shared_with
from willfit.training.run import Run
from willfit.training.settings import TrainingSettings
from willfit.training.terms import inside, others, paged, unwritten


def estimate(subject: Subject, machine: Machine, settings: TrainingSettings) -> Estimate:
    """What each device holds at the fullest instant of a step.

    Parameters
    ----------
    subject
        The model.
    machine
        The devices, one for each rank.
    settings
        What was asked.

    Raises
    ------
    BadInput
        If the run cannot be as it is asked.
    """
    run, ranks = prepared(subject, machine, settings)
    answer = _answer(subject, machine, run, ranks)
    if answer.verdict not in ("does_not_fit", "tight"):
        return answer

    needed = max(device.peak_bytes for device in answer.devices)

    def judge(changed: TrainingSettings) -> tuple[int, bool]:
        try:
            other = estimate_alone(subject, machine, changed)
        except BadInput:
            # A change that this run does not allow saves nothing.
            return needed, False
        return max(device.peak_bytes for device in other.devices), other.verdict == "fits"

    return replace(answer, remedies=remedies(settings, ranks.data, needed, judge))


def estimate_alone(subject: Subject, machine: Machine, settings: TrainingSettings) -> Estimate:
    """The estimate without remedies, each of which is an estimate of its own.

    Raises
    ------
    BadInput
        If the run cannot be as it is asked.
    """
    run, ranks = prepared(subject, machine, settings)
    return _answer(subject, machine, run, ranks)


def _answer(subject: Subject, machine: Machine, run: Run, ranks: Ranks) -> Estimate:
    accounts = accounts_of(run, subject, machine, ranks)
    rollout = _rollout(run, subject, machine)
    rough = roughly_modelled(run.architecture or subject.architecture)
    by_stage = [_terms(one, run, ranks, rollout, rough) for one in accounts]
    devices = []
    for index, device in enumerate(machine.devices):
        stage = index * len(accounts) // len(machine.devices)
        terms, interval = by_stage[stage]
        room = None if device.usable_bytes is None else device.usable_bytes - interval[1]
        if moving := paged(accounts[stage], room):
            terms = (*terms, *moving)
            interval = _interval(terms)
        devices.append(DeviceEstimate(device.name, index, device.usable_bytes, terms, interval))
    worst = max(accounts, key=lambda one: one.peak)
    return Estimate(
        subject.model,
        run.settings.framework,
        run.settings.version or "newest",
        "train",
        tuple(devices),
        DeviceEstimate("host", 0, machine.host_bytes, host_terms(run, worst, len(machine.devices))),
        notes=(
            *run.assumed,
            *converted_note(subject, run.settings.adapter is not None),
            *experts_note(subject, run),
            *_rough_note(rough),
            *worst.optimizer.notes,
            *subject.notes,
        ),
        refusal=rollout.refusal if rollout is not None else "",
        details={
            "between_steps": worst.resident + _left_gradients(worst, run),
            **figures(worst, by_stage[accounts.index(worst)][0], run, ranks.states, machine.devices[0]),
        },
    )


def _rough_note(parts: Sequence[str]) -> tuple[str, ...]:
    if not parts:
        return ()
    return (
        f"what {' and '.join(parts)} keep for the backward pass is not known well: it may be several times more",
    )


def _terms(
    one: Account, run: Run, ranks: Ranks, rollout: Rollout | None, rough: Sequence[str]
) -> tuple[tuple[Term, ...], tuple[int, int]]:
    """The terms of a rank, and the interval of their sum."""
    terms = [
        *inside(one, run),
        *others(one, run),
        *unwritten(one, rough),
        *_beside(one, run, ranks),
    ]
    if rollout is not None:
        terms = shared_with(rollout, terms)
    return tuple(terms), _interval(terms)


def _rollout(run: Run, subject: Subject, machine: Machine) -> Rollout | None:
    """A generating engine on the trainer's cards."""
    settings, asked = run.settings, run.settings.rollout
    if asked is None:
        return None
    length = (asked.prompt_len or 0) + (asked.completion_len or 0) or settings.seq_len or 0
    return colocated(subject, machine, asked, length)


def prepared(subject: Subject, machine: Machine, settings: TrainingSettings) -> tuple[Run, Ranks]:
    """The run with everything filled in, and the sizes of its groups."""
    run = resolve(settings, subject.architecture)
    ranks = ranks_of(run.settings.layout, len(machine.devices))
    layout = with_data(run.settings.layout, ranks)
    return replace(run, settings=replace(run.settings, layout=layout)), ranks


def accounts_of(run: Run, subject: Subject, machine: Machine, ranks: Ranks) -> list[Account]:
    """The account of a rank of each pipeline stage."""
    settings = run.settings
    weights = settings.precision.weights or "bf16"
    adapted = settings.adapter is not None
    habits = run.habits
    recipe = base_recipe(
        subject, settings.quantization, weights, habits.quantizes_head, adapted, habits.stacked_experts
    )
    architecture = run.architecture or subject.architecture
    holding = Holding(architecture, recipe, settings)
    found = []
    known: Replayed = {}
    layout = settings.layout
    if layout.device_map:
        # One process: layers lie on its devices one after the other, and one micro-batch runs at a time.
        layout = replace(layout, pp=min(len(machine.devices), len(architecture.layers)), schedule="gpipe")
    for stage, layers in enumerate(stages_of(layout, len(architecture.layers))):
        alive = 1.0 if layout.device_map else in_flight(layout, stage, settings.gradient_accumulation)
        capability = machine.devices[0].compute_capability
        found.append(account(run, holding, capability, ranks, layers, alive, known))
    return found


def _beside(one: Account, run: Run, ranks: Ranks) -> list[Term]:
    """What torch's counters do not see."""
    layout = run.settings.layout
    groups = sum(
        size > 1 for size in (ranks.data, layout.tp, layout.pp, layout.cp * layout.ulysses, layout.ep)
    )
    sent = communicators(groups, max(ranks.states, layout.tp, layout.pp))
    return [fragmentation(one.peak), context(), *([sent] if sent else [])]


def _interval(terms: Sequence[Term]) -> tuple[int, int]:
    """The terms' own interval, widened by how far published peaks lie around these rules."""
    spread = constant("training.allocated_ratio")
    allocated = sum(term.bytes for term in terms if term.low_bytes == term.high_bytes)
    whole = between("allocated", allocated, int(allocated * spread.low), int(allocated * spread.high))
    outside = [term for term in terms if term.low_bytes != term.high_bytes]
    _, low, high = combined([whole, *outside])
    return low, high


def _left_gradients(one: Account, run: Run) -> int:
    """Bytes of gradients that outlive `zero_grad`.

    FSDP1's flat parameters keep theirs until the next forward pass, where the original parameters are what an optimizer
    sees (`_runtime_utils.py: _root_pre_forward`), which is accelerate's default.
    """
    return one.sharing.gradients if run.settings.layout.data == "fsdp1" else 0
