"""`willfit schema`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from willfit.surfaces.cli.parsing import Parser

HELP = "The JSON Schema of what --json prints: of an estimate, or of a comparison."

_FOLDER = Path(__file__).parents[2]

#: The schemas by name.
SCHEMAS = ("estimate", "comparison")


def declare(parser: Parser) -> None:
    """Add the command's argument."""
    parser.add_argument(
        "schema", nargs="?", choices=SCHEMAS, default=SCHEMAS[0], help="estimate (the default) or comparison"
    )


def run(given: Namespace) -> int:
    """Print the schema."""
    print((_FOLDER / f"{given.schema}.schema.json").read_text(encoding="utf-8"), end="")
    return 0
