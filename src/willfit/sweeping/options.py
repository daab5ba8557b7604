"""The options that a point of a grid may set: those of the command that asks the same question once.

The command's own parser declares them, so that a sweep has no second list of names, types and defaults. It is the one
place where this folder looks at the command line.
"""

from __future__ import annotations

from argparse import Action, Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from typing import Literal

from willfit.errors import BadInput
from willfit.quantities import parse_tokens
from willfit.surfaces.cli.parsing import Parser

#: What may be asked of each point: a command of `willfit`.
Run = Literal["estimate", "train", "trace"]
RUNS: tuple[Run, ...] = ("estimate", "train", "trace")

#: A value of an option; None where the option is not given, a truth value for one that takes none.
Value = str | int | float | bool | None

#: What a column holds.
Kind = Literal["switch", "whole", "number", "tokens", "text"]

#: Options that say how an answer is shown, and not what is asked.
_SHOWING = frozenset(("help", "json", "explain", "snapshot", "html", "timeline"))

#: Options whose values are tokens, written as 32k too.
_TOKENS = frozenset(("context", "seq_len", "prompt_len", "new_tokens"))

#: How `Namespace` calls the model, which stands on a command line without a name.
MODEL = "model"
#: The option that names devices.
GPU = "gpu"


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Attributes
    ----------
    name
        Of its column: `seq_len`.
    flag
        On the command line: `--seq-len`.
    kind
        What its values are.
    alone
        The value that is meant where the option stands without one; None if it needs one.
    choices
        The values that it takes; empty for any.
    """

    name: str
    flag: str
    kind: Kind
    alone: str | None = None
    choices: tuple[str, ...] = ()

    def read(self, value: object, where: str) -> Value:
        """A value as YAML has it, checked.

        Parameters
        ----------
        where
            The key in the grid, for the error.

        Raises
        ------
        BadInput
            If the option takes no such value.
        """
        if value is None:
            return None
        if isinstance(value, bool):
            return self._read_truth(value, where)
        if self.kind == "switch":
            raise BadInput(f"{where} is {value!r}, but {self.flag} takes no value", "write true or false")
        if not isinstance(value, (str, int, float)):
            raise BadInput(f"{where} is {value!r}, expected one value")
        if self.kind == "tokens":
            with blamed_on(where):
                return parse_tokens(str(value))
        if self.kind in ("whole", "number"):
            try:
                return int(str(value)) if self.kind == "whole" else float(value)
            except ValueError:
                kind = "whole number" if self.kind == "whole" else "number"
                raise BadInput(f"{where} is {value!r}, expected a {kind}") from None
        text = str(value).strip()
        if not text:
            raise BadInput(f"{where} is empty", "write null to leave an option out")
        if self.choices and text not in self.choices:
            raise BadInput(f"{where} is {text!r}", f"choose from {', '.join(self.choices)}")
        return text

    def _read_truth(self, value: bool, where: str) -> Value:
        if self.kind == "switch":
            return value
        if value and self.alone is not None:
            return self.alone
        meant = "on, yes or true" if value else "off, no or false"
        raise BadInput(f"{where} is a truth value to YAML", f"put {meant} in quotes if the word is meant")


@cache
def parser_of(run: Run) -> Parser:
    """The parser of the command that asks one question of this kind."""
    module = import_module(f"willfit.surfaces.cli.commands.{run}")
    parser = Parser(run, module.HELP)
    module.declare(parser)
    return parser


@cache
def options_of(run: Run) -> dict[str, Option]:
    """The options of a kind of question, by each name that the command line has for them, without dashes."""
    found = {MODEL: Option(MODEL, "MODEL", "text")}
    for action in parser_of(run)._actions:
        names = [text.removeprefix("--") for text in action.option_strings if text.startswith("--")]
        if names and action.dest not in _SHOWING:
            option = Option(
                action.dest, f"--{names[0]}", _kind(action),
                str(action.const) if action.nargs == "?" else None, tuple(map(str, action.choices or ())),
            )  # fmt: skip
            found |= dict.fromkeys(names, option)
    return found


def option_named(run: Run, name: str, where: str) -> Option:
    """The option of that name.

    Parameters
    ----------
    where
        The part of the grid that names it, for the error.

    Raises
    ------
    BadInput
        If there is none; the hint has the closest.
    """
    options = options_of(run)
    if name in options:
        return options[name]
    close = get_close_matches(name.replace("_", "-").lstrip("-"), options, n=1, cutoff=0.6)
    command = "willfit" if run == "estimate" else f"willfit {run}"
    hint = f"did you mean {close[0]}?" if close else f"{command} --help lists them"
    raise BadInput(f"{where}: {command} has no option {name!r} that a grid can set", hint)


def parsed(run: Run, options: Mapping[str, Value]) -> Namespace:
    """The options of a point as the command line would have them.

    Parameters
    ----------
    options
        Values by `Option.name`.

    Raises
    ------
    BadInput
        If the command does not take them.
    """
    known = {option.name: option for option in options_of(run).values()}
    words = []
    for name, value in options.items():
        if name == MODEL or value is None or value is False:
            continue
        words.append(known[name].flag if value is True else f"{known[name].flag}={value}")
    # What begins with a dash is a model behind `--` only.
    return parser_of(run).read([*words, "--", str(options[MODEL])])


def _kind(action: Action) -> Kind:
    if action.nargs == 0:
        return "switch"
    if action.dest in _TOKENS:
        return "tokens"
    if action.type is float:
        return "number"
    return "text" if action.type is None else "whole"


@contextmanager
def blamed_on(where: str) -> Iterator[None]:
    """Put the key of a grid in front of what is wrong with its value."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{where}: {error.message}", error.hint) from None
