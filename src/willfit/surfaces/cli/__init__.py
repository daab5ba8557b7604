"""The command line: `willfit MODEL --gpu ...`, or `willfit --gpu ...` in front of a launch command."""

from __future__ import annotations

import codecs
import os
import sys

from willfit.errors import BadInput

EXIT_BAD_INPUT = 2

#: Signs of ours that encodings such as GBK or ASCII lack, with others of the same width.
_TYPEWRITTEN = {
    "−": "-", "→": ">", "✔": "+", "✘": "x", "≈": "~", "·": "-", "×": "x", "■": "*", "█": "#", "░": ".", "┃": "|",
}  # fmt: skip


def run() -> None:
    """Entry point: exit status 0 fits, 1 does not fit, 2 bad input; no traceback for what a user gave."""
    from willfit.surfaces.cli.app import main

    # A terminal or a pipe without Unicode gets what stands for a sign on a typewriter, and no error.
    codecs.register_error("typewriter", _typewritten)
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="typewriter")
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


def _typewritten(error: UnicodeError) -> tuple[str, int]:
    """What to print for what an encoding lacks: a minus that is lost would change the meaning."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_TYPEWRITTEN.get(sign, "?") for sign in text), error.end


def _printable(error: BadInput) -> str:
    """An error for a terminal: what the user gave may be long, and may hold escape sequences."""
    message = error.message if len(error.message) <= 500 else f"{error.message[:500]}..."
    line = f"{message} ({error.hint})" if error.hint else message
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
