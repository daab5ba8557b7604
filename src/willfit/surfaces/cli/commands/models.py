"""`willfit models [FILTER]`."""

from __future__ import annotations

import json
from argparse import Namespace

from willfit.errors import BadInput
from willfit.surfaces.cli.parsing import Parser, add_json

HELP = "The models that are bundled and need no network."


def declare(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument("filter", metavar="FILTER", nargs="?", default="", help="part of an id")
    add_json(parser)


def run(given: Namespace) -> int:
    """Print the ids."""
    from willfit.checkpoints.catalogue import catalogue_ids

    ids = catalogue_ids(given.filter)
    if not ids:
        raise BadInput(f"no bundled model's id contains {given.filter!r}", "any hub id works as well")
    print(json.dumps(ids) if given.json else "\n".join(ids))
    return 0
