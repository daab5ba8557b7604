"""`willfit gpus [FILTER]`."""

from __future__ import annotations

import json
from argparse import Namespace

from willfit.surfaces.cli.parsing import Parser, add_json

HELP = "The devices that are known."


def declare(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "filter", metavar="FILTER", nargs="?", default="", help="part of a name, vendor or generation"
    )
    add_json(parser)


def run(given: Namespace) -> int:
    """Print the table."""
    from willfit.hardware.table import all_devices, matching
    from willfit.surfaces.report import devices as report

    found = matching(given.filter) if given.filter.strip() else all_devices()
    if given.json:
        print(json.dumps(report.as_json(found)))
    else:
        from willfit.surfaces.report.console import console

        report.render(found, console())
    return 0
