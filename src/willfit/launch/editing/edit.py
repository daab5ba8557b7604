"""Making changes in a command: flags replaced in place as they are spelled there, or put behind it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from willfit.errors import BadInput
from willfit.launch.editing.changes import Change, DropFlag, SetFlag, SetVariable, SetWord
from willfit.launch.editing.flags import Standing, standing
from willfit.launch.editing.grammars import Grammar, grammar_of
from willfit.launch.editing.place import Place, place_of
from willfit.launch.flags import Flag


class Splice(NamedTuple):
    """Words `at` to `end` are replaced by others; where both are the same, others are put in front."""

    at: int
    end: int
    words: tuple[str, ...]


def edited(words: Sequence[str], changes: Sequence[Change]) -> list[str]:
    """A command with changes made.

    Parameters
    ----------
    words
        The command, split as a shell would.
    changes
        What to change.

    Raises
    ------
    BadInput
        If the command starts no program whose flags are known, or the program has no such flag.
    """
    place = place_of(words)
    grammar = grammar_of(place.launcher)
    if grammar is None:
        raise BadInput(f"commands of {place.launcher.replace('_', '-')} are read, but not edited")
    splices = sorted(_splices(place, grammar, changes), key=lambda one: one.at)
    return _in_script(words, place, splices) if place.script else _spliced(words, splices)


def _splices(place: Place, grammar: Grammar, changes: Sequence[Change]) -> Iterator[Splice]:
    found = list(standing(place.words, place.start, grammar))
    for change in changes:
        match change:
            case SetFlag(name, value):
                yield from _flag(place, grammar, found, name, value)
            case DropFlag(name):
                flag = _known(grammar, name)
                yield from (Splice(one.at, one.end, ()) for one in found if one.flag == flag)
            case SetVariable(name, value):
                yield _variable(place, name, value)
            case SetWord(name, value):
                yield _word(place, name, value)


def _known(grammar: Grammar, name: str) -> Flag:
    dashed = "--" + name[2:].replace("_", "-") if name.startswith("--") else name
    flag = grammar.table.flags.get(name) or grammar.table.flags.get(dashed)
    if flag is None:
        raise BadInput(f"the program has no flag {name}")
    return flag


def _flag(
    place: Place, grammar: Grammar, found: Sequence[Standing], name: str, value: str | None
) -> Iterator[Splice]:
    flag = _known(grammar, name)
    given = [one for one in found if one.flag == flag]
    if given and value is None:
        last = given[-1]
        if not last.on:
            yield Splice(last.at, last.end, (name,))
        return
    if given:
        last = given[-1]
        assert value is not None
        if last.joined:
            yield Splice(last.at, last.end, (last.joined + value,))
        else:
            yield Splice(last.at + 1, last.end, (value,))
        return
    variable = _variable_of(place, grammar, flag)
    if variable is not None and value is not None:
        yield _variable(place, variable, value)
        return
    spelled = "--" + name[2:].replace("-", "_") if grammar.underscored and name.startswith("--") else name
    end = _end(place)
    yield Splice(end, end, (spelled,) if value is None else (spelled, value))


def _end(place: Place) -> int:
    """Where flags may be added: at the end, or in front of words that are not the program's own."""
    rest = range(place.start, len(place.words))
    return next((at for at in rest if place.words[at] == "--"), len(place.words))


def _variable_of(place: Place, grammar: Grammar, flag: Flag) -> str | None:
    """The variable that sets a flag in front of the program; None if none does."""
    names = [*flag.variables, *([flag.name[2:].replace("-", "_").upper()] if grammar.variables else [])]
    return next((name for name in names if _set_at(place, name) is not None), None)


def _set_at(place: Place, name: str) -> int | None:
    """Where a variable is set in front of the program."""
    before = range(min(place.start, len(place.words)))
    return next((at for at in reversed(before) if _sets(place.words[at], name)), None)


def _sets(word: str, name: str) -> bool:
    return re.fullmatch(rf"(?:--env=|-e=?)?{re.escape(name)}=.*", word, re.DOTALL) is not None


def _variable(place: Place, name: str, value: str) -> Splice:
    at = _set_at(place, name)
    if at is not None:
        return Splice(at, at + 1, (place.words[at].partition(f"{name}=")[0] + f"{name}={value}",))
    option = (place.option,) if place.option else ()
    return Splice(place.variables, place.variables, (*option, f"{name}={value}"))


def _word(place: Place, name: str, value: str) -> Splice:
    given = [at for at in range(place.start, len(place.words)) if place.words[at].startswith(f"{name}=")]
    if given:
        return Splice(given[-1], given[-1] + 1, (f"{name}={value}",))
    return Splice(len(place.words), len(place.words), (f"{name}={value}",))


def _spliced(words: Sequence[str], splices: Sequence[Splice]) -> list[str]:
    found: list[str] = []
    at = 0
    for splice in splices:
        found += [*words[at : splice.at], *splice.words]
        at = splice.end
    return [*found, *words[at:]]


def _in_script(words: Sequence[str], place: Place, splices: Sequence[Splice]) -> list[str]:
    """The command with the changes made in the text of its script."""
    assert place.script is not None
    index, spans = place.script
    text, parts, at = words[index], [], 0
    for splice in splices:
        written = " ".join(map(_quoted, splice.words))
        if splice.at == len(spans):
            start = end = spans[-1].end
            written = f" {written}"
        elif splice.at == splice.end:
            start = end = spans[splice.at].start
            written += " "
        else:
            start, end = spans[splice.at].start, spans[splice.end - 1].end
        parts += [text[at:start], written]
        at = end
    return [*words[:index], "".join([*parts, text[at:]]), *words[index + 1 :]]


def _quoted(word: str) -> str:
    """A word for a script: a variable's name stays in front of its value."""
    name, equals, value = word.partition("=")
    return f"{name}={shlex.quote(value)}" if equals and re.fullmatch(r"[\w-]+", name) else shlex.quote(word)
