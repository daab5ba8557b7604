"""`willfit train MODEL`: the peak memory of a training or fine-tuning run."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import TYPE_CHECKING

from willfit.surfaces.cli.commands.estimate import machine_given, status_of
from willfit.surfaces.cli.parsing import Parser, add_json, add_model, whole
from willfit.surfaces.cli.training_options import declare_training, ranks_asked, training_settings

if TYPE_CHECKING:
    from willfit.engines.base import Machine
    from willfit.training.settings import TrainingSettings

HELP = "Peak memory of training or fine-tuning, by device, and what would make it fit."


def declare(parser: Parser) -> None:
    """Add the command's options."""
    add_model(parser)
    parser.add_argument(
        "-g",
        "--gpu",
        metavar="GPU",
        help="devices, one rank each: rtx4090, 8xh100, 24GiB; default: this machine's",
    )
    declare_training(parser)
    parser.add_argument("--host-ram", metavar="SIZE", help="RAM of the host, such as 512GiB")
    parser.add_argument("--cpu", metavar="CPU", help="processor of the host")
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit on the hub")
    parser.add_argument("--offline", action="store_true", help="never use the network")
    add_json(parser)
    parser.add_argument(
        "--explain",
        action="store_true",
        help="show each term's formula with its numbers, every instant of a step, and what was filled in",
    )
    parser.add_argument(
        "--nodes", metavar="N", type=whole("--nodes"), default=1, help="machines with these devices (1)"
    )


def run(given: Namespace) -> int:
    """Print the answer; 0 if it fits, 1 if it does not, 2 if that cannot be judged."""
    from willfit.asking import train_about

    machine, settings = asked(given)
    answer = train_about(given.model, machine, settings, given.revision, given.offline).estimate
    if given.json:
        print(json.dumps(answer.as_json()))
    else:
        from willfit.surfaces.report.console import console
        from willfit.surfaces.report.training import render

        render(answer, console(), given.explain)
    return status_of(answer)


def asked(given: Namespace) -> tuple[Machine, TrainingSettings]:
    """The machine with a device for each rank, and the run.

    Raises
    ------
    BadInput
        If anything that was given cannot be used.
    """
    return machine_asked(given), training_settings(given)


def machine_asked(given: Namespace) -> Machine:
    """The machine with a device for each rank.

    Raises
    ------
    BadInput
        If a device is not known, or there is none.
    """
    from dataclasses import replace

    from willfit.asking import require_devices, spread_over

    machine = require_devices(machine_given(given))
    machine = replace(machine, devices=machine.devices * given.nodes)
    return spread_over(machine, ranks_asked(given, len(machine.devices)))
