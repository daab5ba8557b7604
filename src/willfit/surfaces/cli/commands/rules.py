"""`willfit rules MODEL`."""

from __future__ import annotations

import json
from argparse import Namespace

from willfit.errors import BadInput
from willfit.quantities import parse_tokens
from willfit.surfaces.cli.parsing import Parser, add_context, add_json, add_model, add_source, if_given, whole

HELP = "The well-known rules of thumb beside our estimate, and why they differ."


def declare(parser: Parser) -> None:
    """Add the command's options."""
    add_model(parser)
    parser.add_argument(
        "-g", "--gpu", metavar="GPU", default="80GiB", help="a device to ask about (one of 80 GiB)"
    )
    add_context(parser)
    parser.add_argument(
        "-b", "--batch", metavar="N", type=whole("--batch"), default=1, help="sequences at once (1)"
    )
    parser.add_argument(
        "--cores", metavar="N", type=whole("--cores"), help="arithmetic units of a card, for its peak FLOP/s"
    )
    parser.add_argument("--clock", metavar="MHZ", type=whole("--clock"), help="clock of these units")
    add_source(parser)
    add_json(parser)


def run(given: Namespace) -> int:
    """Print the comparison."""
    from willfit.asking import find_subject, machine_of
    from willfit.engines.base import Question
    from willfit.surfaces.report import rules as report

    subject, is_gguf = find_subject(given.model, given.format, given.revision, given.offline)
    question = Question(if_given(given.context, parse_tokens), given.batch)
    if (given.cores is None) != (given.clock is None):
        raise BadInput("--cores and --clock go together", "write --cores 1280 --clock 1400")
    card = None if given.cores is None else (given.cores, given.clock)
    compared = report.compare(subject, machine_of(given.gpu), question, is_gguf, card)
    if given.json:
        print(json.dumps(report.as_json(compared)))
    else:
        from willfit.surfaces.report.console import console

        report.render(compared, console())
    return 0
