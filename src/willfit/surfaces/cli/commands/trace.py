"""`willfit trace MODEL`, and `willfit trace -- python train.py`: one real step, byte by byte, with no GPU."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from willfit.errors import BadInput
from willfit.quantities import parse_tokens
from willfit.surfaces.cli.commands.estimate import machine_given
from willfit.surfaces.cli.parsing import Parser, add_json, whole
from willfit.surfaces.cli.training_options import declare_training, ranks_asked, training_settings

if TYPE_CHECKING:
    from willfit.allocator.settings import AllocatorSettings
    from willfit.engines.base import Machine
    from willfit.tracing.asking import Asked, Traced
    from willfit.tracing.child import Progress

HELP = (
    "One real step byte by byte, with no GPU: of training, of generation, or of your own program behind --."
)


def declare(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "model",
        metavar="MODEL | -- PROGRAM...",
        nargs="?",
        help="hub id, directory or config.json; or, behind --, the command that starts your own program",
    )
    parser.add_argument(
        "-g",
        "--gpu",
        metavar="GPU",
        help="the device that a rank runs on: rtx4090, 8xh100; default: this machine's, else none in particular",
    )
    declare_training(parser)
    generation = parser.add_argument_group("generation")
    generation.add_argument(
        "--generate", action="store_true", help="a prompt and the tokens after it, instead of training"
    )
    generation.add_argument(
        "--prompt-len", metavar="TOKENS", default="1024", help="tokens of a prompt (1024)"
    )
    generation.add_argument(
        "--new-tokens", metavar="TOKENS", default="128", help="tokens that are made (128)"
    )
    out = parser.add_argument_group("what comes out")
    out.add_argument(
        "--steps",
        type=whole("--steps", 1, 100),
        default=2,
        help="optimizer steps (2: states exist from the second on)",
    )
    out.add_argument(
        "--alloc-conf", metavar="CONF", help="as PYTORCH_ALLOC_CONF, which is taken where this is not given"
    )
    out.add_argument(
        "--snapshot", metavar="FILE", help="a memory snapshot that PyTorch's visualizer opens (.pickle)"
    )
    out.add_argument("--html", metavar="FILE", help="the timeline as a page of its own")
    out.add_argument("--timeline", metavar="FILE", help="the timeline as a picture (.svg)")
    out.add_argument(
        "--explain",
        action="store_true",
        help="show each term's formula, every phase and all large contributors",
    )
    add_json(parser)
    parser.add_argument("--host-ram", metavar="SIZE", help="RAM of the host, such as 512GiB")
    parser.add_argument("--cpu", metavar="CPU", help="processor of the host")
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit on the hub")
    parser.add_argument("--offline", action="store_true", help="never use the network")


def run(given: Namespace, program: Sequence[str]) -> int:
    """Print the answer; 0 if it fits or no device was named, 1 if it does not fit, 2 if that cannot be judged."""
    _writable(given)
    with _shown(quiet=given.json or bool(program)) as progress:
        traced = _traced(given, program, progress)
    _write(given, traced)
    estimate = traced.estimate
    if given.json:
        print(json.dumps(estimate.as_json()))
    else:
        from willfit.surfaces.report.console import console
        from willfit.surfaces.report.trace import render

        render(estimate, console(), given.explain)
    if not traced.judged:
        return 0
    return {"fits": 0, "tight": 0, "does_not_fit": 1, "unknown": 2}[estimate.verdict]


def _traced(given: Namespace, program: Sequence[str], progress: Callable[[Progress], None]) -> Traced:
    from willfit.tracing import asking

    machine, allocator = machine_given(given), asking.allocator_settings(given.alloc_conf)
    if program:
        if given.model is not None:
            raise BadInput(
                f"{given.model!r} stands before --, and a program behind it", "leave one of the two out"
            )
        asked = asking.script(program, machine, allocator, steps=given.steps)
    elif given.model is None:
        raise BadInput(
            "no model was given",
            "write willfit trace MODEL --seq-len 2048, or willfit trace -- python train.py",
        )
    else:
        asked = asked_of(given, machine, allocator)
    return asking.answered(asked, progress)


def asked_of(given: Namespace, machine: Machine | None, allocator: AllocatorSettings) -> Asked:
    """The trace of a model that the options ask for.

    Parameters
    ----------
    machine
        None for no device in particular.

    Raises
    ------
    BadInput
        If the run cannot be as it is asked, or cannot be traced.
    """
    from willfit.tracing import asking

    settings = training_settings(given, "transformers")
    if given.generate:
        return asking.generation(
            given.model, machine, settings, allocator,
            prompt_len=parse_tokens(given.prompt_len), new_tokens=parse_tokens(given.new_tokens),
            revision=given.revision, offline=given.offline,
        )  # fmt: skip
    ranks = ranks_asked(given, len(machine.devices) if machine else 1)
    return asking.training(
        given.model, machine, settings, allocator, ranks=ranks, steps=given.steps,
        revision=given.revision, offline=given.offline,
    )  # fmt: skip


@contextmanager
def _shown(quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Show on standard error how far a trace is, if someone looks there."""
    from willfit.surfaces.report.console import progress_console

    console = progress_console()
    if quiet or not console.is_terminal:
        yield lambda _: None
        return
    with console.status("Starting torch", spinner="dots") as status:

        def told(progress: Progress) -> None:
            status.update(f"Tracing step {progress.step} · {progress.phase} · {progress.events:,} events")

        yield told


def _writable(given: Namespace) -> None:
    """See before anything runs that what was asked for can be written.

    Raises
    ------
    BadInput
        If a file's folder is not there.
    """
    for option in ("snapshot", "html", "timeline"):
        path = getattr(given, option)
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise BadInput(f"--{option} {path}: there is no folder {Path(path).parent}", "make it first")


def _write(given: Namespace, traced: Traced) -> None:
    """Write the files that were asked for."""
    for path, content in (
        (given.snapshot, traced.snapshot),
        (given.html, traced.page),
        (given.timeline, traced.picture),
    ):
        if path is None:
            continue
        try:
            Path(path).write_bytes(content())
        except OSError as error:
            raise BadInput(f"{path} cannot be written: {error.strerror}") from None
