"""From what someone asks for to ranked plans of serving: model, devices and prices are found, and all ways searched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from willfit.asking import find_subject, machine_of
from willfit.engines.base import Question, Subject
from willfit.engines.table import FALLBACK_ENGINE, default_engine, engine_name
from willfit.errors import BadInput
from willfit.hardware.device import Device
from willfit.hardware.prices import Price, bundled_prices, read_prices
from willfit.planning.formats import stored
from willfit.planning.search.devices import by_engine, devices_asked, divided
from willfit.planning.search.figures import limit_of
from willfit.planning.search.searching import Plan, Searched, Wanted, search
from willfit.planning.search.settling import Settled, longest_context, settled
from willfit.planning.serving import CONTEXT
from willfit.planning.together import Together, on_all

#: The engine that splits layers over devices of several kinds, and the rest into RAM.
_DEALS_OUT = "llama.cpp"

#: What a checkpoint's own format is called.
STORED = "stored"


@dataclass(frozen=True, slots=True)
class Asked:
    """What someone asks for, in the words of the command.

    Attributes
    ----------
    model, context, users
        What shall be served.
    goal
        See `search.goals.GOALS`; None for the lowest price, or the highest throughput of `within`.
    needs
        Limits, such as `per-user >= 20`.
    within, among, mig
        No more than these devices; only devices with these words; MIG slices as well.
    host_ram
        RAM that layers may lie in, beside all of `within`.
    prices
        A file; None for the bundled ones.
    engine, version, formats, kv_dtypes
        None for what people use.
    most
        So many plans are settled.
    """

    model: str
    context: int | None = None
    users: int = 1
    goal: str | None = None
    needs: tuple[str, ...] = ()
    within: str | None = None
    among: str | None = None
    mig: bool = False
    host_ram: str | None = None
    prices: str | None = None
    engine: str | None = None
    version: str | None = None
    formats: tuple[str, ...] | None = None
    kv_dtypes: tuple[str, ...] | None = None
    revision: str | None = None
    offline: bool = False
    most: int = 12


@dataclass(frozen=True, slots=True)
class Planned:
    """Ranked plans.

    Attributes
    ----------
    asked, question, goal
        What was asked for.
    plans
        The best of each device and format, each with the estimate of one of its servers.
    found
        All that the search says.
    prices
        By device.
    together
        What runs on all of `within` at once, where these are of several kinds, or beside RAM.
    names
        What each subject's format was asked for by, by the subject's identity; None for the checkpoint's own.
    unpriced
        How many kinds of devices have none, where the price decides.
    """

    asked: Asked
    question: Question
    goal: str
    plans: Sequence[tuple[Plan, Settled]]
    found: Searched
    prices: Mapping[Device, Price]
    together: Sequence[Together]
    names: Mapping[int, str | None]
    unpriced: int


def plan_serving(asked: Asked, step: Callable[[str], None] = lambda engine: None) -> Planned:
    """Search all ways to serve a model.

    Parameters
    ----------
    step
        Called with each engine that is begun.

    Raises
    ------
    BadInput
        If anything that was asked for cannot be used.
    """
    goal = asked.goal or ("price" if asked.within is None else "throughput")
    limits = [limit_of(text) for text in asked.needs]
    prices = bundled_prices() if asked.prices is None else read_prices(asked.prices)
    caps = devices_asked(asked.within, asked.among)
    devices = list(caps)
    if asked.mig:
        devices, prices = divided(devices, prices)
    engine = None if asked.engine is None else engine_name(asked.engine)
    first, is_gguf = find_subject(asked.model, None, asked.revision, asked.offline, engine)
    wanted = Wanted(goal, limits, caps, asked.kv_dtypes or ())
    named = [one for one in devices if one in prices] if wanted.cost == "price" else devices
    if not named:
        raise BadInput(
            "none of these devices has a price", "give one with --prices FILE, or ask for --goal devices"
        )
    on = by_engine(first, named, engine, is_gguf)
    if engine is None and len(on) > 1:
        # What no server runs on may still run a model, but nobody plans for it.
        on.pop(FALLBACK_ENGINE, None)
    question = Question(asked.context, asked.users, version=asked.version)
    made = {name: _subjects(asked, name) for name in on}
    subjects = {engine: [subject for _, subject in both] for engine, both in made.items()}
    names = {id(subject): name for both in made.values() for name, subject in both}
    question = replace(question, context=question.context_for(first.architecture))
    found = search(subjects, on, question, prices, wanted, step)
    plans = _settled(found, question, goal, asked.most)
    together = _together(asked, question, first, is_gguf) if asked.within is not None else ()
    return Planned(asked, question, goal, plans, found, prices, together, names, len(devices) - len(named))


def _together(asked: Asked, question: Question, first: Subject, is_gguf: bool) -> list[Together]:
    """On all devices at once, as the engine would that people use, and as llama.cpp would, which deals layers out."""
    machine = machine_of(asked.within or "", asked.host_ram)
    if len(set(machine.devices)) == 1 and asked.host_ram is None:
        return []
    usual = asked.engine or default_engine(first, machine, is_gguf)
    engines = dict.fromkeys((engine_name(usual), *(() if asked.engine else (_DEALS_OUT,))))
    found = (
        on_all([subject for _, subject in _subjects(asked, engine)], machine, question, engine)
        for engine in engines
    )
    return [one for one in found if one is not None]


def _subjects(asked: Asked, engine: str) -> list[tuple[str | None, Subject]]:
    """The model in every format that is searched, each with the format's name."""

    def of(name: str | None) -> Subject:
        return find_subject(asked.model, name, asked.revision, asked.offline, engine)[0]

    formats = None if asked.formats is None else [None if name == STORED else name for name in asked.formats]
    return stored(engine, formats, of)


def _settled(found: Searched, question: Question, goal: str, most: int) -> list[tuple[Plan, Settled]]:
    """The first plans with the estimates of their servers; the longest contexts solved for."""
    plans = list(found.plans[:most])
    if goal == "context":
        plans = [_with_context(plan, question) for plan in plans]
        plans.sort(key=lambda plan: -plan.figures["context"])
    return [(plan, settled(plan.way, question)) for plan in plans]


def _with_context(plan: Plan, question: Question) -> Plan:
    longest = longest_context(plan.way, question, CONTEXT)
    return replace(plan, figures={**plan.figures, "context": float(longest.step or 0)})
