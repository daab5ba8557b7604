"""What the child process tells its parent, as lines of JSON on what was its standard output."""

from __future__ import annotations

import json
import os
import sys
import time

from willfit.errors import BadInput

#: Seconds between two words of progress.
_PAUSE = 0.1


class Line:
    """The line to the parent. What the program itself prints goes to standard error from here on."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        self._said = 0.0

    def progress(self, phase: str, step: int, events: int) -> None:
        """Say how far the program is, now and then."""
        now = time.monotonic()
        if now - self._said >= _PAUSE:
            self._said = now
            self._say({"phase": phase, "step": step, "events": events})

    def failed(self, error: BadInput, name: str) -> None:
        """Say why there is no answer of that name."""
        self._say({"of": name, "error": error.message, "hint": error.hint})

    def _say(self, what: dict[str, object]) -> None:
        try:
            self._out.write(json.dumps(what) + "\n")
            self._out.flush()
        except BrokenPipeError:
            os._exit(1)  # no one listens any more
