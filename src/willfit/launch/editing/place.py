"""Where in a command the program stands whose flags count: behind variables, wrappers, in a container, in a script."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os.path import basename

from willfit.errors import BadInput
from willfit.launch.docker import inner_command
from willfit.launch.editing.script import Word, commands
from willfit.launch.shell import SHELLS
from willfit.launch.table import is_wrapped, reader_of, start_of, variables_before
from willfit.launch.training.processes import script_words
from willfit.launch.training.table import launcher_of


@dataclass(frozen=True, slots=True)
class Place:
    """Where a program stands in a command.

    Attributes
    ----------
    launcher
        The module that reads it.
    words
        The words among which it stands: those of the command, or of a script in it.
    start
        Where its own words begin: behind launchers of a training script.
    variables
        Where a variable for it is put.
    option
        What stands in front of a variable there: `-e` of a container.
    script
        The word of the command that is the script, and where each of `words` stands in it; None without.
    """

    launcher: str
    words: tuple[str, ...]
    start: int
    variables: int = 0
    option: str = ""
    script: tuple[int, tuple[Word, ...]] | None = None


def place_of(words: Sequence[str]) -> Place:
    """Find the program that a command starts.

    Raises
    ------
    BadInput
        If no launcher knows one.
    """
    return _found(tuple(words), 0)


def _found(words: tuple[str, ...], start: int) -> Place:
    """The program in the words from `start` on."""
    command = variables_before(words[start:])[1]
    start = len(words) - len(command)
    trainer = launcher_of(command)
    if trainer is not None:
        name = trainer.__name__.rpartition(".")[2]
        behind = len(script_words(command)) if name in ("hugging_face", "axolotl", "torchtitan") else 0
        return Place(name, words, len(words) - behind + 1 if behind > 1 else start + 1)
    if command and basename(command[0]) in SHELLS:
        return _in_script(words, start)
    module = None if is_wrapped(command) else reader_of(command)
    if module is None:
        further = start_of(command)
        if not further:
            raise BadInput("the command starts no program that is known")
        return _found(words, start + further)
    name = module.__name__.rpartition(".")[2]
    if name != "docker":
        return Place(name, words, start + 1)
    prefix, image = inner_command(command)
    inside = len(words) - len(command) + image + 1
    # Options of the container end at its image; what the image starts by itself stands in no word.
    place = _found((*prefix, *words[inside:]), 0)
    if place.script is not None:
        index, spans = place.script
        return replace(place, script=(index + inside - len(prefix), spans))
    own = max(inside, place.start + inside - len(prefix))
    return Place(place.launcher, words, own, inside - 1, "-e")


def _in_script(words: tuple[str, ...], start: int) -> Place:
    """The first program of a script that is known."""
    flag = next((at for at in range(start, len(words)) if re.fullmatch(r"-\w*c", words[at])), None)
    if flag is not None and flag + 1 < len(words):
        for spans in commands(words[flag + 1]):
            texts = tuple(word.text for word in spans)
            try:
                place = _found(texts, 0)
            except BadInput:
                continue
            if place.script is None:
                return replace(place, script=(flag + 1, tuple(spans)))
    raise BadInput("the script starts no program that is known")
