"""`willfit schema`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from willfit.surfaces.cli.parsing import Parser

HELP = "The JSON Schema of an estimate."

_FILE = Path(__file__).parents[2] / "estimate.schema.json"


def declare(parser: Parser) -> None:
    """The command has no options."""


def run(given: Namespace) -> int:
    """Print the schema."""
    print(_FILE.read_text(encoding="utf-8"), end="")
    return 0
