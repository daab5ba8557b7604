"""Which writers there are."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from willfit.errors import BadInput
from willfit.launch.writing.written import Order, Written

#: Engine -> module of this folder. Adding one is a module with `write`, and a line here.
WRITERS: dict[str, str] = {
    "vllm": "vllm",
    "sglang": "sglang",
    "llama.cpp": "llamacpp",
    "ollama": "ollama",
    "tgi": "tgi",
    "lmdeploy": "lmdeploy",
    "tensorrt-llm": "trtllm",
}


def writer_of(engine: str) -> ModuleType:
    """The module that writes commands of an engine.

    Raises
    ------
    BadInput
        If none does.
    """
    if engine not in WRITERS:
        raise BadInput(f"no command is written for {engine}", f"known: {', '.join(WRITERS)}")
    return import_module(f"willfit.launch.writing.{WRITERS[engine]}")


def written(engine: str, order: Order) -> Written:
    """The command of an engine.

    Raises
    ------
    BadInput
        If there is no writer for it, or the settings cannot be said in its flags.
    """
    found: Written = writer_of(engine).write(order)
    return found
