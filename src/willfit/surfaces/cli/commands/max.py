"""`willfit max KNOB MODEL`: solving backwards for one number of a run."""

from __future__ import annotations

import argparse
import json
from argparse import Namespace
from collections.abc import Iterable
from typing import TYPE_CHECKING

from willfit.errors import BadInput
from willfit.surfaces.cli.commands import estimate, train
from willfit.surfaces.cli.parsing import Parser
from willfit.surfaces.cli.words import Arranged, arranged

if TYPE_CHECKING:
    from willfit.engines.base import AskedPrompt
    from willfit.planning.rows import Row

HELP = "How far can it go? The largest context, users, batch, rank, ... that fit; the fewest ranks, ..."

#: A word that may stand before the model of a training run.
_TRAIN = "train"


def declare(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "knob",
        metavar="KNOB",
        help="of serving: context, users, gpu-memory-utilization, max-num-seqs, max-num-batched-tokens, "
        "tensor-parallel (fewest ranks), n-gpu-layers, n-cpu-moe (fewest layers); of training: batch, seq-len, rank",
    )
    parser.add_argument(
        "words",
        metavar="MODEL ... | COMMAND...",
        nargs=argparse.REMAINDER,
        help="the model and options of willfit MODEL, or of willfit train; or options and a launch command, whose "
        "setting is replaced",
    )


def run(given: Namespace) -> int:
    """Print how far it goes; 0 if some of it fits, 1 if nothing does."""
    from willfit.planning import serving, training

    words = list(given.words)
    parts = arranged(words, ())
    if parts.launch:
        return _shown(*_of_command(given.knob, parts))
    trained = words[:1] == [_TRAIN]
    knob = None if trained else serving.knob_named(given.knob)
    if knob is not None:
        rows, given, prompt = _of_serving(knob.name, words)
        return _shown(rows, given, prompt)
    knob = training.knob_named(given.knob)
    if knob is not None:
        return _shown(*_of_training(knob.name, words[1:] if trained else words))
    raise _no_knob(given.knob, [*([] if trained else serving.KNOBS), *training.KNOBS])


def _no_knob(name: str, known: Iterable[str]) -> BadInput:
    return BadInput(f"there is no knob {name[:40]!r}", f"known: {', '.join(known)}")


def _of_command(name: str, parts: Arranged) -> tuple[list[Row], Namespace]:
    """How far a knob of a launch command goes, with all else as the command says it."""
    from willfit.asking import require_devices, run_of_command
    from willfit.engines.base import Question
    from willfit.planning import serving, training
    from willfit.planning.rows import serving_rows, training_rows

    parser = Parser(f"max {name}", HELP)
    estimate.declare(parser)
    given = parser.read(parts.words)
    estimate.require_no_question(given)
    machine = require_devices(estimate.machine_given(given))
    run = run_of_command(parts.launch, machine, given.engine_version, given.offline)
    settings = run.launch.settings
    if run.launch.engine == "training":
        knob = training.knob_named(name)
        if knob is None:
            raise _no_knob(name, training.KNOBS)
        return training_rows(knob.name, run.subject, run.machine, settings), given
    knob = serving.knob_named(name)
    if knob is None:
        raise _no_knob(name, serving.KNOBS)
    question = Question(users=given.users or 1)
    asked = serving.Serving(run.subject, run.machine, question, run.launch.engine, settings)
    return serving_rows(knob.name, asked, True), given


def _of_serving(name: str, words: list[str]) -> tuple[list[Row], Namespace, AskedPrompt | None]:
    from willfit.asking import find_subject, require_devices
    from willfit.engines.table import default_engine, engine_name
    from willfit.planning.rows import serving_rows
    from willfit.planning.serving import Serving

    parser = Parser(f"max {name}", HELP)
    estimate.declare(parser)
    given = parser.read(words)
    users_said = given.users is not None or given.prompt_file is not None
    machine = require_devices(estimate.machine_given(given))
    engine = None if given.engine is None else engine_name(given.engine)
    model, question = estimate.model_given(given), estimate.question_given(given)
    subject, is_gguf = find_subject(model, given.format, given.revision, given.offline, engine)
    chosen = engine or default_engine(subject, machine, is_gguf)
    asked = Serving(subject, machine, question, chosen)
    return serving_rows(name, asked, users_said), given, question.prompt


def _of_training(name: str, words: list[str]) -> tuple[list[Row], Namespace]:
    from willfit.asking import find_subject
    from willfit.planning.rows import training_rows

    parser = Parser(f"max {name}", HELP)
    train.declare(parser)
    given = parser.read(words)
    machine, settings = train.asked(given)
    subject, _ = find_subject(given.model, None, given.revision, given.offline)
    return training_rows(name, subject, machine, settings), given


def _shown(rows: list[Row], given: Namespace, prompt: AskedPrompt | None = None) -> int:
    from willfit.surfaces.report import rows as report

    if given.json:
        print(json.dumps(report.as_json(rows, prompt)))
    else:
        from willfit.surfaces.report.console import console

        report.render(rows, console(), given.explain, prompt)
    return 0 if any(row.found.likely is not None for row in rows) else 1
