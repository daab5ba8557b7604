"""On which device a program is traced: fake CUDA where that works, else the fake CPU.

Fake CUDA assumes the layout of two of torch's C++ objects, and where it is wrong the process dies. So a forked process
tries it first, once for each torch; what it found is kept beside the traces.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from pathlib import Path

import torch

from willfit.tracing.cache import folder
from willfit.tracing.question import Card

CUDA, CPU = "fake-cuda", "fake-cpu"


def best(card: Card) -> str:
    """The path that this torch can take."""
    if sys.platform != "linux":
        return CPU
    known = folder().parent / "paths" / _key()
    try:
        return known.read_text()
    except OSError:
        pass
    found = CUDA if _works(card) else CPU
    try:
        known.parent.mkdir(parents=True, exist_ok=True)
        known.write_text(found)
    except OSError:
        pass  # it is tried again the next time
    return found


def _key() -> str:
    """A name for this torch and the shims' code."""
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("shims/*.py")))
    said = f"{torch.__version__} {torch.__file__} {platform.platform()}".encode()
    return hashlib.sha256(said + code).hexdigest()


def _works(card: Card) -> bool:
    """Whether a forked process can take a step on fake CUDA tensors and finds what a real one would."""
    import torch._dynamo  # noqa: F401 (fake tensors need it here as well, so that the fork needs not)

    child = os.fork()
    if child == 0:
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            from willfit.tracing.worker.shims import install, self_test

            install(card, CUDA)
            os._exit(0 if not self_test.faults() else 1)
        except BaseException:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0
