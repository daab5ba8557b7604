"""Points that a grid leaves out: `{format: awq, users: "> 8"}` skips those of which all of it is true."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from willfit.errors import BadInput
from willfit.hardware.table import find_device, parse_devices
from willfit.sweeping.options import GPU, Option, Value, blamed_on

_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
_COMPARED = re.compile(r"\s*(<=|>=|!=|==|<|>)\s*(.*?)\s*", re.DOTALL)

#: Columns that follow from `gpu`: the name of the first device, and how many there are.
DEVICE, DEVICES = "device", "devices"


@dataclass(frozen=True, slots=True)
class Condition:
    """What one column must be.

    Attributes
    ----------
    column
        An option of the grid, or `device` or `devices`.
    sign
        `==` any of the values, `!=` all of them; or an order with one.
    values
        As the column has them.
    """

    column: str
    sign: str
    values: tuple[Value, ...]

    def holds(self, value: Value) -> bool:
        """Whether it is true of a value. An option that is not given is in no order to anything."""
        if self.sign in _SIGNS:
            limit = self.values[0]
            return value is not None and _SIGNS[self.sign](float(value), float(limit or 0))
        return (value in self.values) == (self.sign == "==")


Skip = tuple[tuple[Condition, ...], ...]


def read_skips(
    written: object, options: Mapping[str, Option], taken: Callable[[str], Collection[Value]]
) -> Skip:
    """Read what a grid says under `skip`.

    Parameters
    ----------
    options
        By the names that the grid calls them.
    taken
        The values that a column of the grid takes.

    Raises
    ------
    BadInput
        If a column is not there, or no point can be meant.
    """
    if written is None:
        return ()
    if not isinstance(written, list):
        raise BadInput(
            "skip is no list", "write - {format: awq, users: '> 8'}, a line for each kind of points"
        )
    return tuple(_read_one(one, f"skip[{index}]", options, taken) for index, one in enumerate(written))


def _read_one(
    written: object, where: str, options: Mapping[str, Option], taken: Callable[[str], Collection[Value]]
) -> tuple[Condition, ...]:
    if not isinstance(written, Mapping) or not written:
        raise BadInput(f"{where} is {written!r}", "write {format: awq, users: '> 8'}")
    found = []
    for name, value in written.items():
        derived = name in (DEVICE, DEVICES) and GPU in options
        if not derived and name not in options:
            known = [*options, *((DEVICE, DEVICES) if GPU in options else ())]
            raise BadInput(f"{where}: the grid has no {str(name)!r}", f"it has {', '.join(known)}")
        option = _derived(str(name)) if derived else options[str(name)]
        condition = _read_condition(option, value, f"{where}.{name}")
        if not any(condition.holds(one) for one in taken(option.name)):
            raise BadInput(f"{where}.{name} is {value!r}, which no point of the grid has")
        found.append(condition)
    return tuple(found)


def _read_condition(option: Option, written: object, where: str) -> Condition:
    sign, values = "==", written if isinstance(written, list) else [written]
    match = _COMPARED.fullmatch(written) if isinstance(written, str) else None
    if match is not None:
        sign, values = match[1], [match[2]]
    if sign in _SIGNS and option.kind not in ("whole", "number", "tokens"):
        raise BadInput(f"{where} compares with {sign}, but it holds no numbers", "use == or !=")
    read = tuple(option.read(value, where) for value in values)
    if not read:
        raise BadInput(f"{where} has no values")
    if option.name == DEVICE:
        with blamed_on(where):
            read = tuple(find_device(str(value)).name for value in read)
    return Condition(option.name, sign, read)


def _derived(name: str) -> Option:
    return Option(name, name, "whole" if name == DEVICES else "text")


@cache
def devices_of(gpu: str) -> tuple[str, int]:
    """The name of the first device that `--gpu` names, and how many there are."""
    devices = parse_devices(gpu)
    return devices[0].name, len(devices)


def column_of(point: Mapping[str, Value], column: str) -> Value:
    """What a column holds at a point."""
    gpu = point.get(GPU)
    if column in (DEVICE, DEVICES):
        return None if gpu is None else devices_of(str(gpu))[column == DEVICES]
    return point[column]


def skipped(point: Mapping[str, Value], skips: Sequence[Sequence[Condition]]) -> bool:
    """Whether a grid leaves a point out."""
    return any(all(one.holds(column_of(point, one.column)) for one in conditions) for conditions in skips)
