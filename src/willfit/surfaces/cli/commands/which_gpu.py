"""`willfit which-gpu MODEL`: every device that runs it, and how many."""

from __future__ import annotations

import json
from argparse import Namespace

from willfit.surfaces.cli.commands.estimate import declare_question, question_given
from willfit.surfaces.cli.parsing import Parser, add_model, whole

HELP = "Which devices run it? Of every kind the fewest that do."

#: Lines that are shown unasked.
_SHOWN = 24


def declare(parser: Parser) -> None:
    """Add the command's options."""
    add_model(parser)
    declare_question(parser)
    parser.add_argument(
        "--among",
        metavar="WORDS",
        help="only devices whose name, vendor or generation has these words: nvidia, rtx 40",
    )
    parser.add_argument("--most", metavar="N", type=whole("--most"), help="no more devices than this")
    parser.add_argument(
        "--all", action="store_true", help="also devices of which no number does, with the reason"
    )


def run(given: Namespace) -> int:
    """Print the devices; 0 if there is one, 1 if none does."""
    from willfit.asking import find_subject
    from willfit.engines.table import engine_name
    from willfit.hardware.table import matching
    from willfit.planning.which import which_devices
    from willfit.surfaces.report import which

    engine = None if given.engine is None else engine_name(given.engine)
    subject, is_gguf = find_subject(given.model, given.format, given.revision, given.offline, engine)
    devices = None if given.among is None else matching(given.among)
    question = question_given(given)
    found = which_devices(subject, question, engine, devices, is_gguf)
    if given.most is not None:
        found = [one for one in found if one.way is None or one.way.count <= given.most]
    able = [one for one in found if one.way is not None]
    if given.json:
        print(json.dumps(which.as_json(found if given.all else able)))
    else:
        from willfit.surfaces.report.console import console

        which.render(subject, question, found, console(), given.all, _SHOWN)
    return 0 if able else 1
