"""Reading a command line as argparse-based programs do: long and short flags, `--flag=value`, `--no-flag`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from willfit.errors import BadInput

Arity = Literal["switch", "value", "values"]


@dataclass(slots=True)
class Scanned:
    """A command line, taken apart.

    Attributes
    ----------
    positionals
        Words that belong to no flag.
    options
        By flag name: a string, a list of strings, or True or False for a switch. The last one wins. Fields of
        JSON options (`--flag.key value`) stand under the flag with a dot behind it, as `key=value` each.
    """

    positionals: list[str] = field(default_factory=list)
    options: dict[str, str | list[str] | bool] = field(default_factory=dict)


def scan(
    words: Sequence[str], arities: Mapping[str, Arity], aliases: Mapping[str, str], program: str
) -> Scanned:
    """Take a command line apart.

    Parameters
    ----------
    words
        The words after the program's name.
    arities
        Long flags and what follows each.
    aliases
        Short flags and the long ones that they stand for.
    program
        How to call the program in an error.

    Raises
    ------
    BadInput
        For a flag that the program does not have, naming the closest that it has, or a missing value.
    """
    scanned = Scanned()
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if word == "--":
            scanned.positionals.extend(words[index:])
            break
        if not word.startswith("-") or word == "-" or _is_number(word):
            scanned.positionals.append(word)
            continue
        name, equals, joined = word.partition("=")
        has_value = bool(equals)
        name, dot, key = name.partition(".")
        name = aliases.get(name, name)
        if name.startswith("--"):
            name = "--" + name[2:].replace("_", "-")
        if dot and name in arities:
            # `--compilation-config.level 3`: one field of a JSON option.
            value, index = (joined, index) if has_value else _next(words, index, f"{name}.{key}", program)
            fields = scanned.options.setdefault(name + ".", [])
            if isinstance(fields, list):
                fields.append(f"{key}={value}")
            continue
        negated = "--" + name[5:] if name.startswith("--no-") else ""
        if name not in arities and negated in arities and arities[negated] == "switch":
            scanned.options[negated] = False
            continue
        if name not in arities:
            raise unknown_flag(name, arities, program)
        match arities[name]:
            case "switch":
                scanned.options[name] = joined.lower() not in ("false", "0") if has_value else True
            case "value":
                value, index = (joined, index) if has_value else _next(words, index, name, program)
                scanned.options[name] = value
            case "values":
                values = [joined] if has_value else []
                while not has_value and index < len(words) and not words[index].startswith("-"):
                    values.append(words[index])
                    index += 1
                scanned.options[name] = values
    return scanned


def _next(words: Sequence[str], index: int, name: str, program: str) -> tuple[str, int]:
    if index >= len(words):
        raise BadInput(f"{program}: {name} needs a value")
    return words[index], index + 1


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def unknown_flag(name: str, arities: Mapping[str, Arity], program: str) -> BadInput:
    """What to raise for a flag that a program does not have, naming the closest that it has."""
    from difflib import get_close_matches

    close = get_close_matches(name, arities, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]}?" if close else "check the spelling, or leave it out"
    return BadInput(f"{program} has no flag {name}", hint)
