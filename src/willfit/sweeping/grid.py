"""Reading a grid: what is asked, which options vary, which stay, and which points are left out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from willfit.errors import BadInput
from willfit.hardware.table import parse_devices
from willfit.launch.config_files import read_settings
from willfit.sweeping.axes import values_of
from willfit.sweeping.checking import check_values
from willfit.sweeping.conditions import DEVICE, DEVICES, Skip, column_of, read_skips
from willfit.sweeping.options import GPU, MODEL, RUNS, Option, Run, Value, blamed_on, option_named

_KEYS = ("run", "vary", "fixed", "skip", "speed")


@dataclass(frozen=True, slots=True)
class Grid:
    """A grid of questions.

    Attributes
    ----------
    run
        What each point is asked.
    axes
        Options that vary, with their values: the model first, devices last, the others as the file has them.
    fixed
        Options that stay.
    skip
        Points that are left out.
    speed
        Whether tokens per second are wanted.
    """

    run: Run
    axes: tuple[tuple[Option, tuple[Value, ...]], ...]
    fixed: Mapping[str, Value]
    skip: Skip
    speed: bool

    @property
    def columns(self) -> tuple[str, ...]:
        """The options that are set, by `Option.name`, in the order of the file."""
        return (*(option.name for option, _ in self.axes), *self.fixed)


def read_grid(path: Path) -> Grid:
    """Read a grid from a YAML file, and see that every value can be read.

    Raises
    ------
    BadInput
        If it is no grid: one line that names the key.
    """
    with blamed_on(str(path)):
        written = read_settings(path, once=True)
        if written is None:
            raise BadInput("there is no such file")
        return grid_of(written)


def grid_of(written: Mapping[str, Any]) -> Grid:
    """A grid as YAML has it.

    Raises
    ------
    BadInput
        If it is none.
    """
    for key in written:
        if key not in _KEYS:
            raise BadInput(f"a grid has no {key!r}", f"known: {', '.join(_KEYS)}")
    run = written.get("run", "estimate")
    if run not in RUNS:
        raise BadInput(f"run is {run!r}", f"choose from {', '.join(RUNS)}")
    speed = written.get("speed", False)
    if not isinstance(speed, bool) or (speed and run == "trace"):
        raise BadInput(f"speed is {speed!r}", "true or false; a trace has no speed")
    called: dict[str, Option] = {}
    vary = _options(written.get("vary"), "vary", run, called)
    fixed = _options(written.get("fixed"), "fixed", run, called)
    axes = {option: values_of(option, value, where) for where, (option, value) in vary.items()}
    grid = Grid(
        run,
        tuple(sorted(axes.items(), key=lambda axis: _rank(axis[0]))),
        {option.name: option.read(value, where) for where, (option, value) in fixed.items()},
        (),
        speed,
    )
    check_values(run, {option.name: values for option, values in grid.axes}, grid.fixed)
    _check_whole(grid)
    skip = read_skips(written.get("skip"), called, lambda column: _taken(grid, column))
    return Grid(grid.run, grid.axes, grid.fixed, skip, grid.speed)


def _options(
    written: object, part: str, run: Run, called: dict[str, Option]
) -> dict[str, tuple[Option, object]]:
    """The options of a part of the grid with what is written behind them, by their keys."""
    if written is None:
        return {}
    if not isinstance(written, Mapping):
        raise BadInput(f"{part} does not hold names and values", f"write {part}: and options below it")
    found = {}
    for name, value in written.items():
        option = option_named(run, str(name), f"{part}.{name}")
        if option in called.values():
            raise BadInput(f"{part}.{name} sets {option.flag}, which the grid sets already")
        called[str(name)] = option
        found[f"{part}.{name}"] = option, value
    return found


def _check_whole(grid: Grid) -> None:
    """Raise `BadInput` where a point lacks what a sweep takes from no machine."""
    set_here = {option.name for option, _ in grid.axes} | {
        name for name, value in grid.fixed.items() if value is not None
    }
    if MODEL not in set_here:
        raise BadInput("the grid names no model", "put model under vary or fixed")
    if GPU not in set_here and grid.run != "trace":
        raise BadInput(
            "the grid names no devices", "put gpu under vary or fixed: a sweep takes no machine's own"
        )
    named = [parse_devices(str(gpu)) for gpu in _taken(grid, GPU) if gpu is not None]
    if "host_ram" not in set_here and any(device.is_cpu for devices in named for device in devices):
        raise BadInput("gpu names cpu, and nothing says how much RAM that has", "put host-ram under fixed")


def _rank(option: Option) -> int:
    return {MODEL: 0, GPU: 2}.get(option.name, 1)


def _taken(grid: Grid, column: str) -> Collection[Value]:
    """The values that a column takes."""
    name = GPU if column in (DEVICE, DEVICES) else column
    values = {option.name: values for option, values in grid.axes}.get(name)
    if values is None:
        values = (grid.fixed.get(name),)
    if column in (DEVICE, DEVICES):
        return {column_of({GPU: value}, column) for value in values}
    return values
