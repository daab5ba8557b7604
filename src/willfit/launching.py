"""From a question to the command that starts what was asked about: the estimate first, then the writer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from willfit.asking import find_subject, with_assumptions, with_prompt
from willfit.checkpoints.chat_template import chat_template_of
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.table import default_engine, engine_module, engine_name
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.launch.table import parse_command
from willfit.launch.writing.table import writer_of
from willfit.launch.writing.written import Order, Written
from willfit.planning.search.settling import server_of, settings_of
from willfit.planning.search.ways import Way
from willfit.quantities import format_bytes

if TYPE_CHECKING:
    from willfit.training.settings import TrainingSettings


@dataclass(frozen=True, slots=True)
class Launchable:
    """An estimate, and the command for it.

    Attributes
    ----------
    estimate
        What the settings take.
    order
        What was written for; the settings among it.
    written
        The command; None where it would not fit.
    """

    estimate: Estimate
    order: Order
    written: Written | None


def launch_about(
    model: str,
    machine: Machine,
    question: Question,
    engine: str | None = None,
    format_name: str | None = None,
    revision: str | None = None,
    offline: bool = False,
) -> Launchable:
    """The estimate of `asking.answer_about`, and the command if it fits.

    Raises
    ------
    BadInput
        If anything that was given cannot be used, or no command can be written for it.
    """
    named = engine_name(engine) if engine is not None else None
    if named is not None:
        writer_of(named)
    subject, is_gguf = find_subject(model, format_name, revision, offline, named)
    chosen = named or default_engine(subject, machine, is_gguf)
    writer_of(chosen)
    if format_name is not None and not is_gguf:
        format_name = _made(chosen, model, subject, format_name, revision, offline)
    settings = engine_module(chosen).settings_for(subject, machine, question)
    found = handed_over(chosen, model, subject, machine, settings, question.users, format_name, revision)
    return replace(found, estimate=with_prompt(found.estimate, question))


def _made(
    engine: str, model: str, subject: Subject, format_name: str, revision: str | None, offline: bool
) -> str | None:
    """The format that the engine has to make while it loads; None where the checkpoint is stored so.

    Raises
    ------
    BadInput
        If the checkpoint is quantized, and what is asked for is not: engines load it as it is stored.
    """
    stored, _ = find_subject(model, None, revision, offline, engine)
    if stored.recipe.method == subject.recipe.method and stored.weight_bytes == subject.weight_bytes:
        return None
    if not subject.recipe.method:
        raise BadInput(
            f"{model[:80]} is stored in {stored.recipe.name}, and no command of {engine} makes it {format_name[:40]}",
            "leave --format out, or name a checkpoint that is stored so",
        )
    return format_name


def handed_over(
    engine: str,
    model: str,
    subject: Subject,
    machine: Machine,
    settings: Any,
    users: int = 1,
    format_name: str | None = None,
    revision: str | None = None,
) -> Launchable:
    """The estimate of settings, and their command if it fits.

    Raises
    ------
    BadInput
        If no command can be written for them.
    """
    module, writer = engine_module(engine), writer_of(engine)
    estimate: Estimate = module.estimate(subject, machine, settings, users)
    order = Order(model, subject, settings, machine, estimate, users, format_name, revision)
    settled = getattr(writer, "settled", None)
    if settled is not None and settled(order) != settings:
        order = replace(order, settings=settled(order))
        order = replace(order, estimate=module.estimate(subject, machine, order.settings, users))
    order = _pinned(order, module, writer)
    answer = with_assumptions(order.estimate, machine)
    if answer.verdict not in ("fits", "tight"):
        return Launchable(answer, order, None)
    if engine == "ollama":
        order = replace(order, chat_template=chat_template_of(model, subject.gguf, revision))
    return Launchable(answer, order, writer.write(order))


def launch_way(
    model: str,
    way: Way,
    question: Question,
    format_name: str | None = None,
    revision: str | None = None,
    offline: bool = False,
) -> Launchable:
    """The command of one server of a way that a search found.

    Raises
    ------
    BadInput
        If no command can be written for it.
    """
    writer_of(way.engine)
    machine, share = server_of(way, question)
    if format_name is not None and way.subject.gguf is None:
        format_name = _made(way.engine, model, way.subject, format_name, revision, offline)
    settings = settings_of(way, machine, share)
    return handed_over(way.engine, model, way.subject, machine, settings, share.users, format_name, revision)


def launch_training(
    model: str,
    machine: Machine,
    settings: TrainingSettings,
    launcher: str,
    nodes: int = 1,
    revision: str | None = None,
    offline: bool = False,
) -> Launchable:
    """The estimate of a training run as its script would do it, and the command if it fits.

    Parameters
    ----------
    settings
        What was asked; whose trainer it is follows from the objective.
    launcher
        `torchrun`, `accelerate` or `deepspeed`.
    nodes
        Machines, each with an equal share of the devices.

    Raises
    ------
    BadInput
        If anything that was given cannot be used, or no command says it.
    """
    from willfit.launch.writing.tasks import settled
    from willfit.launch.writing.training import write
    from willfit.training.estimate import estimate as training_estimate

    subject, _ = find_subject(model, None, revision, offline)
    settings = settled(settings)
    estimate = training_estimate(subject, machine, settings)
    order = Order(model, subject, settings, machine, estimate, revision=revision)
    answer = with_assumptions(estimate, machine)
    written = write(order, launcher, nodes)
    back = training_estimate(subject, machine, _read_back(written, settings.version))
    if not same_bytes(back, estimate):
        asked, made = (format_bytes(max(d.peak_bytes for d in one.devices)) for one in (estimate, back))
        raise BadInput(
            f"no command of {launcher} says this: its trainer would make a run of {made} a device of it, not {asked}",
            "leave --recipe and --offload to the layout: bf16 by default, --offload with --zero",
        )
    return Launchable(answer, order, written if answer.verdict in ("fits", "tight") else None)


def _read_back(written: Written, version: str | None) -> TrainingSettings:
    """The settings that a command says, with its files for the time being in a folder."""
    with TemporaryDirectory() as folder:
        for name, text in written.files.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        words = [str(Path(folder, word)) if word in written.files else word for word in written.words]
        settings: TrainingSettings = parse_command(words, version, written.environment).settings
    return settings


def _pinned(order: Order, module: Any, writer: Any) -> Order:
    """The order with what the estimate rests on said outright, where that changes none of its bytes."""
    if not hasattr(writer, "pins"):
        return order
    for field, value in writer.pins(order).items():
        if getattr(order.settings, field) is not None or value is None:
            continue
        settings = replace(order.settings, **{field: value})
        estimate = module.estimate(order.subject, order.machine, settings, order.users)
        if same_bytes(estimate, order.estimate):
            order = replace(order, settings=settings, estimate=estimate)
    return order


def same_bytes(one: Estimate, other: Estimate) -> bool:
    """Whether two estimates are equal, but for how they say where a number comes from."""

    def sizes(estimate: Estimate) -> Any:
        places = (*estimate.devices, estimate.host)
        terms = [[(t.name, t.bytes, t.low_bytes, t.high_bytes) for t in place.terms] for place in places]
        return (
            terms,
            [place.interval_bytes for place in places],
            estimate.demands,
            estimate.capacity,
            estimate.refusal,
        )

    return bool(sizes(one) == sizes(other))
