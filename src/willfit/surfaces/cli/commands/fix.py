"""`willfit fix COMMAND`: the fewest edits that make a launch command fit."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence

from willfit.errors import BadInput
from willfit.surfaces.cli.commands.estimate import machine_given
from willfit.surfaces.cli.parsing import Parser, add_json, whole

HELP = (
    "The fewest edits that make a launch command fit. 0: fits as it is; 1: does not surely fit; 2: bad input."
)


def declare(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "command",
        metavar="COMMAND...",
        nargs="?",
        help="the command that you were going to run, behind the options",
    )
    parser.add_argument(
        "-g",
        "--gpu",
        metavar="GPU",
        help="devices: rtx4090, 8xh100, 2x3090+4090, 24GiB; default: this machine's",
    )
    parser.add_argument(
        "-u", "--users", metavar="N", type=whole("--users"), default=1, help="sequences at once (1)"
    )
    parser.add_argument(
        "--engine-version", metavar="VERSION", help="such as 0.25.1; default: the newest that is known"
    )
    parser.add_argument("--host-ram", metavar="SIZE", help="RAM of the host, such as 64GiB")
    parser.add_argument("--cpu", metavar="CPU", help="processor of the host: x86, avx512, amx, arm, ...")
    parser.add_argument("--offline", action="store_true", help="never use the network")
    add_json(parser)


def run(given: Namespace, launch: Sequence[str]) -> int:
    """Print the edits; 0 if the command fits as it is, 1 if it does not surely fit, whether it can be fixed or not."""
    from willfit.asking import require_devices
    from willfit.fixing.command import fix_command
    from willfit.surfaces.report import fix as report

    if not launch:
        what = (
            "no launch command was given"
            if given.command is None
            else f"{given.command[:60]!r} is no command"
        )
        raise BadInput(what, "write willfit fix --gpu rtx4090 vllm serve MODEL ...")
    machine = require_devices(machine_given(given))
    found = fix_command(launch, machine, given.users, given.engine_version, given.offline)
    if given.json:
        print(json.dumps(report.as_json(found)))
    else:
        from willfit.surfaces.report.console import console

        report.render(found, console())
    return 0 if found.estimate.verdict == "fits" else 1
