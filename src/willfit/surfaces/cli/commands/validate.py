"""`willfit validate CASES.jsonl...`."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path

from willfit.surfaces.cli.parsing import Parser, add_json

HELP = "Score predictions against published measurements."


def declare(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "files", metavar="CASES.jsonl", nargs="+", type=Path, help="files of published measurements"
    )
    parser.add_argument(
        "--held-out",
        action="store_true",
        help="fit the constants anew to the files' other models, so that none was fitted to what it predicts",
    )
    add_json(parser)


def run(given: Namespace) -> int:
    """Print the metrics."""
    from willfit.validation.run import validate_files

    score = validate_files(
        given.files,
        progress=not given.json and sys.stderr.isatty(),
        constants_from=given.files if given.held_out else (),
    )
    if given.json:
        print(json.dumps(score.as_json()))
    else:
        from willfit.surfaces.report.console import console
        from willfit.surfaces.report.scores import render

        render(score, console())
    return 0
