"""Trace many generations in one process: `python many_generations.py FOLDER`, a pickled list of them on standard input.

Each is asked as (name, Generate, whether every step is run); its trace is written to FOLDER/name.
"""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

from willfit.tracing.question import Card
from willfit.tracing.worker import shims

if __name__ == "__main__":
    shims.install(Card(), "fake-cuda")

    from willfit.tracing.worker.cuda import attention
    from willfit.tracing.worker.recipes import generation
    from willfit.tracing.worker.tracer import Tracer

    some = generation.FIRST
    for name, asked, every_step in pickle.load(sys.stdin.buffer):
        generation.FIRST = asked.new_tokens if every_step else some
        attention.chosen.clear()
        tracer = Tracer("cuda:0", Card())
        generation.trace(asked, tracer)
        trace = tracer.finished()
        trace.kernels = dict(attention.chosen)
        Path(sys.argv[1], name).write_bytes(trace.to_bytes())
    sys.stderr.flush()
    os._exit(0)
