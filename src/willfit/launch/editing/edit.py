"""Making changes in a command: flags replaced in place as they are spelled there, or put behind it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from willfit.errors import BadInput
from willfit.launch.editing.changes import Change, DropFlag, SetFlag, SetParameter, SetVariable, SetWord
from willfit.launch.editing.files import SettingsFile, settings_file, with_key, with_new_key, with_parameter
from willfit.launch.editing.flags import Standing, standing
from willfit.launch.editing.grammars import Grammar, grammar_of
from willfit.launch.editing.place import Place, place_of
from willfit.launch.flags import Flag


class Splice(NamedTuple):
    """Words `at` to `end` are replaced by others; where both are the same, others are put in front."""

    at: int
    end: int
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Edited:
    """A command with changes made.

    Attributes
    ----------
    words
        The command.
    file
        The file that it takes settings from; None without.
    text
        What that would have to hold; None where it stays as it is.
    """

    words: tuple[str, ...]
    file: SettingsFile | None = None
    text: str | None = None


def edited(words: Sequence[str], changes: Sequence[Change]) -> Edited:
    """A command with changes made: where the setting stands now, in a word or in the file that the command names.

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
    made = _Making(place, grammar, settings_file(place))
    for change in changes:
        made.change(change)
    splices = sorted(made.splices, key=lambda one: (one.at, one.end))
    new = _in_script(words, place, splices) if place.script else _spliced(words, splices)
    return Edited(tuple(new), made.file, made.text)


class _Making:
    """Changes as they are made: splices of words, and the text of a file."""

    def __init__(self, place: Place, grammar: Grammar, file: SettingsFile | None) -> None:
        self.place, self.grammar, self.file = place, grammar, file
        self.found = list(standing(place.words, place.start, grammar))
        self.splices: list[Splice] = []
        self.text: str | None = None

    def change(self, change: Change) -> None:
        match change:
            case SetFlag(name, value):
                flag = _known(self.grammar, name)
                given = [one for one in self.found if one.flag == flag]
                if given or not self._filed(self._spellings(flag), name, value):
                    self.splices += _flag(self.place, self.grammar, given, flag, name, value)
            case DropFlag(name):
                flag = _known(self.grammar, name)
                self.splices += [Splice(one.at, one.end, ()) for one in self.found if one.flag == flag]
            case SetVariable(name, value):
                self.splices.append(_variable(self.place, name, value))
            case SetWord(name, value):
                given_word = any(word.startswith(f"{name}=") for word in self.place.words)
                if given_word or not self._filed([name], name, value):
                    self.splices.append(_word(self.place, name, value))
            case SetParameter(name, value):
                if self.file is None:
                    raise BadInput("the command names no Modelfile that is here")
                self.text = with_parameter(self.text or self.file.text, name, value)

    def _spellings(self, flag: Flag) -> list[str]:
        return [spelling for spelling, one in self.grammar.table.flags.items() if one == flag]

    def _filed(self, names: Sequence[str], name: str, value: str | None) -> bool:
        """Whether the setting stands in the command's file, where it is changed then."""
        if self.file is None:
            return False
        file = self.file._replace(text=self.text or self.file.text)
        text = with_key(file, names, value)
        if text is None and file.whole:
            text = with_new_key(file, name, value)
        self.text = text or self.text
        return text is not None


def _known(grammar: Grammar, name: str) -> Flag:
    dashed = "--" + name[2:].replace("_", "-") if name.startswith("--") else name
    flag = grammar.table.flags.get(name) or grammar.table.flags.get(dashed)
    if flag is None:
        raise BadInput(f"the program has no flag {name}")
    return flag


def _flag(
    place: Place, grammar: Grammar, given: Sequence[Standing], flag: Flag, name: str, value: str | None
) -> Iterator[Splice]:
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
