"""`willfit inspect MODEL`."""

from __future__ import annotations

import json
from argparse import Namespace

from willfit.surfaces.cli.parsing import Parser, add_json, add_model, add_source

HELP = "What a model is: parameters by part, layers by kind, bytes per token."


def declare(parser: Parser) -> None:
    """Add the command's options."""
    add_model(parser)
    add_source(parser)
    add_json(parser)
    parser.add_argument("--tensors", action="store_true", help="list every tensor")


def run(given: Namespace) -> int:
    """Print the architecture."""
    from willfit.asking import find_subject
    from willfit.surfaces.report import inspection

    subject, _ = find_subject(given.model, given.format, given.revision, given.offline)
    if given.json:
        print(json.dumps(inspection.as_json(subject, given.tensors)))
    else:
        from willfit.surfaces.report.console import console

        inspection.render(subject, console(), given.tensors)
    return 0
