"""Where a rule stands in an engine's source, and since which version it has been so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from willfit.engines.versions import Version
from willfit.estimate import Term


def dated(terms: Iterable[Term], name: str, root: str, since: Version) -> tuple[Term, ...]:
    """The terms, with the first version of the rules behind them where they refer to the engine's source.

    Parameters
    ----------
    name, root
        What the engine is called, and how paths of its source begin.
    since
        First version of the era; all zeros for the oldest one.
    """

    def with_version(reference: str) -> str:
        source, sep, rest = reference.partition("; ")
        return f"{source} ({label}){sep}{rest}"

    version = ".".join(map(str, since)) if any(since) else ""
    label = f"{name}, since {version}" if version else f"{name}, oldest rules"
    return tuple(
        replace(term, reference=with_version(term.reference)) if term.reference.startswith(root) else term
        for term in terms
    )
