"""Running the real program as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping


def willfit(*words: str | bytes, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `willfit WORDS...` in a process of its own, with nothing to read and no terminal."""
    return subprocess.run(
        [sys.executable, "-m", "willfit", *words],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.DEVNULL,
        env=_environment(environment),
        timeout=60,
    )


def in_terminal(*words: str, **environment: str) -> str:
    """What `willfit WORDS...` prints into a terminal of 100 columns."""
    import pty

    main, other = pty.openpty()
    env = _environment({"TERM": "xterm-256color", "COLUMNS": "100", **environment})
    with subprocess.Popen(
        [sys.executable, "-m", "willfit", *words], stdout=other, stdin=subprocess.DEVNULL, env=env
    ):
        os.close(other)
        printed = b""
        while True:
            try:
                part = os.read(main, 65536)
            except OSError:  # how Linux tells that the other end has closed
                break
            if not part:
                break
            printed += part
    os.close(main)
    return printed.decode()


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS", "PYTHONIOENCODING")
    }
    return inherited | more
