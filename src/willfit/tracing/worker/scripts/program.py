"""The program in a command: `python -u train.py --epochs 3`, `torchrun ... train.py`, `-m package.module`."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from willfit.errors import BadInput
from willfit.launch.table import variables_before
from willfit.launch.training.processes import script_words

#: Words in front of a command that only start it.
_WRAPPERS = (("uv", "run"), ("poetry", "run"), ("pipenv", "run"), ("nohup",), ("exec",), ("time",))


@dataclass(frozen=True, slots=True)
class Program:
    """What Python runs.

    Attributes
    ----------
    name
        A file, or a module where `module` says so.
    arguments
        What stands behind it.
    variables
        What is set in front of it.
    module
        Whether it is a module.
    """

    name: str
    arguments: tuple[str, ...]
    variables: dict[str, str]
    module: bool

    def run(self) -> None:
        """Run it, as Python's command line would: what it raises is raised."""
        os.environ.update(self.variables)
        sys.argv = [self.name, *self.arguments]
        if self.module:
            sys.path.insert(0, os.getcwd())
            runpy.run_module(self.name, run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(self.name).resolve().parent))
            runpy.run_path(self.name, run_name="__main__")


def program_of(words: Sequence[str]) -> Program:
    """The program that a command runs.

    Raises
    ------
    BadInput
        If no file or module is found in it.
    """
    variables, command = variables_before(words)
    for wrapper in _WRAPPERS:
        if tuple(command[: len(wrapper)]) == wrapper:
            command = command[len(wrapper) :]
    if command[:1] == ["-m"]:
        command = ["python", *command]
    rest = script_words(command) if command else []
    name = rest[0] if rest else ""
    if Path(name).is_file():
        return Program(name, tuple(rest[1:]), variables, False)
    if name.endswith(".py") or os.sep in name:
        raise BadInput(f"there is no file {name}", f"paths are taken from {os.getcwd()}")
    if not name or not any(word in ("-m", "--module") for word in command):
        raise BadInput(
            f"no Python program in: {' '.join(words)[:100] or 'nothing'}",
            "willfit trace -- python train.py --epochs 1",
        )
    return Program(name, tuple(rest[1:]), variables, True)
