"""Trace every step of tests/data/traced_peaks.jsonl anew and write what torch was asked for at the peak.

    python tests/oracle/training/record_peaks.py [WORD...]

A line is a point: change one or add another, and have it traced. With words, only lines with all of them are. Needs the
libraries of `willfit[trace]`.
"""

from __future__ import annotations

import json
import pathlib
import sys
from dataclasses import replace

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "training"))

from traced_points import POINTS, Point, prepared_run, read

from willfit.allocator.replay import replay
from willfit.checkpoints.locate import locate
from willfit.errors import BadInput
from willfit.tracing.asked import train_question
from willfit.tracing.child import traced_all
from willfit.tracing.question import Question, Train

#: So many are traced by one process and its forks.
AT_ONCE = 8


def question(point: Point) -> Question:
    """The question of a point: encoders are trained as they were made, on masked tokens."""
    run, device = prepared_run(point)
    found = locate(point["model"], None, True).config
    asked = train_question(getattr(found, "fields", found), run, device, 1, 2)
    assert isinstance(asked.program, Train)
    if "bert" in point["model"]:
        asked = replace(asked, program=replace(asked.program, auto="AutoModelForMaskedLM"))
    return asked


def main() -> None:
    """Trace the lines that were asked for."""
    words = sys.argv[1:]
    points = read()
    chosen = [point for point in points if all(word in json.dumps(point) for word in words)]
    for start in range(0, len(chosen), AT_ONCE):
        some = chosen[start : start + AT_ONCE]
        for point, trace in zip(some, traced_all([question(one) for one in some]), strict=True):
            if isinstance(trace, BadInput):
                print(f"{point}: {trace}", file=sys.stderr)
                continue
            point["requested_bytes"] = replay(trace.sizes, trace.events, trace.streams).peak_requested
    POINTS.write_text("".join(json.dumps(point) + "\n" for point in points))


if __name__ == "__main__":
    main()
