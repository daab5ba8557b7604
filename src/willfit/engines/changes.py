"""What changed between two eras of an engine, in words.

Each engine with an `eras.py` has a `changes.py` beside it: `WORDS`, which says for every field of its `Era` what the
field's values mean and which figures they enter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any

from willfit.engines.versions import Version

#: Where an engine has its `Era`: with its table, or alone where that is long.
_MODULES = ("eras", "era")


@dataclass(frozen=True, slots=True)
class Words:
    """A field of an era in words.

    Attributes
    ----------
    says
        A statement about the version that has a value, by value; or one for all, with `{}` where the value stands.
    enters
        What the field changes: a term (`activations`), a number of its formula (`kv_cache: cuda_graphs`), `needed`
        (what sequences take of the cache) or `reported` (the tokens that the engine logs).
    only
        Which models it concerns: those with any of `windows`, `states`, `latents`, `experts`, `towers`, `drafts`, or in
        `gptq`; empty for all.
    """

    says: Mapping[Any, str] | str
    enters: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    def of(self, value: Any) -> str:
        """The statement about a value."""
        return self.says.format(value) if isinstance(self.says, str) else self.says[value]


@dataclass(frozen=True, slots=True)
class Change:
    """One field in which two eras differ.

    Attributes
    ----------
    field
        Its name.
    words
        What holds for the newer of the two, and since when.
    values
        The older and the newer value.
    enters, only
        See `Words`.
    """

    field: str
    words: str
    values: tuple[Any, Any]
    enters: tuple[str, ...] = ()
    only: tuple[str, ...] = ()


def changes_of(one: Any, other: Any) -> tuple[Change, ...]:
    """The changes between two eras of one engine; nothing for eras of different engines.

    The words are those of `changes.py` beside the module that the eras are from.
    """
    package, _, module = type(one).__module__.rpartition(".")
    if type(one) is not type(other) or module not in _MODULES:
        return ()
    words = import_module(f"{package}.changes").WORDS
    return changes(words, import_module(f"{package}.eras").ERAS, one, other)


def changes(words: Mapping[str, Words], eras: Sequence[Any], one: Any, other: Any) -> tuple[Change, ...]:
    """The fields in which two eras differ, each as a statement about the newer era, in the order of versions.

    Parameters
    ----------
    words
        Of the engine's fields.
    eras
        All eras of the engine, oldest first.
    one, other
        Two of them, or what settings made of them; which is first does not matter.
    """
    older, newer = sorted((one, other), key=lambda era: era.since)
    found = []
    for field in fields(newer):
        values = getattr(older, field.name), getattr(newer, field.name)
        if field.name != "since" and values[0] != values[1]:
            said = words[field.name]
            since = _since(eras, newer, field.name)
            text = f"since {'.'.join(map(str, since))} " if since else ""
            found.append(
                (since, Change(field.name, text + said.of(values[1]), values, said.enters, said.only))
            )
    return tuple(change for _, change in sorted(found, key=lambda dated: dated[0]))


def _since(eras: Sequence[Any], era: Any, field: str) -> Version:
    """From which version on a field has its value; nothing where a setting says otherwise than the version."""
    since: tuple[int, ...] | None = None
    value = None
    for known in eras:
        if known.since <= era.since and (since is None or getattr(known, field) != value):
            value, since = getattr(known, field), known.since
    return since if since and any(since) and value == getattr(era, field) else ()
