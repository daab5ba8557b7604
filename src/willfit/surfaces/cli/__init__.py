"""The command line: `willfit MODEL --gpu ...`, or `willfit --gpu ... COMMAND` in front of a launch command."""

from __future__ import annotations

import os
import sys

from willfit.errors import BadInput
from willfit.surfaces.cli.words import arranged

EXIT_BAD_INPUT = 2


def run() -> None:
    """Entry point: exit status 0 fits, 1 does not fit, 2 bad input; never a traceback for what a user gave."""
    from willfit.surfaces.cli.app import app

    try:
        app(args=arranged(sys.argv[1:]), prog_name="willfit")
    except BadInput as error:
        hint = f" ({error.hint})" if error.hint else ""
        print(f"willfit: {error.message}{hint}", file=sys.stderr)
        raise SystemExit(EXIT_BAD_INPUT) from None
    except BrokenPipeError:
        # The reader went away (`willfit models | head`); keep Python from complaining at shutdown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
