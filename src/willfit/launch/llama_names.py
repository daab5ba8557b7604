"""How the programs of llama.cpp are called: today, in old builds, in forks and by those that ship them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from os.path import basename
from typing import Literal, NamedTuple

from willfit.engines.llama_cpp.settings import Program

#: Names of the programs as the tables of flags have them, and what each is to the engine. `completion` and the rest
#: compute the logits of whole batches.
PROGRAMS: dict[str, Program] = {
    "server": "server", "cli": "cli", "completion": "api", "run": "api", "mtmd": "api", "perplexity": "api",
    "embedding": "api", "speculative": "cli", "batched-bench": "api", "parallel": "api", "imatrix": "api",
    "lookup": "cli", "retrieval": "api", "passkey": "api", "sweep-bench": "api", "fit-params": "api",
    "simple": "api", "bench": "bench",
}  # fmt: skip

#: `llama-mtmd-cli`, `llama-server-cuda`, `llama-cli.exe`
_NEW = re.compile(
    r"llama-(server|cli|completion|run|mtmd-cli|perplexity|embedding|speculative-simple|speculative|batched-bench"
    r"|bench|parallel|imatrix|lookup|retrieval|passkey|sweep-bench|fit-params)(-(cuda|rocm|hip|vulkan|cpu|sycl))?"
)

#: Those that people run most.
PUBLISHED = (
    "llama-server",
    "llama-cli",
    "llama-bench",
    "llama-mtmd-cli",
    "llama-perplexity",
    "llama-embedding",
)

#: Programs until June 2024, which stand in a folder of their own: `./main`.
_OLD = {
    "server": "server", "main": "cli", "perplexity": "perplexity", "embedding": "embedding",
    "speculative": "speculative", "batched-bench": "batched-bench", "parallel": "parallel", "imatrix": "imatrix",
    "llava-cli": "mtmd", "lookup": "lookup", "passkey": "passkey",
}  # fmt: skip

#: `llama serve`, the program that has all others inside (`app/llama.cpp`).
_COMMANDS = {
    "serve": "server", "server": "server", "cli": "cli", "client": "cli", "completion": "completion",
    "complete": "completion", "bench": "bench", "batched-bench": "batched-bench", "perplexity": "perplexity",
    "fit-params": "fit-params",
}  # fmt: skip

#: The first word behind an image that has all programs (`.devops/tools.sh`).
_TOOLS = {
    "--server": "server", "-s": "server", "--run": "cli", "-r": "cli", "--run-legacy": "completion",
    "-l": "completion", "--bench": "bench", "-b": "bench", "--perplexity": "perplexity", "-p": "perplexity",
}  # fmt: skip

_KOBOLD = re.compile(r"koboldcpp([-_.]?\w*)*(\.py|\.exe)?", re.IGNORECASE)


class Named(NamedTuple):
    """A program of llama.cpp that a command starts.

    Attributes
    ----------
    name
        As in `PROGRAMS`.
    called
        How the command calls it.
    rest
        The words behind it.
    inside
        The model inside the program itself; empty where there is none (`llamafile`).
    old
        It is called as in builds until June 2024.
    """

    name: str
    called: str
    rest: list[str]
    inside: str = ""
    old: bool = False


def llama_program(words: Sequence[str]) -> Named | None:
    """The program of llama.cpp that a command starts; None if it starts none."""
    if not words:
        return None
    called = basename(words[0]).removesuffix(".exe")
    rest = list(words[1:])
    new = _NEW.fullmatch(called)
    if new is not None:
        return Named(
            {"mtmd-cli": "mtmd", "speculative-simple": "speculative"}.get(new[1], new[1]), called, rest
        )
    if called == "llama" and rest[:1] and rest[0] in _COMMANDS:
        return Named(_COMMANDS[rest[0]], f"llama {rest[0]}", rest[1:])
    if called == "tools.sh" and rest[:1] and rest[0] in _TOOLS:
        return Named(_TOOLS[rest[0]], f"llama-{_TOOLS[rest[0]]}", rest[1:])
    if called.endswith(".llamafile"):
        return Named(_of_llamafile(rest), called, rest, f"{called.removesuffix('.llamafile')}.gguf")
    if called in ("llamafile", "llamafiler"):
        return Named(_of_llamafile(rest), called, rest)
    if called in _OLD and (_in_folder(words[0]) or any(word in ("-m", "--model") for word in rest)):
        return Named(_OLD[called], called, rest, old=True)
    return None


def is_llama_program(word: str) -> bool:
    """Whether a word alone starts a program of llama.cpp or KoboldCpp."""
    called = basename(word).removesuffix(".exe")
    if _NEW.fullmatch(called) or called in ("llama", "llamafile") or called.endswith(".llamafile"):
        return True
    return is_koboldcpp(word) or (called in _OLD and _in_folder(word))


def is_koboldcpp(word: str) -> bool:
    """Whether a word names KoboldCpp: `koboldcpp.py`, `koboldcpp-linux-x64`, `./koboldcpp_cu12.exe`."""
    return _KOBOLD.fullmatch(basename(word)) is not None


def _in_folder(word: str) -> bool:
    return re.match(r"\.{0,2}/|~|.*(bin|llama[\w.]*)/", word) is not None


def _of_llamafile(rest: Sequence[str]) -> Literal["server", "cli"]:
    """A llamafile is a server unless it is asked for an answer."""
    return "cli" if any(word in ("--cli", "-p", "--prompt", "-f", "--file") for word in rest) else "server"
