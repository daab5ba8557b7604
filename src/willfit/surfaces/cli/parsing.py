"""Options that several commands share, and a parser whose errors are one clear line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from willfit.errors import BadInput

Read = TypeVar("Read")

_ARGUMENT = re.compile(r"argument (?P<names>\S+): (?P<what>.*)", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises `BadInput` for a wrong command line, naming the closest option.

    Parameters
    ----------
    command
        The command's name; empty for the program itself.
    description
        What it does.
    """

    def __init__(self, command: str, description: str, **options: Any) -> None:
        #: What to do about a word too many, or too few.
        self.advice = f"willfit {command} --help".replace("  ", " ")
        super().__init__(
            prog=f"willfit {command}".rstrip(),
            description=description,
            allow_abbrev=False,
            formatter_class=Help,
            **options,
        )

    def error(self, message: str) -> NoReturn:
        """Raise `BadInput` instead of printing the usage and leaving."""
        match = _ARGUMENT.match(message)
        if match is None:
            raise BadInput(message, self.advice)
        name = match["names"].split("/")[-1]
        if match["what"].startswith("expected"):
            raise BadInput(f"{name} needs a value", f"{self.prog} --help")
        if match["what"].startswith("ignored explicit argument"):
            raise BadInput(f"{name} takes no value")
        raise BadInput(f"{name}: {match['what']}")

    def read(self, words: Sequence[str], start: argparse.Namespace | None = None) -> argparse.Namespace:
        """Parse the words of a command line.

        Parameters
        ----------
        start
            What holds where the words say nothing, instead of the defaults.

        Raises
        ------
        BadInput
            For an option that the command does not have, a missing value or a word too many.
        """
        given, rest = self.parse_known_args(words, start or argparse.Namespace())
        for word in rest:
            if word.startswith("-") and word != "-":
                raise self._no_such_option(word.partition("=")[0])
        if rest:
            raise BadInput(f"{rest[0]!r} is one word too many", self.advice)
        for action in self._actions:
            if action.option_strings and getattr(given, action.dest, None) == "":
                raise BadInput(f"{action.option_strings[-1]} is empty", f"{self.prog} --help")
        return given

    def describe(self, option: str, words: str) -> None:
        """Give an option another help, where a command takes it for something else than the one it is shared with."""
        for action in self._actions:
            if option in action.option_strings:
                action.help = words

    def _no_such_option(self, name: str) -> BadInput:
        from difflib import get_close_matches

        known = [option for action in self._actions for option in action.option_strings]
        close = [option for option in known if option.endswith(name[1:])]
        close = close or get_close_matches(name, known, n=1, cutoff=0.7)
        return BadInput(
            f"there is no option {name}", f"did you mean {close[0]}?" if close else f"{self.prog} --help"
        )


class Help(argparse.HelpFormatter):
    """Help with room for the longest option."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)


def whole(name: str, least: int = 1, most: int = 10**9) -> Callable[[str], int]:
    """A reader of whole numbers.

    Parameters
    ----------
    name
        The option, for the error.
    """

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise BadInput(f"{name} is {text[:40]!r}, expected a whole number") from None
        if not least <= value <= most:
            raise BadInput(f"{name} is {text[:40]}, expected {least:,} to {most:,}")
        return value

    return read


def add_model(parser: Parser) -> None:
    """The model to ask about."""
    parser.add_argument(
        "model", metavar="MODEL", help="hub id, directory, config.json, .safetensors or .gguf file, or URL"
    )


def add_source(parser: Parser) -> None:
    """How the model is found and stored."""
    parser.add_argument(
        "-f", "--format", metavar="FORMAT", help="weights stored so: bf16, fp8, awq, gptq, nf4, nvfp4, ..."
    )
    add_place(parser)


def add_place(parser: Parser) -> None:
    """Where the model is found."""
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit on the hub")
    parser.add_argument("--offline", action="store_true", help="never use the network")


def add_context(parser: Parser) -> None:
    """How long a sequence is."""
    parser.add_argument(
        "-c", "--context", metavar="TOKENS", help="tokens of the longest sequence, such as 32k"
    )


def add_json(parser: Parser) -> None:
    """Machine-readable output."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a picture")


def if_given(value: str | None, read: Callable[[str], Read]) -> Read | None:
    """The value of an option as read, None if it was not given. An empty value is given, and read as such."""
    return None if value is None else read(value)
