"""`willfit max KNOB MODEL`: solving backwards for one number of a run."""

from __future__ import annotations

import argparse
import json
from argparse import Namespace
from typing import TYPE_CHECKING

from willfit.errors import BadInput
from willfit.surfaces.cli.commands import estimate, train
from willfit.surfaces.cli.parsing import Parser

if TYPE_CHECKING:
    from willfit.engines.base import AskedPrompt
    from willfit.planning.rows import Row

HELP = "How far can it go? The largest context, users, batch, rank, ... that fit."

#: A word that may stand before the model of a training run.
_TRAIN = "train"


def declare(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "knob",
        metavar="KNOB",
        help="of serving: context, users, gpu-memory-utilization, n-gpu-layers; of training: batch, seq-len, rank",
    )
    parser.add_argument(
        "words",
        metavar="MODEL ...",
        nargs=argparse.REMAINDER,
        help="the model and options of willfit MODEL, or of willfit train",
    )


def run(given: Namespace) -> int:
    """Print how far it goes; 0 if some of it fits, 1 if nothing does."""
    from willfit.planning import serving, training

    words = list(given.words)
    trained = words[:1] == [_TRAIN]
    knob = None if trained else serving.knob_named(given.knob)
    if knob is not None:
        rows, given, prompt = _of_serving(knob.name, words)
        return _shown(rows, given, prompt)
    knob = training.knob_named(given.knob)
    if knob is not None:
        return _shown(*_of_training(knob.name, words[1:] if trained else words))
    known = training.KNOBS if trained else {**serving.KNOBS, **training.KNOBS}
    raise BadInput(f"there is no knob {given.knob[:40]!r}", f"known: {', '.join(known)}")


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
