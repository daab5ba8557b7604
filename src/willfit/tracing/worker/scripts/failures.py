"""What went wrong in a script, in the words of its author: the line of its own code, and what to do."""

from __future__ import annotations

import linecache
import os
import sysconfig
import traceback

from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)

from willfit.errors import BadInput

#: Characters of an error, and of a line of code, that are told.
_LONGEST = 300

_LIBRARIES = tuple(os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))
_OURS = os.path.realpath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 2))

_BY_VALUES = (
    "its result depends on values that fake tensors do not have",
    "take the size from the data on the host, or leave this part out of the traced run",
)
#: What is wrong with the script's use of the device rather than with the script.
_KNOWN: tuple[tuple[type[BaseException], str, str], ...] = (
    (DynamicOutputShapeException, *_BY_VALUES),
    (DataDependentOutputException, *_BY_VALUES),
    (UnsupportedOperatorException, "torch has no fake version of it", "leave this part out of the traced run"),
)  # fmt: skip
_ON_FAKE = (
    "it ran on fake CUDA: see that `python {name}` runs by itself, or leave this part out of the traced run"
)


def told(error: BaseException, name: str) -> BadInput:
    """The error of a script.

    Parameters
    ----------
    error
        What it raised.
    name
        What it is called.
    """
    where = own_line(error)
    known = next((one for one in _chain(error) if isinstance(one, tuple(kind for kind, *_ in _KNOWN))), None)
    if known is not None:
        why, hint = next((why, hint) for kind, why, hint in _KNOWN if isinstance(known, kind))
        what = f"{getattr(known, 'func', known)} cannot be traced: {why}"
        return BadInput(f"{what}{where}", hint)
    said = " ".join(str(error).split())[:_LONGEST]
    return BadInput(
        f"{name} failed: {type(error).__name__}{': ' if said else ''}{said}{where}",
        _ON_FAKE.format(name=name),
    )


def _chain(error: BaseException | None) -> list[BaseException]:
    """An error and those that it came from."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def own_line(error: BaseException) -> str:
    """The last line of someone's own code in a traceback: ` (train.py:42: loss.backward())`."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_library(frame.filename)]
    if not own:
        return ""
    frame = own[-1]
    line = linecache.getline(frame.filename, frame.lineno or 0).strip()[:_LONGEST]
    return f" ({os.path.basename(frame.filename)}:{frame.lineno}{': ' if line else ''}{line})"


def _is_library(path: str) -> bool:
    real = os.path.realpath(path)
    return path.startswith("<") or real.startswith((*_LIBRARIES, _OURS))
