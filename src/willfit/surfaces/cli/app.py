"""Which commands there are, and the help over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from willfit.errors import BadInput
from willfit.launch.table import programs_like
from willfit.surfaces.cli.parsing import Parser
from willfit.surfaces.cli.words import TAKE_PROGRAMS, arranged, first_positional

#: Modules of `commands/`, in the order of the help. A command is one module with `HELP`, `declare` and `run`,
#: and one entry here.
COMMANDS: tuple[str, ...] = (
    "estimate",
    "train",
    "fix",
    "max",
    "plan",
    "which-gpu",
    "what",
    "formats",
    "trace",
    "inspect",
    "compare",
    "sweep",
    "launch",
    "rules",
    "gpus",
    "models",
    "validate",
    "calibrate",
    "check-forms",
    "schema",
)

#: Commands of two words, whose second one is not a model: the module of both has a dash between them.
SECOND_WORDS = {"launch": ("train",), "plan": ("train",)}

_DESCRIPTION = (
    "Will it fit? GPU memory and host RAM of large language models, from config or file headers alone."
)
_USAGE = """willfit MODEL [--gpu GPU] [--context TOKENS] [--users N] [...]
       willfit [--gpu GPU] [...] vllm serve MODEL [...]
       willfit COMMAND [...]"""
_ENDING = "Exit status: 0 fits, 1 does not fit, 2 bad input or not enough known."


def main(words: Sequence[str]) -> int:
    """Run one command line and give its exit status.

    Raises
    ------
    BadInput
        If anything that was given cannot be used.
    """
    if not words:
        _overview().print_help()
        return 2
    if words[0] in ("-h", "--help", "--version"):
        _overview().parse_args(words[:1])
    command, rest, launch = arranged(words, COMMANDS)
    command, rest = _with_second_word(command, rest)
    module = _module(command)
    parser = Parser(
        command.replace("-", " ") if command not in COMMANDS else command,
        module.HELP,
        epilog=_ENDING if command == "estimate" else None,
    )
    module.declare(parser)
    try:
        given = parser.read(rest)
    except BadInput as error:
        raise _misspelt(rest) or error from None
    status: int = module.run(given, launch) if command in TAKE_PROGRAMS else module.run(given)
    return status


def _with_second_word(command: str, words: Sequence[str]) -> tuple[str, list[str]]:
    """The command with its second word, if it has one, and what is left."""
    at = first_positional(words)
    if at is None or words[at] not in SECOND_WORDS.get(command, ()):
        return command, list(words)
    return f"{command}-{words[at]}", [*words[:at], *words[at + 1 :]]


def _misspelt(words: Sequence[str]) -> BadInput | None:
    """What is wrong where the first word was meant as a program whose options follow; None if it was not."""
    at = first_positional(words)
    close = programs_like(words[at]) if at is not None else []
    if at is None or not close or at == len(words) - 1:
        return None
    return BadInput(f"{words[at][:60]!r} is no program that is known", f"did you mean {' or '.join(close)}?")


def _module(command: str) -> Any:
    return import_module(f"willfit.surfaces.cli.commands.{command.replace('-', '_')}")


def _overview() -> Parser:
    """The help of the program: the options of an estimate, which needs no command, and the commands."""
    from willfit import __version__

    parser = Parser("", _DESCRIPTION, usage=_USAGE, epilog=_ENDING)
    parser.add_argument("--version", action="version", version=f"willfit {__version__}")
    _module("estimate").declare(parser)
    commands = parser.add_argument_group("commands")
    for command in COMMANDS:
        commands.add_argument(command, help=_module(command).HELP, nargs="?")
    return parser
