"""`willfit plan train MODEL`: the best devices, layouts and batches of a training run, ranked."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import TYPE_CHECKING

from willfit.surfaces.cli.parsing import Parser, add_json, add_model, whole
from willfit.surfaces.cli.training_options import declare_training, training_settings

if TYPE_CHECKING:
    from willfit.planning.training_search.searching import TrainingPlan

HELP = "What should it train on? Devices, schemes of sharding, checkpointing and batches that fit, ranked."

_GOALS = ("throughput", "price", "devices", "cost")

#: Options that a plan's own figures stand for.
_PLANNED = ("batch", "grad_accum", "checkpointing", "engine", "fsdp", "zero", "ddp", "distributed_optimizer")
_DEGREES = ("tp", "pp", "cp", "ep")


def declare(parser: Parser) -> None:
    """Add the command's options."""
    parser.epilog = (
        "What is left open is searched: how it is spread, what is kept for the backward pass, and the largest "
        "micro-batch. Full training runs in 16 bits beside a copy in 32 unless --recipe says otherwise. "
        "Figures for --need: devices, price, cost, full, headroom. "
        "Exit status: 0 something fits, 1 nothing does, 2 bad input."
    )
    add_model(parser)
    parser.add_argument(
        "--goal",
        choices=_GOALS,
        help="what the best is: the most tokens a second (default with --within), the lowest price of an hour or of a "
        "million tokens (default), the fewest devices",
    )
    parser.add_argument(
        "--need",
        metavar="LIMIT",
        action="append",
        default=[],
        help="what a plan must keep: 'price <= 30', 'full >= 20000', 'headroom >= 10%%'",
    )
    parser.add_argument("--within", metavar="GPU", help="no more than these devices: 32xh100")
    parser.add_argument(
        "--among", metavar="WORDS", help="only devices whose name, vendor or generation has these words"
    )
    parser.add_argument(
        "--prices", metavar="FILE", help="your prices: a CSV file with the columns device and usd_per_hour"
    )
    parser.add_argument(
        "--global-batch",
        metavar="N",
        type=whole("--global-batch"),
        help="sequences of a step over all devices; default: whatever a micro-batch on each makes",
    )
    declare_training(parser)
    parser.set_defaults(batch=None)
    parser.describe("--batch", "sequences of a device at once (the most that fit)")
    parser.describe("--grad-accum", "not here: it follows from --global-batch")
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit on the hub")
    parser.add_argument("--offline", action="store_true", help="never use the network")
    parser.add_argument("--most", metavar="N", type=whole("--most"), default=12, help="so many plans (12)")
    parser.add_argument("--rejected", action="store_true", help="also why other ways are not among them")
    add_json(parser)


def run(given: Namespace) -> int:
    """Print the plans; 0 if there is one, 1 if nothing fits."""
    from rich.progress import Progress

    from willfit.planning.training_plans import TrainingAsked, plan_training
    from willfit.surfaces.report import plan_train
    from willfit.surfaces.report.console import console, progress_console

    micro_batch, given.batch = given.batch, given.batch or 1
    asked = TrainingAsked(
        model=given.model,
        settings=training_settings(given, "transformers"),
        framework=given.engine,
        micro_batch=micro_batch,
        global_batch=given.global_batch,
        goal=given.goal,
        needs=tuple(given.need),
        within=given.within,
        among=given.among,
        prices=given.prices,
        revision=given.revision,
        offline=given.offline,
    )
    shown = progress_console()
    with Progress(console=shown, transient=True, disable=not shown.is_terminal) as progress:
        task = progress.add_task("judging ways to train", total=None)
        found = plan_training(asked, lambda done, count: progress.update(task, completed=done, total=count))
    commands = [_again(plan, given) for plan in found.found.plans[: given.most]]
    if given.json:
        print(json.dumps(plan_train.as_json(found, commands)))
    else:
        plan_train.render(found, commands, console(), given.most, given.rejected)
    return 0 if found.found.plans else 1


def _again(plan: TrainingPlan, given: Namespace) -> str:
    """The question that has a plan for its answer: `willfit train ...`."""
    from shlex import join

    from willfit.surfaces.report.plan import device_name

    settings, layout = plan.way.settings, plan.way.settings.layout
    device = device_name(plan.way.device).replace(", ", " ")
    words = ["willfit", "train", given.model, "--gpu", f"{plan.way.count}x{device}", *_said(given)]
    words += ["--engine", settings.framework, "--batch", str(settings.micro_batch)]
    if settings.gradient_accumulation > 1:
        words += ["--grad-accum", str(settings.gradient_accumulation)]
    words += ["--checkpointing", settings.checkpointing.kind or "none"]
    if given.recipe is None and settings.precision.recipe is not None:
        words += ["--recipe", settings.precision.recipe]
    schemes = {
        "ddp": ["--ddp"], "fsdp2": ["--fsdp", "2"], "zero2": ["--zero", "2"], "zero3": ["--zero", "3"],
        "distributed-optimizer": ["--distributed-optimizer"],
    }  # fmt: skip
    words += schemes.get(layout.data or "", [])
    for name in _DEGREES:
        if getattr(layout, name) > 1:
            words += [f"--{name}", str(getattr(layout, name))]
    return join([*words, *(["--sp"] if layout.sp else [])])


def _said(given: Namespace) -> list[str]:
    """The options of the run that were given, but for those that were searched."""
    parser = Parser("train", "")
    declare_training(parser)
    words: list[str] = []
    for action in parser._actions:  # argparse has no other way to list its options
        value = getattr(given, action.dest, None)
        if action.dest in (*_PLANNED, *_DEGREES, "sp", "help") or value in (None, action.default):
            continue
        words += [action.option_strings[-1]] if value is True else [action.option_strings[-1], str(value)]
    return words
