"""`willfit what`: the models that a machine runs."""

from __future__ import annotations

import json
from argparse import Namespace

from willfit.engines.table import ENGINES
from willfit.planning.what import TASKS, usual_engine, what_runs
from willfit.quantities import parse_tokens
from willfit.surfaces.cli.commands.estimate import machine_given
from willfit.surfaces.cli.parsing import Parser, add_context, add_json, if_given, whole

HELP = "What runs here? Bundled models, the largest first, each in the finest format that fits."


def declare(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "-g",
        "--gpu",
        metavar="GPU",
        help="devices: rtx4090, 2x3090, m3-max-64g, 24GiB; default: this machine's",
    )
    parser.add_argument("--task", choices=TASKS, default="chat", help="what they shall be good for (chat)")
    add_context(parser)
    parser.add_argument(
        "-u", "--users", metavar="N", type=whole("--users"), default=1, help="sequences at once (1)"
    )
    parser.add_argument(
        "--kv-dtype", metavar="DTYPE", default="auto", help="dtype of the KV cache, such as fp8"
    )
    parser.add_argument(
        "-e", "--engine", metavar="ENGINE",
        help=f"{', '.join(ENGINES)}; default: what people use on such devices",
    )  # fmt: skip
    parser.add_argument(
        "--engine-version", metavar="VERSION", help="such as 0.25.1; default: the newest that is known"
    )
    parser.add_argument("--most", metavar="N", type=whole("--most"), default=20, help="so many models (20)")
    parser.add_argument("--host-ram", metavar="SIZE", help="RAM of the host, such as 64GiB")
    parser.add_argument("--cpu", metavar="CPU", help="processor of the host")
    add_json(parser)


def run(given: Namespace) -> int:
    """Print the models; 0 if there is one, 1 if none fits."""
    from rich.progress import track

    from willfit.asking import find_subject, require_devices
    from willfit.engines.base import Question
    from willfit.engines.table import engine_name
    from willfit.surfaces.report import what
    from willfit.surfaces.report.console import console, progress_console

    machine = require_devices(machine_given(given))
    engine = usual_engine(machine) if given.engine is None else engine_name(given.engine)
    context = if_given(given.context, parse_tokens)
    question = Question(context, given.users, given.kv_dtype, given.engine_version)
    runs = what_runs(
        machine, question, engine,
        lambda model, name: find_subject(model, name, offline=True, engine=engine)[0],
        given.task, given.most,
    )  # fmt: skip
    shown = progress_console()
    found = list(
        track(runs, "asking", total=given.most, console=shown, transient=True, disable=not shown.is_terminal)
    )
    if given.json:
        print(json.dumps(what.as_json(found)))
    else:
        what.render(found, machine, question, console())
    return 0 if found else 1
