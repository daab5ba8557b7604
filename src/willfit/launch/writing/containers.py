"""Containers of engines: the image of a version, where it listens, how it is asked whether it is well."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.launch.writing.written import Flag, Order, Written

#: Where files and models lie inside.
FILES, MODELS = "/etc/willfit", "/models"

_HUB = "/root/.cache/huggingface"


class Program(NamedTuple):
    """How an engine runs in a container.

    Attributes
    ----------
    port
        Where it listens.
    health
        The path that answers when it is ready.
    listening
        What makes it listen on that port outside of the container; each with its flag.
    cache
        Where it keeps what it downloads.
    shares_memory
        Its processes talk through shared memory, for which its makers say `--ipc=host`.
    test
        A command inside that fails while it is not ready; `{url}` is the address of its health.
    path
        Where the program is, if the shell does not find it by its name.
    """

    port: int
    health: str
    listening: tuple[tuple[str, ...], ...]
    cache: str
    shares_memory: bool
    test: str
    path: str = ""


_PYTHON = "python3 -c \"import urllib.request as u; u.urlopen('{url}')\""
_CURL = "curl -fsS {url}"

PROGRAMS: dict[str, Program] = {
    "vllm": Program(8000, "/health", (("--host", "0.0.0.0"), ("--port", "8000")), _HUB, True, _PYTHON),
    "sglang": Program(30000, "/health", (("--host", "0.0.0.0"), ("--port", "30000")), _HUB, True, _PYTHON),
    "tensorrt-llm": Program(
        8000, "/health", (("--host", "0.0.0.0"), ("--port", "8000")), _HUB, True, _PYTHON
    ),
    "lmdeploy": Program(
        23333, "/health", (("--server-name", "0.0.0.0"), ("--server-port", "23333")), _HUB, True, _PYTHON
    ),
    "tgi": Program(80, "/health", (("--hostname", "0.0.0.0"), ("--port", "80")), "/data", True, _CURL),
    "llama.cpp": Program(
        8080,
        "/health",
        (("--host", "0.0.0.0"), ("--port", "8080")),
        "/root/.cache",
        False,
        _CURL,
        "/app/llama-server",
    ),
    "ollama": Program(11434, "/", (), "/root/.ollama", False, "ollama list"),
}

#: Since when vLLM's images for ROCm have its version in their tags; SGLang's for CUDA no more than it.
_VLLM_ROCM, _SGLANG_PLAIN = (0, 17), (0, 5, 3)

#: What CUDA is called in the tags of LMDeploy's images, the newest first.
_LMDEPLOY = (((0, 11), "-cu12.8"), ((0, 6), "-cu12"), ((0,), ""))

#: llama.cpp's images by the devices' vendor (`.devops/*.Dockerfile`).
_LLAMA_CPP = {"NVIDIA": "server-cuda", "AMD": "server-rocm", "Intel": "server-intel", "": "server-cuda"}


@dataclass(frozen=True, slots=True)
class Contained:
    """A command in a container.

    Attributes
    ----------
    image
        With its tag.
    program
        How the engine runs there.
    entry
        What is started.
    arguments
        What follows, each group with its reason.
    environment
        Variables.
    files
        Files by their paths inside.
    folder
        The folder on the host with the model, which is at `MODELS` inside; empty if the hub has it.
    devices, vendor
        How many devices, and whose.
    notes
        What a reader should know.
    """

    image: str
    program: Program
    entry: tuple[str, ...]
    arguments: tuple[Flag, ...]
    environment: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    devices: int = 1
    vendor: str = "NVIDIA"
    notes: tuple[str, ...] = ()


def image_of(engine: str, version: str, vendor: str, on_processor: bool = False) -> tuple[str, str]:
    """The image that the engine's makers publish for a version, and a note, empty without.

    Raises
    ------
    BadInput
        If there is none for such devices, or its tag does not follow from the version.
    """
    refusal = BadInput(
        f"{engine} {version} has no image for {vendor or 'such'} devices whose tag follows from its version",
        "take --as command",
    )
    amd = vendor == "AMD"
    if vendor not in ("NVIDIA", "AMD", "") and engine != "llama.cpp":
        raise refusal
    release = parse_version(version) if engine != "llama.cpp" else ()
    note = ""
    match engine:
        case "vllm" if not amd:
            image = f"vllm/vllm-openai:v{version}"
        case "vllm" if release >= _VLLM_ROCM:
            image = f"vllm/vllm-openai-rocm:v{version}"
        case "tgi":
            image = f"ghcr.io/huggingface/text-generation-inference:{version}{'-rocm' if amd else ''}"
        case "ollama":
            image = f"ollama/ollama:{version}{'-rocm' if amd else ''}"
        case "llama.cpp" if vendor in _LLAMA_CPP or on_processor:
            kind = "server" if on_processor else _LLAMA_CPP[vendor]
            build = version if version.startswith("b") else f"v{version}" if "." in version else f"b{version}"
            image = f"ghcr.io/ggml-org/llama.cpp:{kind}-{build}"
        case "sglang" if not amd:
            image = f"lmsysorg/sglang:v{version}"
            if release < _SGLANG_PLAIN:
                note = "tags of SGLang's images before 0.5.3 have CUDA's version behind them, such as -cu126: add it"
        case "lmdeploy" if not amd:
            image = (
                f"openmmlab/lmdeploy:v{version}{next(end for since, end in _LMDEPLOY if release >= since)}"
            )
        case "tensorrt-llm" if not amd:
            image = f"nvcr.io/nvidia/tensorrt-llm/release:{version}"
        case _:
            raise refusal
    return image, note


def contained(written: Written, order: Order) -> Contained:
    """The command as it stands in a container, where files and models lie elsewhere.

    Raises
    ------
    BadInput
        If the engine's makers publish no image for such devices.
    """
    devices = order.machine.devices
    on_processor = all(device.is_cpu for device in devices)
    vendor = "" if on_processor else next(device.vendor for device in devices if not device.is_cpu)
    program = PROGRAMS[written.engine]
    image, note = image_of(written.engine, written.version, vendor, on_processor)
    places = {name: f"{FILES}/{name}" for name in written.files}
    folder, inside = _folder(written, order)
    files = dict(written.files)
    if inside:
        places |= {word: inside for word in written.start if word == order.model or word.endswith(".gguf")}
        for name, text in files.items():
            files[name] = "\n".join(
                f"FROM {inside}" if line.startswith("FROM ") else line for line in text.split("\n")
            )
    start = tuple(places.get(word, word) for word in written.start)
    flags = [
        replace(flag, words=tuple(places.get(word, word) for word in flag.words)) for flag in written.flags
    ]
    entry: tuple[str, ...] = (program.path or start[0],)
    if written.server:
        entry, arguments = ("/bin/sh", "-c"), [_script(written, start, flags)]
    else:
        listening = [Flag(words, "where it listens") for words in program.listening]
        arguments = [*(Flag((word,), "") for word in start[1:]), *flags, *listening]
    return Contained(
        image,
        program,
        entry,
        tuple(arguments),
        {**written.environment, **({"OLLAMA_HOST": "0.0.0.0"} if written.server else {})},
        {f"{FILES}/{name}": text for name, text in files.items()},
        folder,
        len(order.estimate.devices),
        "" if on_processor else vendor or "NVIDIA",
        (*written.notes, note) if note else written.notes,
    )


def _script(written: Written, start: tuple[str, ...], flags: list[Flag]) -> Flag:
    """A server in the background, the model when it answers, and then the server's life."""
    command = shlex.join([*start, *(word for flag in flags for word in flag.words)])
    server = shlex.join(written.server)
    script = f"{server} & until ollama list > /dev/null 2>&1; do sleep 1; done; {command} && wait"
    return Flag((script,), "the model is made when the server answers; the variables are the server's")


def _folder(written: Written, order: Order) -> tuple[str, str]:
    """The folder on the host that has the model, and the model's path inside; empty if the hub has it."""
    named = next((word for word in written.start if word.endswith(".gguf")), order.model)
    sources = [
        line[5:] for text in written.files.values() for line in text.split("\n") if line[:5] == "FROM "
    ]
    named = next((source for source in sources if not source.startswith("hf.co/")), named)
    local = named.endswith(".gguf") or named.startswith(("/", "./", "../", "~")) or os.path.isdir(named)
    if not local:
        return "", ""
    folder, _, name = named.rstrip("/").rpartition("/")
    return folder or ("/" if named.startswith("/") else "."), f"{MODELS}/{name}"
