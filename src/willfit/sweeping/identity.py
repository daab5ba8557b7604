"""Which code answers: rows of one version of it are not to be mixed with those of another."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import willfit
from willfit.errors import BadInput
from willfit.sweeping.options import Run
from willfit.tracing.child import NEEDED


@cache
def identity(run: Run) -> str:
    """This willfit in a line: its version and a digest of its files; of a trace also the libraries that it runs."""
    parts = [f"willfit {willfit.__version__}+{_digest()}"]
    if run == "trace":
        parts += [f"{name} {_version(name)}" for name in NEEDED]
    return ", ".join(parts)


def ready(run: Run) -> str:
    """The identity of a place that can answer chunks.

    Raises
    ------
    BadInput
        If a package is missing here.
    """
    require_parquet()
    missing = [name for name in NEEDED if find_spec(name) is None] if run == "trace" else []
    if missing:
        raise BadInput(f"traces need {' and '.join(missing)}", "pip install 'willfit[trace]'")
    return identity(run)


def require_parquet() -> None:
    """Raise `BadInput` if Parquet can be neither written nor read here."""
    if find_spec("pyarrow") is None:
        raise BadInput("a sweep needs pyarrow", "pip install 'willfit[sweep]'")


def _digest() -> str:
    """A digest of the code and the data beside it."""
    digest = hashlib.sha256()
    folder = Path(willfit.__file__).parent
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix not in (".pyc", ".md"):
            digest.update(f"{path.relative_to(folder)}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
