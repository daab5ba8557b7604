"""The command line: `willfit MODEL --gpu ...`, or `willfit --gpu ...` in front of a launch command."""

from __future__ import annotations

import os
import sys

from willfit.errors import BadInput

EXIT_BAD_INPUT = 2


def run() -> None:
    """Entry point: exit status 0 fits, 1 does not fit, 2 bad input; no traceback for what a user gave."""
    from willfit.surfaces.cli.app import main

    # A terminal or a pipe without Unicode gets question marks instead of bars, and no error.
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except BadInput as error:
        print(f"willfit: {_printable(error)}", file=sys.stderr)
        status = EXIT_BAD_INPUT
    except BrokenPipeError:
        # The reader went away (`willfit models | head`); keep Python from complaining at shutdown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except KeyboardInterrupt:
        status = 130
    raise SystemExit(status)


def _printable(error: BadInput) -> str:
    """An error for a terminal: what the user gave may be long, and may hold escape sequences."""
    message = error.message if len(error.message) <= 500 else f"{error.message[:500]}..."
    line = f"{message} ({error.hint})" if error.hint else message
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
