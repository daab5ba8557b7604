"""Which line of the model's or the user's code runs."""

from __future__ import annotations

import os
import sys

import torch

_TORCH = os.path.dirname(torch.__file__) + os.sep
#: Parts of torch whose lines say something to a reader.
_SPEAKING = (os.path.join(_TORCH, "optim"), os.path.join(_TORCH, "nn", "utils"))
_OURS = os.path.dirname(os.path.abspath(__file__))
#: Frames below an operation that are looked at.
_DEEP = 40


def source_line() -> str:
    """File and line of the innermost frame outside of torch's machinery; empty if there is none."""
    frame = sys._getframe(1)
    for _ in range(_DEEP):
        found = frame.f_back
        if found is None:
            return ""
        frame = found
        path = frame.f_code.co_filename
        if not _passed_over(path):
            return f"{os.path.basename(path)}:{frame.f_lineno}"
    return ""


_known: dict[str, bool] = {}


def _passed_over(path: str) -> bool:
    found = _known.get(path)
    if found is None:
        machinery = path.startswith(_TORCH) and not path.startswith(_SPEAKING)
        library = path.startswith("<") or path.endswith("contextlib.py")
        found = _known[path] = machinery or library or path.startswith(_OURS)
    return found
