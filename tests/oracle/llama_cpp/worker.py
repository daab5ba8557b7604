"""Many questions in one process: a line of JSON each way, and a fork for each question.

A fork starts with the library loaded and the devices registered, so a question takes milliseconds; and a crash of the
library ends the fork only. Run by `live.py`.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from .cuda import Cuda, Rocm
from .file_types import tensor_types
from .ggml import Ggml
from .library import Library
from .metal import Metal
from .plan import Plan, Refused
from .standin import StandIn
from .vulkan import Vulkan

#: Recurrent states and outputs are truly allocated: a question too large must fail, not take the machine's memory.
_MAX_DATA_BYTES = 2**35
_TIMEOUT_SECONDS = 300


#: Words of `live.Gpu` for a backend's rules.
_RULES = {"cuda": Cuda, "rocm": Rocm, "vulkan": Vulkan, "metal": Metal}


class Machine:
    """The library, and the GPUs that it sees."""

    def __init__(self, folder: Path, cpu: str) -> None:
        self.library = Library(folder, cpu)
        self.ggml = Ggml(self.library.base)
        self.backends = {
            word: StandIn(self.ggml, rules(self.ggml), self.library.ggml.ggml_backend_register)
            for word, rules in _RULES.items()
        }

    def devices(self, gpus: list[dict[str, Any]]) -> list[int]:
        """Addresses of devices that are as described."""
        found = []
        for gpu in gpus:
            backend = self.backends[gpu["backend"]]
            index = sum(device in found for device in backend.devices)
            backend.gpus[index] = gpu
            found.append(backend.devices[index])
        return found

    def buffer_types(self) -> dict[str, int]:
        """Buffer types of all devices by name."""
        return {
            self.library.buft_name(buft): buft
            for backend in self.backends.values()
            for buft in (*backend.bufts, *([backend.host_buft] if backend.rules.host_name else []))
        }


def answer(machine: Machine, question: dict[str, Any]) -> dict[str, Any]:
    """The answer to one question, in this process."""
    library = machine.library
    try:
        if question["kind"] == "types":
            return {"types": tensor_types(library, question["path"], question["file_type"])}
        devices = machine.devices(question["gpus"])
        plan = Plan(library, question["path"], question["settings"], devices, machine.buffer_types())
        found = plan.answer()
        if question.get("log"):
            found["log"] = plan.log
        if question.get("graph"):
            found["reserved_graph"] = plan.graph(machine.ggml, question["graph"])
        return found
    except Refused as refused:
        return {"error": _reason(str(refused)), "log": str(refused)}


def _reason(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    told = [line for line in lines if "error" in line or "failed" in line or "requires" in line]
    return (told or lines or ["the library says nothing"])[-1]


def forked(machine: Machine, question: dict[str, Any]) -> dict[str, Any]:
    """The answer to one question from a fork."""
    reading, writing = os.pipe()
    told_reading, told_writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.dup2(told_writing, 2)
        signal.alarm(_TIMEOUT_SECONDS)
        resource.setrlimit(resource.RLIMIT_DATA, (_MAX_DATA_BYTES, _MAX_DATA_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            found = answer(machine, question)
        except Exception:
            found = {"error": traceback.format_exc()}
        with os.fdopen(writing, "w") as pipe:
            json.dump(found, pipe)
        os._exit(0)
    os.close(writing)
    os.close(told_writing)
    with os.fdopen(reading) as pipe, os.fdopen(told_reading, errors="replace") as told:
        text = pipe.read()
        said = told.read()
    _, status = os.waitpid(child, 0)
    if text:
        return json.loads(text)
    ended = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {os.WEXITSTATUS(status)}"
    return {"error": f"the library ended with {ended}: {said.strip()[-2000:]}"}


def main() -> None:
    """Answer the questions of standard input."""
    os.environ["GGML_NO_BACKTRACE"] = "1"
    machine = Machine(Path(sys.argv[1]), sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the library prints is no answer
    for line in sys.stdin:
        answers.write(json.dumps(forked(machine, json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
