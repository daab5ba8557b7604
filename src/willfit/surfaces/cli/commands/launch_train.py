"""`willfit launch train MODEL`: the command that starts a training run, if it fits."""

from __future__ import annotations

from argparse import Namespace

from willfit.errors import BadInput
from willfit.launch.writing.tasks import TASKS, task_of
from willfit.launch.writing.training import LAUNCHERS
from willfit.surfaces.cli.commands import train
from willfit.surfaces.cli.commands.launch import add_form, hand_over
from willfit.surfaces.cli.parsing import Parser
from willfit.surfaces.cli.training_options import training_settings

HELP = "The command of a training run, with accelerate's or DeepSpeed's file, each argument with its reason."


def declare(parser: Parser) -> None:
    """Add the command's options: those of `willfit train`, where `--engine` is the launcher here."""
    parser.epilog = (
        "Scripts are TRL's and transformers': "
        f"--objective {', '.join(TASKS)}. The estimate is that of their trainers. "
        "Exit status: 0 fits, 1 does not fit, 2 bad input or not enough known."
    )
    train.declare(parser)
    parser.describe("--engine", f"the launcher: {', '.join(LAUNCHERS)} ({LAUNCHERS[0]})")
    add_form(parser)


def run(given: Namespace) -> int:
    """Print the command; 0 if it fits, 1 if it does not, 2 if that cannot be judged."""
    from willfit.launching import launch_training

    launcher, given.engine = given.engine or LAUNCHERS[0], None
    if launcher not in LAUNCHERS:
        raise BadInput(f"there is no launcher {launcher[:40]!r}", f"known: --engine {', '.join(LAUNCHERS)}")
    machine = train.machine_asked(given)
    settings = training_settings(given, task_of(given.objective).framework)
    found = launch_training(
        given.model, machine, settings, launcher, given.nodes, given.revision, given.offline
    )
    return hand_over(found.estimate, found.written, found.order, given)
