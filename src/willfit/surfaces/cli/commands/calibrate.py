"""`willfit calibrate CASES.jsonl...`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from willfit.errors import BadInput
from willfit.surfaces.cli.parsing import Parser

HELP = "Fit the constants that no rule gives, with the spread of their residuals."


def declare(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "files", metavar="CASES.jsonl", nargs="+", type=Path, help="files of published measurements"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="where to write them; default: print them"
    )


def run(given: Namespace) -> int:
    """Print or write the constants."""
    from willfit.validation.calibrate import calibration_of

    text = calibration_of(given.files)
    if given.output is None:
        print(text, end="")
        return 0
    try:
        given.output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"cannot write {given.output}: {error.strerror}") from error
    return 0
