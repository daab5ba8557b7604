"""Seeing before anything runs that every value of a grid can be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product

from willfit.errors import BadInput
from willfit.hardware.table import parse_devices
from willfit.sweeping.options import GPU, MODEL, Run, Value, blamed_on, parsed
from willfit.sweeping.questions.table import questions_of

#: With so many combinations of the other options a value is tried.
_TRIES = 500


def check_values(run: Run, axes: Mapping[str, Sequence[Value]], fixed: Mapping[str, Value]) -> None:
    """Raise `BadInput` for a value that no combination with the other options makes readable.

    Options may need each other (`--targets` an adapter), so that a value is wrong only if it is so with all others.
    Whether a model can be found, or an engine takes it, is not looked at: that is the answer of a point.

    Parameters
    ----------
    axes, fixed
        By `Option.name`.
    """
    for where, gpu in _devices(axes, fixed):
        with blamed_on(where):
            parse_devices(gpu)
    settled = {**fixed, MODEL: "model", GPU: None}
    tried = {name: values for name, values in axes.items() if name not in (MODEL, GPU)}
    error = _readable(run, tried, settled)
    if error is not None:
        raise BadInput(f"no point of the grid can be asked: {error.message}", error.hint)
    for name, values in tried.items():
        others = {other: values for other, values in tried.items() if other != name}
        for index, value in enumerate(values):
            error = _readable(run, others, {**settled, name: value})
            if error is not None:
                raise BadInput(f"vary.{name}[{index}] is {value!r}: {error.message}", error.hint)


def _devices(axes: Mapping[str, Sequence[Value]], fixed: Mapping[str, Value]) -> Iterator[tuple[str, str]]:
    for index, gpu in enumerate(axes.get(GPU, ())):
        if gpu is not None:
            yield f"vary.{GPU}[{index}]", str(gpu)
    if fixed.get(GPU) is not None:
        yield f"fixed.{GPU}", str(fixed[GPU])


def _readable(run: Run, axes: Mapping[str, Sequence[Value]], settled: Mapping[str, Value]) -> BadInput | None:
    """What is wrong with every combination; None if one can be read, or there are too many to try."""
    found: BadInput | None = None
    for index, values in enumerate(islice(product(*axes.values()), _TRIES + 1)):
        if index == _TRIES:
            return None
        try:
            questions_of(run).check(parsed(run, {**settled, **dict(zip(axes, values, strict=True))}))
        except BadInput as error:
            found = error
        else:
            return None
    return found
