"""Whose candidates a command has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from willfit.errors import BadInput
from willfit.fixing.candidates import Candidate
from willfit.fixing.engines import llamacpp, lmdeploy, ollama, others, sglang, tgi, training, trtllm, vllm
from willfit.fixing.given import Given

_SERVING: dict[str, Callable[[Given], list[Candidate]]] = {
    "vllm": vllm.candidates,
    "sglang": sglang.candidates,
    "llamacpp": llamacpp.candidates,
    "tgi": tgi.candidates,
    "lmdeploy": lmdeploy.candidates,
    "trtllm": trtllm.candidates,
    "lightllm": others.lightllm,
    "koboldcpp": others.koboldcpp,
    "llama_cpp_python": others.llama_cpp_python,
    "lmstudio": others.lmstudio,
}


def candidates_of(given: Given, launcher: str, words: Sequence[str]) -> list[Candidate]:
    """What may be edited in a command.

    Parameters
    ----------
    launcher
        The module that reads it.
    words
        Its own words.

    Raises
    ------
    BadInput
        If no edits are known for its program.
    """
    if launcher == "ollama":
        return ollama.candidates(given, list(words[:1]) == ["create"])
    if launcher in _SERVING:
        return _SERVING[launcher](given)
    if launcher not in training.NAMES:
        known = ", ".join(["ollama", *_SERVING, *training.NAMES]).replace("_", "-")
        raise BadInput(f"no edits are known for commands of {launcher.replace('_', '-')}", f"known: {known}")
    return training.candidates(given, launcher, words)
