"""`willfit compare A B`: two questions, and what lies between their answers."""

from __future__ import annotations

import json
import shlex
from argparse import Namespace
from typing import TYPE_CHECKING

from willfit.errors import BadInput
from willfit.surfaces.cli.commands import estimate
from willfit.surfaces.cli.parsing import Parser
from willfit.surfaces.cli.words import DEFAULT_COMMAND, arranged

if TYPE_CHECKING:
    from willfit.asking import Answer

HELP = "Two questions side by side: the difference in bytes, term by term, and why."

#: Options of the comparison itself, which no side has of its own.
_OF_BOTH = ("json", "explain")


def declare(parser: Parser) -> None:
    """Add the command's options."""
    parser.epilog = (
        'Put each side in quotes: willfit compare "MODEL --format fp8" "MODEL" --gpu l40s, or '
        'willfit compare --gpu h100 "--engine-version 0.19 vllm serve MODEL" "--engine-version 0.20 vllm serve MODEL". '
        "A side may name its own --gpu, --engine-version, --context, --users and so on, before a launch command. "
        "Each term that differs comes with its causes, whose amounts add up to the difference. "
        "--json prints what `willfit schema comparison` describes. "
        "Exit status: 0 B fits, 1 B does not fit, 2 bad input or not enough known."
    )
    parser.advice = "put each of the two sides in quotes; willfit compare --help"
    for side in ("A", "B"):
        parser.add_argument(
            f"side_{side.lower()}",
            metavar=side,
            help="in quotes, a model with options or a launch command; options outside hold for both sides",
        )
    estimate.declare_options(parser)


def run(given: Namespace) -> int:
    """Print the comparison; 0 if B fits, 1 if it does not, 2 if that cannot be judged."""
    from willfit.comparing import compare

    shared = {name: value for name, value in vars(given).items() if not name.startswith("side_")}
    comparison = compare(*(_side(side, getattr(given, f"side_{side.lower()}"), shared) for side in "AB"))
    if given.json:
        print(json.dumps(comparison.as_json()))
    else:
        from willfit.surfaces.report.compare import render
        from willfit.surfaces.report.console import console

        render(comparison, console(), given.explain)
    return estimate.status_of(comparison.b)


def _side(side: str, text: str, shared: dict[str, object]) -> Answer:
    """The answer to one side.

    Raises
    ------
    BadInput
        If anything on that side, or outside of it, cannot be used.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise BadInput(f"side {side}: {str(error).lower()} in {text[:80]!r}") from None
    try:
        _, own, launch = arranged(words, ())
        parser = Parser(DEFAULT_COMMAND, estimate.HELP)
        estimate.declare(parser)
        given = parser.read(own, Namespace(**shared))
        for name in _OF_BOTH:
            if getattr(given, name) != shared[name]:
                raise BadInput(f"--{name} stands outside of the two questions")
        return estimate.answered(given, launch, estimate.machine_given(given))
    except BadInput as error:
        raise BadInput(f"side {side}: {error.message}", error.hint) from None
