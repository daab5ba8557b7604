"""The ways in which a grid lists values: one by one, in steps, all bundled models, kinds and numbers of devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

from willfit.checkpoints.catalogue import catalogue_ids
from willfit.errors import BadInput
from willfit.hardware.table import all_devices, find_device, matching
from willfit.sweeping.options import GPU, MODEL, Option, Value, blamed_on

#: More values of one option are a slip of the keyboard.
_MOST = 100_000


def values_of(option: Option, written: object, where: str) -> tuple[Value, ...]:
    """The values that a grid gives an option, in their order.

    Parameters
    ----------
    written
        As YAML has it: a list, `{from:, to:, by:}`, and `catalogue` or `all` where models or devices are meant.
    where
        The key in the grid, for errors.

    Raises
    ------
    BadInput
        If there is none, one stands there twice, or one cannot be read.
    """
    if isinstance(written, list):
        found = tuple(option.read(value, f"{where}[{index}]") for index, value in enumerate(written))
    elif option.name == MODEL:
        found = tuple(_models(written, where))
    elif option.name == GPU:
        found = tuple(_gpus(written, where))
    elif isinstance(written, Mapping):
        found = tuple(_steps(option, written, where))
    else:
        raise BadInput(
            f"{where} is {written!r}, expected a list", "one value for all points goes under fixed"
        )
    if not found:
        raise BadInput(f"{where} has no values", "name at least one, or leave the key out")
    seen: set[tuple[type, Value]] = set()
    for value in found:
        if (type(value), value) in seen:
            raise BadInput(f"{where} has {value!r} twice")
        seen.add((type(value), value))
    return found


def _steps(option: Option, written: Mapping[object, object], where: str) -> Iterator[int]:
    """`from`, `to` at most, `by` so much or `double`."""
    if option.kind not in ("whole", "tokens"):
        raise BadInput(f"{where} counts in steps, but {option.flag} takes no whole numbers", "write a list")
    _only(written, ("from", "to", "by"), where)
    first, last = (option.read(written.get(name), f"{where}.{name}") for name in ("from", "to"))
    if not isinstance(first, int) or not isinstance(last, int):
        raise BadInput(f"{where} needs from and to", "write {from: 1, to: 64, by: double}")
    by = written.get("by")
    step = None if by == "double" else option.read(by, f"{where}.by")
    if by is None or (step is not None and (not isinstance(step, int) or step < 1)) or first < 1:
        raise BadInput(f"{where} needs by: double or a step of 1 or more, and a from of 1 or more")
    if first > last:
        raise BadInput(f"{where} goes from {first} to {last}, which has no values")
    count = 0
    while first <= last:
        yield first
        first = first * 2 if step is None else first + int(step)
        count += 1
        if count > _MOST:
            raise BadInput(f"{where} has more than {_MOST:,} values")


def _models(written: object, where: str) -> list[str]:
    """Bundled models: all, or those whose id or whose name behind the slash is like a pattern."""
    if written == "catalogue":
        return catalogue_ids()
    if not isinstance(written, Mapping):
        raise BadInput(f"{where} is {written!r}", "write a list of models, catalogue, or {catalogue: qwen3*}")
    _only(written, ("catalogue",), where)
    pattern = str(written.get("catalogue", "")).lower()
    found = [
        name
        for name in catalogue_ids()
        if fnmatchcase(name.lower(), pattern) or fnmatchcase(name.lower().partition("/")[2], pattern)
    ]
    if not found:
        raise BadInput(
            f"{where}.catalogue: no bundled model is like {pattern!r}", "willfit models lists them"
        )
    return found


def _gpus(written: object, where: str) -> list[str]:
    """Devices of the table, each in each number."""
    if written == "all":
        return [device.name for device in all_devices()]
    if not isinstance(written, Mapping):
        raise BadInput(
            f"{where} is {written!r}", "write a list of devices, all, or {devices: nvidia, counts: [1, 8]}"
        )
    _only(written, ("devices", "counts"), where)
    devices, counts = written.get("devices"), written.get("counts", [1])
    if isinstance(devices, list):
        names = [_device(name, f"{where}.devices[{index}]") for index, name in enumerate(devices)]
    elif isinstance(devices, str):
        names = [one.name for one in (all_devices() if devices == "all" else matching(devices))]
    else:
        raise BadInput(f"{where} needs devices", "all, words of their names as in willfit gpus, or a list")
    if not isinstance(counts, list) or not all(type(count) is int and count > 0 for count in counts):
        raise BadInput(
            f"{where}.counts is {counts!r}, expected a list of whole numbers", "counts: [1, 2, 4, 8]"
        )
    return [name if count == 1 else f"{count}x{name}" for name in names for count in counts]


def _device(name: object, where: str) -> str:
    with blamed_on(where):
        find_device(str(name))
    return str(name)


def _only(written: Mapping[object, object], known: tuple[str, ...], where: str) -> None:
    for name in written:
        if name not in known:
            raise BadInput(f"{where} has no {name!r}", f"known: {', '.join(known)}")
