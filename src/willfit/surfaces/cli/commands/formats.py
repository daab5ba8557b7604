"""`willfit formats MODEL`: every format that a model can be stored in."""

from __future__ import annotations

import json
from argparse import Namespace

from willfit.surfaces.cli.commands.estimate import declare_machine, machine_given
from willfit.surfaces.cli.parsing import Parser, add_context, add_json, add_model, add_place, if_given, whole

HELP = "In which format? Every quantization with its bytes, who loads it, and the finest that fits."


def declare(parser: Parser) -> None:
    """Add the command's options."""
    parser.epilog = (
        "Names are those that --format takes; bytes and verdicts are those of willfit MODEL --format NAME. "
        "Without a GPU, named or in this machine, engines and devices are shown that load a format at all. "
        "Exit status: 0 some format fits (or no GPU was asked about), 1 none does."
    )
    add_model(parser)
    declare_machine(parser)
    add_context(parser)
    parser.add_argument(
        "-u", "--users", metavar="N", type=whole("--users"), default=1, help="sequences at once (1)"
    )
    parser.add_argument(
        "--kv-dtype", metavar="DTYPE", default="auto", help="dtype of the KV cache, such as fp8"
    )
    add_place(parser)
    parser.add_argument("--all", action="store_true", help="also formats that do not fit on the devices")
    add_json(parser)


def run(given: Namespace) -> int:
    """Print the formats; 0 if one fits, 1 if none does."""
    from rich.progress import track

    from willfit.asking import find_subject
    from willfit.engines.base import Question
    from willfit.planning.advice import advise, ranked
    from willfit.quantities import parse_tokens
    from willfit.surfaces.report import formats
    from willfit.surfaces.report.console import console, progress_console

    machine = machine_given(given)
    question = Question(if_given(given.context, parse_tokens), given.users, given.kv_dtype)
    rows = advise(
        lambda name: find_subject(given.model, name, given.revision, given.offline)[0], machine, question
    )
    shown = progress_console()
    found = ranked(list(track(rows, "asking", console=shown, transient=True, disable=not shown.is_terminal)))
    if given.json:
        print(json.dumps(formats.as_json(found)))
    else:
        formats.render(found, machine, console(), given.all)
    return 0 if machine is None or any(one.finest for one in found) else 1
