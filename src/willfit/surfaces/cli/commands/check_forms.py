"""`willfit check-forms`: the closed form of training over the trace, for a grid of models and recipes."""

from __future__ import annotations

import json
from argparse import Namespace

from willfit.errors import BadInput
from willfit.surfaces.cli.parsing import Parser, add_json, whole

HELP = "Hold the closed form of training against the trace, over a grid of models and recipes."


def declare(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "words", metavar="WORD", nargs="*", help="only points whose name has all of these: llama lora bf16"
    )
    parser.add_argument(
        "--every", metavar="N", type=whole("--every"), default=1, help="only each N-th point (1)"
    )
    add_json(parser)


def run(given: Namespace) -> int:
    """Print what differs; 0 if 95 % of the points agree to 1 %, else 1."""
    from rich.progress import track

    from willfit.surfaces.report.console import console, progress_console
    from willfit.surfaces.report.forms import render
    from willfit.tracing.forms import compared, grid

    points = [point for point in grid() if set(given.words) <= set(point.name.split())][:: given.every]
    if not points:
        raise BadInput(
            f"no point of the grid has all of {' '.join(given.words)}", "willfit check-forms llama lora bf16"
        )
    rows = list(track(compared(points), "Tracing", len(points), console=progress_console(), transient=True))
    if given.json:
        print(json.dumps([
            {"point": row.point.name, "closed_form_bytes": row.closed_form, "traced_bytes": row.traced,
             "reason": row.reason}
            for row in rows
        ]))  # fmt: skip
    else:
        render(rows, console())
    answered = [row for row in rows if not row.reason]
    return 0 if answered and sum(row.close for row in answered) >= 0.95 * len(answered) else 1
