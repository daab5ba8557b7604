"""Traces that were made before, by what they were asked: the question, the libraries that ran, and this code."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from willfit.tracing.question import Question, Script
from willfit.tracing.trace import Trace

#: Libraries whose code runs in a trace.
_RUN = ("torch", "transformers", "peft", "accelerate")

#: So many traces are kept; one takes about as many bytes as a photograph.
_KEPT = 100


def folder() -> Path:
    """Where traces are kept: `$XDG_CACHE_HOME/willfit/traces`, or in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "willfit", "traces")


def key_of(question: Question) -> str | None:
    """A name for all that decides about a trace; None for a program of which only its author knows what it reads."""
    if isinstance(question.program, Script):
        return None
    asked = {"program": type(question.program).__name__, **asdict(question)}
    content = json.dumps([asked, _versions(), platform.platform()], sort_keys=True, default=str)
    return hashlib.sha256(content.encode() + _own_code()).hexdigest()


def found(key: str) -> Trace | None:
    """The trace of that name, if there is one that can be read."""
    try:
        return Trace.from_bytes((folder() / key).read_bytes())
    except (OSError, ValueError):
        return None


def keep(key: str, trace: Trace) -> None:
    """Keep a trace, and let go of the oldest if there are too many. Where nothing can be written, nothing is kept."""
    place = folder()
    try:
        place.mkdir(parents=True, exist_ok=True)
        unfinished = place / f"{key}.{os.getpid()}"
        unfinished.write_bytes(trace.to_bytes())
        unfinished.replace(place / key)
        for old in sorted(place.iterdir(), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
            old.unlink(missing_ok=True)
    except OSError:
        return


def _versions() -> list[str]:
    found = []
    for name in _RUN:
        try:
            found.append(version(name))
        except PackageNotFoundError:
            found.append("")
    return found


def _own_code() -> bytes:
    """A digest of the code that traces."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.digest()
