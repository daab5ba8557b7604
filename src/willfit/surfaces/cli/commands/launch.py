"""`willfit launch MODEL`: the command that starts what was asked about, if it fits."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from willfit.launch.writing.forms import FORMS
from willfit.launch.writing.table import WRITERS
from willfit.quantities import format_bytes
from willfit.surfaces.cli.commands.estimate import declare_options, machine_given, question_given, status_of
from willfit.surfaces.cli.parsing import Parser, add_model

if TYPE_CHECKING:
    from willfit.estimate import Estimate
    from willfit.launch.writing.written import Order, Written

HELP = "The command that starts a model, each flag with its reason; as compose, manifest, Modelfile, ... too."


def declare(parser: Parser) -> None:
    """Add the command's options."""
    parser.epilog = (
        f"Engines: {', '.join(WRITERS)}. `willfit launch train MODEL` writes a training run's command. "
        "What does not fit has no command: a line says what would. Asked about again, a command has the same "
        "estimate: willfit --gpu 2xl40s vllm serve MODEL ... "
        "Exit status: 0 fits, 1 does not fit, 2 bad input or not enough known."
    )
    add_model(parser)
    declare_options(parser)
    add_form(parser)


def add_form(parser: Parser) -> None:
    """In which form the command is wanted."""
    parser.add_argument(
        "--as",
        dest="form",
        choices=FORMS,
        default="command",
        help="command (that can be pasted), compose, kubernetes; or a file beside it alone: modelfile, yaml, json",
    )


def run(given: Namespace) -> int:
    """Print the command; 0 if it fits, 1 if it does not, 2 if that cannot be judged."""
    from willfit.asking import require_devices
    from willfit.launching import launch_about

    question = question_given(given)
    machine = require_devices(machine_given(given))
    found = launch_about(
        given.model, machine, question, given.engine, given.format, given.revision, given.offline
    )
    return hand_over(found.estimate, found.written, found.order, given)


def hand_over(estimate: Estimate, written: Written | None, order: Order, given: Namespace) -> int:
    """Print a command in the form that was asked for, or why there is none."""
    if given.json:
        found: dict[str, Any] = written.as_json() if written is not None else {"words": None}
        print(json.dumps({**found, "estimate": estimate.as_json()}))
    elif written is None:
        print(_why_not(estimate), file=sys.stderr)
    else:
        from willfit.launch.writing.forms import text_in
        from willfit.launch.writing.yaml_text import comment_text

        print(text_in(given.form, written, order, _about(estimate, order)), end="")
        if given.explain:
            for note in estimate.notes:
                print(comment_text(note))
    return status_of(estimate)


def _why_not(estimate: Estimate) -> str:
    """One line: what is too much, and the nearest thing that would do."""
    what = estimate.refusal or _too_much(estimate)
    verdict = "cannot be judged" if estimate.verdict == "unknown" else "does not fit"
    nearest = f"; nearest: {estimate.remedies[0]}" if estimate.remedies else ""
    return f"willfit: {estimate.model} on {_devices(estimate)} {verdict}: {what}{nearest}"


def _too_much(estimate: Estimate) -> str:
    for demand in estimate.demands:
        if demand.verdict == "does_not_fit":
            pool = max(0, demand.pool_bytes)
            return f"{demand.what} need {format_bytes(demand.needed_bytes)} of cache, {format_bytes(pool)} are there"
    for place in (*estimate.devices, estimate.host):
        if place.verdict == "does_not_fit" and place.usable_bytes is not None:
            of = f"{format_bytes(place.peak_bytes)} of {format_bytes(place.usable_bytes)}"
            return (
                f"{of} are needed on {place.name} {place.index}" if place.name != "host" else f"{of} of RAM"
            )
    return "how much memory there is is not known"


def _about(estimate: Estimate, order: Order) -> str:
    """What the command is for, in a line."""
    chance = estimate.probability
    sure = f", {chance:.0%} sure to fit" if chance is not None else ""
    peak = max((device.peak_bytes for device in estimate.devices), default=0)
    return f"{order.model} on {_devices(estimate)}: {format_bytes(peak)} of the fullest device{sure}"


def _devices(estimate: Estimate) -> str:
    counts: dict[str, int] = {}
    for device in estimate.devices:
        counts[device.name] = counts.get(device.name, 0) + 1
    return (
        " + ".join(f"{count} x {name}" if count > 1 else name for name, count in counts.items())
        or "no device"
    )
