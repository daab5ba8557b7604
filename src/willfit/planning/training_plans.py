"""From what someone asks for to ranked plans of training: model, devices and prices are found, all runs searched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from willfit.asking import find_subject
from willfit.engines.base import Machine, Subject
from willfit.errors import BadInput
from willfit.hardware.device import Device
from willfit.hardware.prices import Price, bundled_prices, read_prices
from willfit.planning.search.devices import devices_asked
from willfit.planning.search.figures import limit_of
from willfit.planning.training_search.judging import BATCHES, Judge
from willfit.planning.training_search.searching import TrainingSearched, search_training
from willfit.training.estimate import estimate, estimate_alone
from willfit.training.settings import LayoutSettings, TrainingSettings


@dataclass(frozen=True, slots=True)
class TrainingAsked:
    """What someone asks for, in the words of the command.

    Attributes
    ----------
    model, settings
        What shall be trained, and how as far as it is said.
    framework
        The only program that is tried; None for those that people use.
    micro_batch, global_batch
        Sequences of a device at once, None for the most that fit; and of a step over all devices, None for what a
        micro-batch on each makes.
    goal
        See `training_search.searching.GOALS`; None for the lowest price, or the highest throughput of `within`.
    needs, within, among, prices
        As of serving (`serving_plans.Asked`).
    """

    model: str
    settings: TrainingSettings
    framework: str | None = None
    micro_batch: int | None = None
    global_batch: int | None = None
    goal: str | None = None
    needs: tuple[str, ...] = ()
    within: str | None = None
    among: str | None = None
    prices: str | None = None
    revision: str | None = None
    offline: bool = False


@dataclass(frozen=True, slots=True)
class TrainingPlanned:
    """Ranked plans.

    Attributes
    ----------
    asked, goal
        What was asked for.
    found
        What the search says.
    prices
        By device.
    remedies
        What would make the nearest run fit, where none does.
    """

    asked: TrainingAsked
    goal: str
    found: TrainingSearched
    prices: Mapping[Device, Price]
    remedies: tuple[str, ...]


def plan_training(
    asked: TrainingAsked, step: Callable[[int, int], None] = lambda done, of: None
) -> TrainingPlanned:
    """Search all ways to train a model.

    Parameters
    ----------
    step
        Called with how many sets of devices are done, and how many there are.

    Raises
    ------
    BadInput
        If anything that was asked for cannot be used.
    """
    goal = asked.goal or ("cost" if asked.within is None else "throughput")
    limits = [limit_of(text) for text in asked.needs]
    prices = bundled_prices() if asked.prices is None else read_prices(asked.prices)
    devices = devices_asked(asked.within, asked.among)
    if goal in ("price", "cost"):
        devices = {device: most for device, most in devices.items() if device in prices}
        if not devices:
            raise BadInput(
                "none of these devices has a price",
                "give one with --prices FILE, or ask for --goal throughput",
            )
    subject, _ = find_subject(asked.model, None, asked.revision, asked.offline)
    # What is wrong with the run on any device shall be said once.
    alone = replace(
        asked.settings, framework=asked.framework or asked.settings.framework, layout=LayoutSettings()
    )
    estimate_alone(subject, Machine((next(iter(devices)),)), alone)
    batches = BATCHES if asked.micro_batch is None else (asked.micro_batch,)
    judge = Judge(subject, asked.settings, asked.global_batch, batches)
    found = search_training(judge, devices, prices, goal, limits, asked.framework, step)
    return TrainingPlanned(asked, goal, found, prices, _remedies(subject, found))


def _remedies(subject: Subject, found: TrainingSearched) -> tuple[str, ...]:
    """What would make the nearest run fit, where none does."""
    if found.fitting or not found.rejected:
        return ()
    way, _ = found.rejected[0]
    if way.estimate is None:
        return ()
    return estimate(subject, Machine((way.device,) * way.count), way.settings).remedies
