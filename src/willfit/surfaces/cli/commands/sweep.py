"""`willfit sweep GRID.yaml`: a grid of questions, into one Parquet file."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from willfit.errors import BadInput
from willfit.surfaces.cli.parsing import Parser, add_json, whole

if TYPE_CHECKING:
    from willfit.sweeping.options import Run
    from willfit.sweeping.sweep import Plan, Runner

HELP = "Many questions: a grid of options, on all processors or a Ray cluster, into a Parquet file."

_LOCAL, _RAY = "local", "ray"

#: As of other programs that someone interrupts.
_INTERRUPTED = 130


def declare(parser: Parser) -> None:
    """Add the command's options."""
    parser.epilog = (
        "A grid has run (estimate, train or trace), vary and fixed with the options of that command, and skip; "
        "src/willfit/sweeping/README.md describes it. What is done is kept in OUT.parts: the same command goes on "
        "where it was stopped. Exit status: 0 all points have a row, 2 bad input, 130 interrupted."
    )
    parser.add_argument("grid", metavar="GRID.yaml", help="what is asked: which options vary, which stay")
    parser.add_argument(
        "-o", "--out", metavar="FILE", help="the Parquet file (the grid's name, in this folder)"
    )
    parser.add_argument(
        "--on",
        metavar="WHERE",
        default=_LOCAL,
        help="local: processes of this machine; ray: the cluster of RAY_ADDRESS or of this machine; ray://HOST:PORT",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=whole("--workers", 1, 100_000),
        help="processes, or chunks under way on a cluster (one for each processor; two)",
    )
    add_json(parser)


def run(given: Namespace) -> int:
    """Answer every point; 0 if all have a row, 130 if someone interrupts."""
    from willfit.surfaces.report import sweep as report
    from willfit.surfaces.report.console import console
    from willfit.sweeping.grid import read_grid
    from willfit.sweeping.identity import require_parquet
    from willfit.sweeping.sweep import planned, swept

    grid = read_grid(Path(given.grid))
    runner = _runner(given, grid.run)
    require_parquet()
    out = Path(given.out or f"{Path(given.grid).stem}.parquet")
    if not out.absolute().parent.is_dir():
        raise BadInput(f"--out {out}: there is no folder {out.parent}", "make it first")
    plan = planned(grid, out)
    print(report.before(plan), file=sys.stderr)
    try:
        # What Ray says of nodes it prints where the answer alone belongs.
        with redirect_stdout(sys.stderr), _progress(plan) as told:
            done = swept(plan, runner, told)
    except KeyboardInterrupt:
        print(report.stopped(plan), file=sys.stderr)
        return _INTERRUPTED
    if given.json:
        print(json.dumps(report.as_json(done)))
    else:
        report.render(done, console())
    return 0


def _runner(given: Namespace, run: Run) -> Runner:
    """Who answers chunks.

    Raises
    ------
    BadInput
        If `--on` names nobody, or this machine lacks what the questions need.
    """
    if given.on == _LOCAL:
        from willfit.sweeping.identity import ready
        from willfit.sweeping.local import run_locally

        ready(run)
        return partial(run_locally, workers=given.workers or os.cpu_count() or 1)
    if given.on == _RAY or given.on.startswith("ray://"):
        from willfit.sweeping.on_ray import run_on_ray

        return partial(run_on_ray, run=run, address=given.on, workers=given.workers)
    raise BadInput(f"--on is {given.on!r}", "local, ray or ray://HOST:PORT")


@contextmanager
def _progress(plan: Plan) -> Iterator[Callable[[int], None]]:
    """Show on standard error how many points are done, if someone looks there."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from willfit.surfaces.report.console import progress_console
    from willfit.surfaces.report.sweep import rate

    shown = progress_console()
    if not shown.is_terminal or plan.finished:
        yield lambda _: None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=shown, transient=True) as progress:
        task = progress.add_task("", total=plan.points_left, rate="")

        def told(points: int) -> None:
            progress.advance(task, points)
            speed = progress.tasks[0].speed
            progress.update(task, rate=f"{rate(speed)} points/s" if speed else "")

        yield told
