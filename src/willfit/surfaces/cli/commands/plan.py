"""`willfit plan MODEL`: the best devices, layouts and formats for a load, ranked."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from willfit.errors import BadInput
from willfit.surfaces.cli.parsing import Parser, add_context, add_json, add_model, whole
from willfit.surfaces.cli.prompt import add_prompt, length_given

if TYPE_CHECKING:
    from willfit.launching import Launchable
    from willfit.planning.serving_plans import Planned

HELP = "What should it run on? Devices, counts, layouts, formats and cache dtypes that fit, ranked."

_GOALS = ("price", "devices", "throughput", "latency", "cost", "context")


def declare(parser: Parser) -> None:
    """Add the command's options."""
    parser.epilog = (
        "Figures for --need: devices, price, cost, users, first-token, per-user, throughput, full, bits, cache-bits, "
        "headroom. Exit status: 0 something fits, 1 nothing does, 2 bad input."
    )
    add_model(parser)
    add_context(parser)
    add_prompt(parser)
    parser.add_argument(
        "-u", "--users", metavar="N", type=whole("--users"),
        help="sequences at once (1, or as many as there are prompts)",
    )  # fmt: skip
    parser.add_argument(
        "--goal",
        choices=_GOALS,
        help="what the best is: the lowest price (default), the fewest devices, the most tokens a second of all users "
        "that fit (default with --within) or of each user, the lowest price of a million tokens, the longest context",
    )
    parser.add_argument(
        "--need",
        metavar="LIMIT",
        action="append",
        default=[],
        help="what a plan must keep: 'per-user >= 20', 'first-token <= 2s', 'price <= 30', 'headroom >= 10%%'",
    )
    parser.add_argument(
        "--within", metavar="GPU", help="no more than these devices: 8xh100, or 4xl40s,2xa100-80g"
    )
    parser.add_argument(
        "--among", metavar="WORDS", help="only devices whose name, vendor or generation has these words"
    )
    parser.add_argument(
        "--host-ram",
        metavar="SIZE",
        help="RAM beside the devices of --within, for layers that these do not hold",
    )
    parser.add_argument("--mig", action="store_true", help="MIG slices of cards as well")
    parser.add_argument(
        "--prices", metavar="FILE", help="your prices: a CSV file with the columns device and usd_per_hour"
    )
    parser.add_argument("-e", "--engine", metavar="ENGINE", help="default: what people use on each device")
    parser.add_argument(
        "--engine-version", metavar="VERSION", help="such as 0.25.1; default: the newest that is known"
    )
    parser.add_argument(
        "-f",
        "--format",
        metavar="FORMATS",
        help="of the weights: stored,fp8,awq; default: what the engine runs",
    )
    parser.add_argument(
        "--kv-dtype", metavar="DTYPES", help="of the cache: auto,fp8; default: both where the engine has them"
    )
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit on the hub")
    parser.add_argument("--offline", action="store_true", help="never use the network")
    parser.add_argument("--most", metavar="N", type=whole("--most"), default=12, help="so many plans (12)")
    parser.add_argument("--rejected", action="store_true", help="also why other devices are not among them")
    parser.add_argument("--picture", metavar="FILE", help="draw what is worth its price, as SVG")
    add_json(parser)


def run(given: Namespace) -> int:
    """Print the plans; 0 if there is one, 1 if nothing fits."""
    from willfit.planning.serving_plans import Asked, plan_serving
    from willfit.surfaces.report import plan
    from willfit.surfaces.report.console import console, progress_console

    context, users, prompt = length_given(given)
    asked = Asked(
        model=given.model,
        context=context,
        users=users,
        goal=given.goal,
        needs=tuple(given.need),
        within=given.within,
        among=given.among,
        mig=given.mig,
        host_ram=given.host_ram,
        prices=given.prices,
        engine=given.engine,
        version=given.engine_version,
        formats=_listed(given.format, "--format"),
        kv_dtypes=_listed(given.kv_dtype, "--kv-dtype"),
        revision=given.revision,
        offline=given.offline,
        most=given.most,
    )
    if given.picture is not None and not given.picture.lower().endswith(".svg"):
        raise BadInput(f"{given.picture[:80]}: the picture is an SVG file", "name it front.svg")
    if given.host_ram is not None and given.within is None:
        raise BadInput("--host-ram is of the machine that --within names", "add --within 2xrtx4090")
    shown = progress_console()
    with shown.status("judging") as status:
        found = plan_serving(asked, lambda engine: status.update(f"judging ways on {engine}"))
    if given.picture is not None:
        _draw(found, given.picture)
    started = _started(found) if found.plans else None
    if given.json:
        counted = {} if prompt is None else {"prompt": prompt.as_json()}
        print(json.dumps({**plan.as_json(found), **counted, "start": _start_json(started)}))
    else:
        plan.render(found, console(), given.rejected, prompt)
        if started is not None:
            print(_command(found, started), end="")
    fits = any(one.estimate.verdict == "fits" for one in found.together)
    return 0 if found.plans or fits else 1


def _listed(text: str | None, option: str) -> tuple[str, ...] | None:
    if text is None:
        return None
    words = tuple(word.strip() for word in text.split(","))
    if not all(words):
        raise BadInput(f"{option} {text[:40]!r} has an empty word", "write them with commas: stored,fp8,awq")
    return words


def _started(found: Planned) -> Launchable | BadInput:
    """How the first plan is started, or why no command is known."""
    from willfit.launching import launch_way

    asked, way = found.asked, found.plans[0][0].way
    name = found.names[id(way.subject)]
    try:
        return launch_way(asked.model, way, found.question, name, asked.revision, asked.offline)
    except BadInput as error:
        return error


def _start_json(started: Launchable | BadInput | None) -> dict[str, Any] | None:
    if isinstance(started, BadInput):
        return {"words": None, "why": str(started)}
    return None if started is None or started.written is None else started.written.as_json()


def _command(found: Planned, started: Launchable | BadInput) -> str:
    from willfit.launch.writing.forms import text_in

    servers = found.plans[0][0].way.layout.replicas
    about = f"the first plan{f', on each of {servers} servers' if servers > 1 else ''}"
    if isinstance(started, BadInput):
        return f"# {about}: {started.message}{f' ({started.hint})' if started.hint else ''}\n\n"
    return f"{text_in('command', started.written, started.order, about)}\n" if started.written else ""


def _draw(found: Planned, path: str) -> None:
    from willfit.surfaces.report.front import picture

    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(picture(found))
    except OSError as error:
        raise BadInput(f"{path[:80]} cannot be written: {error.strerror}", "name another file") from None
