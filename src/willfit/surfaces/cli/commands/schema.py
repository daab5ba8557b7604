"""`willfit schema`."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from willfit.surfaces.cli.parsing import Parser

HELP = "The JSON Schema of what --json prints: of an estimate, or of a comparison."

_FOLDER = Path(__file__).parents[2]


def declare(parser: Parser) -> None:
    """Add the command's argument."""
    parser.add_argument(
        "schema",
        nargs="?",
        choices=("estimate", "comparison"),
        default="estimate",
        help="estimate (the default) or comparison",
    )


def run(given: Namespace) -> int:
    """Print the schema."""
    schema = estimate_schema() if given.schema == "estimate" else comparison_schema()
    print(json.dumps(schema, indent=2, ensure_ascii=False))
    return 0


def estimate_schema() -> dict[str, Any]:
    """The schema of an estimate."""
    return _read("estimate")


def comparison_schema() -> dict[str, Any]:
    """The schema of a comparison, with that of the two estimates inside of it."""
    comparison, estimate = _read("comparison"), estimate_schema()
    within = estimate.pop("$defs")
    estimate.pop("$schema")
    return comparison | {"$defs": comparison["$defs"] | within | {"estimate": estimate}}


def _read(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((_FOLDER / f"{name}.schema.json").read_text(encoding="utf-8"))
    return schema
