"""From what someone types to an estimate: find the model, the machine and the engine, and ask.

Every surface goes through here, so that the same question has the same answer everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from willfit.architectures.drafts import as_draft
from willfit.checkpoints.config import Config
from willfit.checkpoints.locate import locate
from willfit.engines.base import AskedPrompt, Machine, Question, Subject
from willfit.engines.subject import made_for_mlx, subject_from_config, subject_of
from willfit.engines.table import (
    GGUF_ENGINES,
    MLX_TOO,
    ask_usual,
    engine_module,
    engine_name,
    newest_version,
)
from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.file_types import USUAL
from willfit.hardware.device import Device
from willfit.hardware.processors import detect_processor, processor_kind
from willfit.hardware.table import find_device, parse_devices
from willfit.quantities import format_bytes, parse_bytes

if TYPE_CHECKING:
    from willfit.hardware.probe import DetectedDevice
    from willfit.launch.base import DraftModel, Launch
    from willfit.training.settings import TrainingSettings

#: Devices that people ask about most, small to large; the table of answers if no device is named.
COMMON_DEVICES = (
    "RTX 3060 12GB",
    "RTX 4060 Ti 16GB",
    "RTX 3090",
    "RTX 4090",
    "RTX 5090",
    "M3 Max 64GB",
    "L4",
    "L40S",
    "A100 40GB SXM",
    "A100 80GB SXM",
    "H100 SXM",
    "H200",
    "B200",
    "MI300X",
)
COMMON_COUNTS = (1, 2, 4, 8)

#: A display or a driver's bookkeeping takes up to this share of a card that nothing else uses.
_IDLE_SHARE = 0.03


@dataclass(frozen=True, slots=True)
class Candidate:
    """One device set of the table of answers, with its estimate."""

    device: Device
    count: int
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Answer:
    """An estimate with the model that it is about."""

    subject: Subject
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class CommandRun:
    """What a launch command would start.

    Attributes
    ----------
    launch
        The command, read.
    subject
        The model that it loads.
    machine
        The devices that it sees.
    hidden
        How many others there are.
    """

    launch: Launch
    subject: Subject
    machine: Machine
    hidden: int = 0


class Loaded(NamedTuple):
    """All that a command says of what it loads."""

    engine: str
    model: str
    revision: str | None
    config: str
    format_name: str | None
    other_files: bool
    draft: DraftModel | None

    @staticmethod
    def of(launch: Launch) -> Loaded:
        """What one command says of it."""
        return Loaded(
            launch.engine, launch.model, launch.revision, repr(launch.config), launch.format_name,
            launch.other_files, launch.draft,
        )  # fmt: skip


def find_subject(
    model: str,
    format_name: str | None = None,
    revision: str | None = None,
    offline: bool = False,
    engine: str | None = None,
) -> tuple[Subject, bool]:
    """The model as stored, and whether it is a GGUF file, or would be one.

    Parameters
    ----------
    engine
        One that runs GGUF files alone is given the usual one of the model, if nothing says which.

    Raises
    ------
    BadInput
        If the model cannot be found or read.
    """
    checkpoint = locate(model, revision, offline)
    as_it_is = checkpoint.gguf or checkpoint.file_type or (engine in MLX_TOO and made_for_mlx(checkpoint))
    if engine in GGUF_ENGINES and not (as_it_is or format_name):
        note = f"{USUAL[0]} is assumed, as most people run it: ask for another with --format q8_0"
        checkpoint = replace(checkpoint, file_type=USUAL[0], notes=(*checkpoint.notes, note))
    subject = subject_of(checkpoint, format_name)
    return subject, subject.gguf is not None


def machine_of(gpu: str, host_ram: str | None = None, cpu: str | None = None) -> Machine:
    """The devices that `--gpu` names, with the host's RAM and its processor if these are given.

    Raises
    ------
    BadInput
        If a device or a processor is not known.
    """
    host = parse_bytes(host_ram) if host_ram else None
    processor = processor_kind(cpu) if cpu else None
    devices = parse_devices(gpu)
    if any(device.is_cpu for device in devices) and host is None:
        host, processor = _host_total(), processor or detect_processor()
    return Machine(devices, host, processor)


def this_machine(host_ram: str | None = None, cpu: str | None = None) -> Machine | None:
    """The devices of this machine with what is free on them now; None if it has none.

    Parameters
    ----------
    host_ram
        RAM to reckon with, instead of what is available now.
    cpu
        Another processor than this machine's.

    Raises
    ------
    BadInput
        If the processor is not known.
    """
    from willfit.hardware.detect import detect_devices, detect_host

    found = detect_devices()
    if not found:
        return None
    host = detect_host()
    processor = processor_kind(cpu) if cpu else detect_processor()
    available = host.available_bytes if host else None
    ram = parse_bytes(host_ram) if host_ram else available
    return Machine(tuple(map(_as_free, found)), ram, processor)


def _as_free(found: DetectedDevice) -> Device:
    """The device with what is free on it; a note says so if something else uses it."""
    used = found.total_bytes - found.free_bytes
    note = ""
    if used > _IDLE_SHARE * found.total_bytes:
        note = f"{format_bytes(used)} of {found.device.name} are in use now; what is free is what counts"
    return replace(
        found.device, usable_bytes=found.free_bytes, usable_source="free on this machine now", assumption=note
    )


def answer_about(
    model: str,
    machine: Machine,
    question: Question,
    engine: str | None = None,
    format_name: str | None = None,
    revision: str | None = None,
    offline: bool = False,
) -> Answer:
    """The answer for a model on a machine.

    Parameters
    ----------
    engine
        None for the engine that people would use there.

    Raises
    ------
    BadInput
        If anything that was given cannot be used.
    """
    engine = engine_name(engine) if engine is not None else None
    subject, is_gguf = find_subject(model, format_name, revision, offline, engine)
    answer = with_prompt(ask_usual(engine, subject, machine, question, is_gguf), question)
    return Answer(subject, _with_speed(with_assumptions(answer, machine), subject, machine))


def prompt_about(
    model: str,
    paths: Sequence[str],
    new_tokens: int,
    tokenizer: str | None = None,
    revision: str | None = None,
    offline: bool = False,
) -> AskedPrompt:
    """The prompts of files, counted with the tokenizer and the chat template of a model.

    Parameters
    ----------
    new_tokens
        Tokens that are generated behind each.
    tokenizer
        A `tokenizer.json` or the directory that holds it, instead of the model's own.

    Raises
    ------
    BadInput
        If a file or the model cannot be read, or there is no tokenizer that can be used.
    """
    from willfit.checkpoints.tokenizer import tokenizer_files
    from willfit.prompts.counting import counted
    from willfit.prompts.messages import read_prompts

    prompts = read_prompts(paths)
    found = counted(prompts, tokenizer_files(locate(model, revision, offline), tokenizer, offline))
    longest = max(found, key=lambda one: one.tokens)
    if not longest.tokens:
        raise BadInput(f"{longest.file} has no tokens")
    return AskedPrompt(
        tuple(paths), len(found), longest.tokens, longest.template_tokens, longest.templated, new_tokens
    )


def with_prompt(estimate: Estimate, question: Question) -> Estimate:
    """Say what the prompts are, where they were counted."""
    prompt = question.prompt
    if prompt is None:
        return estimate
    details = {**estimate.details, "prompt": prompt.as_json()}
    return replace(estimate, notes=(prompt.in_words(), *estimate.notes), details=details)


def ask_about(
    model: str,
    machine: Machine,
    question: Question,
    engine: str | None = None,
    format_name: str | None = None,
    revision: str | None = None,
    offline: bool = False,
) -> Estimate:
    """The estimate of `answer_about`."""
    return answer_about(model, machine, question, engine, format_name, revision, offline).estimate


def ask_candidates(
    model: str,
    question: Question,
    engine: str | None = None,
    format_name: str | None = None,
    revision: str | None = None,
    offline: bool = False,
) -> tuple[Candidate, ...]:
    """The answers for one to eight of each common device."""
    engine = engine_name(engine) if engine is not None else None
    subject, is_gguf = find_subject(model, format_name, revision, offline, engine)
    candidates = []
    for name in COMMON_DEVICES:
        device = find_device(name)
        for count in COMMON_COUNTS if not device.unified_memory else (1,):
            machine = Machine((device,) * count)
            answer = with_prompt(ask_usual(engine, subject, machine, question, is_gguf), question)
            candidates.append(Candidate(device, count, answer))
    return tuple(candidates)


def answer_command(
    words: Sequence[str],
    machine: Machine,
    users: int = 1,
    version: str | None = None,
    offline: bool = False,
) -> Answer:
    """The answer for a launch command.

    Raises
    ------
    BadInput
        If the command is not understood, or anything that it names cannot be used.
    """
    run = run_of_command(words, machine, version, offline)
    estimate = with_assumptions(estimate_of_run(run, users), run.machine)
    asked = run.launch.settings if run.launch.engine == "training" else None
    return Answer(run.subject, _with_speed(estimate, run.subject, run.machine, asked))


def run_of_command(
    words: Sequence[str], machine: Machine, version: str | None = None, offline: bool = False
) -> CommandRun:
    """What a launch command would start, with the model found.

    Raises
    ------
    BadInput
        As `answer_command` does.
    """
    from willfit.launch.table import parse_command

    return run_of_launch(parse_command(words, version), machine, offline)


def run_of_launch(
    launch: Launch,
    machine: Machine,
    offline: bool = False,
    known: dict[Loaded, Subject] | None = None,
) -> CommandRun:
    """What a command that was read would start, with the model found.

    Parameters
    ----------
    known
        Models that were found, by what is loaded: one that is among them is taken, another is added.

    Raises
    ------
    BadInput
        If anything that it names cannot be used.
    """
    visible = _visible(machine, launch)
    hidden = len(machine.devices) - len(visible)
    loaded = Loaded.of(launch)
    subject = None if known is None else known.get(loaded)
    if subject is None:
        subject = _subject_of_launch(launch, offline)
        if known is not None:
            known[loaded] = subject
    return CommandRun(launch, subject, replace(machine, devices=visible), hidden)


def _subject_of_launch(launch: Launch, offline: bool) -> Subject:
    if launch.config is not None:
        subject = subject_from_config(launch.model, Config(dict(launch.config), "the command"))
    else:
        subject, _ = find_subject(launch.model, None, launch.revision, offline, launch.engine)
    if launch.format_name is not None and (launch.other_files or subject.recipe.rule is None):
        # Engines quantize while loading only what is not quantized yet.
        subject, _ = find_subject(launch.model, launch.format_name, launch.revision, offline)
    return subject if launch.draft is None else _with_draft(subject, launch.draft, offline)


def estimate_of_run(run: CommandRun, users: int = 1) -> Estimate:
    """What a command's run takes, with what its launcher noted.

    Raises
    ------
    BadInput
        If the engine cannot say.
    """
    estimate: Estimate
    if run.launch.engine == "training":
        from willfit.training.estimate import estimate as training_estimate

        estimate = training_estimate(run.subject, run.machine, run.launch.settings)
    else:
        module = engine_module(run.launch.engine)
        estimate = module.estimate(run.subject, run.machine, run.launch.settings, users)
    seen = len(run.machine.devices)
    unseen = (f"the command sees {seen} of {seen + run.hidden} devices",) if run.hidden else ()
    return replace(estimate, notes=(*unseen, *run.launch.notes, *estimate.notes))


def train_about(
    model: str,
    machine: Machine,
    settings: TrainingSettings,
    revision: str | None = None,
    offline: bool = False,
) -> Answer:
    """The answer for a training run.

    Parameters
    ----------
    settings
        What was asked.

    Raises
    ------
    BadInput
        If anything that was given cannot be used.
    """
    from willfit.training.estimate import estimate

    subject, _ = find_subject(model, None, revision, offline)
    answer = estimate(subject, machine, settings)
    answer = replace(answer, notes=(*_assumptions(machine), *answer.notes))
    return Answer(subject, _with_speed(answer, subject, machine, settings))


def spread_over(machine: Machine, ranks: int | None) -> Machine:
    """The machine with a device for each rank: one device is meant for each.

    Raises
    ------
    BadInput
        If there are several, but not so many.
    """
    count = len(machine.devices)
    if ranks is None or ranks == count:
        return machine
    if count == 1:
        return replace(machine, devices=machine.devices * ranks)
    raise BadInput(f"{ranks} ranks need {ranks} devices, not {count}", "leave one of the two out")


def _visible(machine: Machine, launch: Launch) -> tuple[Device, ...]:
    """The devices that a command sees: those of its numbers, if there are so many, else the first."""
    if launch.visible and max(launch.visible) < len(machine.devices):
        return tuple(machine.devices[number] for number in launch.visible)
    return machine.devices[: launch.devices]


def _with_draft(subject: Subject, named: DraftModel, offline: bool) -> Subject:
    """The subject with the model that drafts for it; a note says so if that cannot be found."""
    try:
        checkpoint = locate(named.model, named.revision, offline)
        if checkpoint.config is not None:
            checkpoint = replace(checkpoint, config=as_draft(checkpoint.config, named.method))
        return replace(subject, draft=subject_of(checkpoint))
    except BadInput as error:
        return replace(subject, notes=(*subject.notes, f"draft model: {error}"))


def ask_command(
    words: Sequence[str],
    machine: Machine,
    users: int = 1,
    version: str | None = None,
    offline: bool = False,
) -> Estimate:
    """The estimate of `answer_command`."""
    return answer_command(words, machine, users, version, offline).estimate


def with_assumptions(estimate: Estimate, machine: Machine) -> Estimate:
    """Say what was taken where a device's name left a choice, or a version is newer than what is known."""
    notes = _assumptions(machine)
    newest = newest_version(estimate.engine) if estimate.kind != "train" else estimate.engine_version
    if estimate.kind != "train" and parse_version(estimate.engine_version) > parse_version(newest):
        notes.append(
            f"{estimate.engine} {estimate.engine_version} is not known; it is taken to behave as {newest} does"
        )
    return replace(estimate, notes=(*notes, *estimate.notes)) if notes else estimate


def _with_speed(
    estimate: Estimate, subject: Subject, machine: Machine, training: TrainingSettings | None = None
) -> Estimate:
    """The estimate with how fast its run would be, where that can be said."""
    if training is not None:
        from willfit.speed.training_answer import training_speed_of

        speed = training_speed_of(subject, machine, training)
    else:
        from willfit.speed.answer import speed_of

        speed = speed_of(subject, machine, estimate)
    if speed is None:
        return estimate
    return replace(estimate, details={**estimate.details, "speed": speed.as_json()})


def _assumptions(machine: Machine) -> list[str]:
    """What was taken where a device's name left a choice."""
    return list(dict.fromkeys(device.assumption for device in machine.devices if device.assumption))


def _host_total() -> int | None:
    from willfit.hardware.detect import detect_host

    host = detect_host()
    return host.available_bytes if host else None


def require_devices(machine: Machine | None) -> Machine:
    """The machine, or a clear refusal if there is none.

    Raises
    ------
    BadInput
        If no device was named and this machine has none.
    """
    if machine is None:
        raise BadInput(
            "no GPU was named and this machine has none that can be seen",
            "name one with --gpu rtx4090, or the processor with --gpu cpu",
        )
    return machine
