"""Which engines there are, and which one answers a question that names none."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

from willfit.architectures.model import Architecture
from willfit.engines.base import Machine, Question, Subject
from willfit.errors import BadInput
from willfit.estimate import Estimate

#: Name -> module. Adding an engine is one module with `NAME`, `NEWEST` and `answer`, and one line here.
ENGINES: dict[str, str] = {
    "vllm": "vllm",
    "sglang": "sglang",
    "tensorrt-llm": "tensorrt_llm",
    "tgi": "tgi",
    "transformers": "transformers",
    "lmdeploy": "lmdeploy",
    "lightllm": "lightllm",
    "llama.cpp": "llama_cpp",
    "ollama": "ollama",
    "lmstudio": "lmstudio",
    "mlx": "mlx",
    "exllamav2": "exllamav2",
    "exllamav3": "exllamav3",
    "ktransformers": "ktransformers",
    "fastllm": "fastllm",
    "mlc-llm": "mlc_llm",
    "minimum": "minimum",
}

#: Forks that an engine's module answers for where a command starts them, and what it calls their newest version.
FORKS: dict[str, tuple[str, str]] = {"ik_llama.cpp": ("llama.cpp", "NEWEST_IK")}

#: Engines that run GGUF files; those of them that also run models stored for MLX.
GGUF_ENGINES = frozenset(("llama.cpp", "ollama", "lmstudio"))
MLX_TOO = frozenset(("lmstudio",))

#: Who runs formats that nobody else reads, by the method of their recipe.
OWN_FORMATS = {"exl2": "exllamav2", "exl3": "exllamav3", "mlc": "mlc-llm", "mlx": "mlx"}

#: Who answers if the engine that people would use does not run the model, or not on the devices.
FALLBACK_ENGINE = "transformers"


#: What else an engine is called, without capitals, dots, dashes and underscores.
_OTHER_NAMES: dict[str, str] = {
    "exl2": "exllamav2", "exllama2": "exllamav2", "exl3": "exllamav3", "exllama3": "exllamav3", "tabbyapi": "exllamav3",
    "ftllm": "fastllm", "hf": "transformers", "huggingface": "transformers", "kt": "ktransformers", "lms": "lmstudio",
    "llamaserver": "llama.cpp", "mlc": "mlc-llm", "mlxlm": "mlx", "trtllm": "tensorrt-llm",
}  # fmt: skip
_BETWEEN = str.maketrans("", "", ".-_ ")


def engine_name(text: str) -> str:
    """The engine that a name means, however it is written: `llama-cpp`, `LlamaCpp` and `llama.cpp` are one.

    Raises
    ------
    BadInput
        If there is none of that name; the hint has the nearest.
    """
    key = text.lower().translate(_BETWEEN)
    names = {name.translate(_BETWEEN): name for name in ENGINES} | _OTHER_NAMES
    if key in names:
        return names[key]
    from difflib import get_close_matches

    close = list(dict.fromkeys(names[one] for one in get_close_matches(key, names, 3, 0.6)))
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise BadInput(f"unknown engine {text[:40]!r}", f"{hint}known: {', '.join(ENGINES)}")


def engine_module(name: str) -> Any:
    """The module of an engine, by its own name."""
    return import_module(f"willfit.engines.{ENGINES[name]}")


def newest_version(name: str) -> str:
    """The newest version of an engine, or of a fork of one, whose rules were read.

    Raises
    ------
    BadInput
        If there is none of that name.
    """
    engine, attribute = FORKS.get(name, (name, "NEWEST"))
    found: str = getattr(engine_module(engine), attribute)
    return found


def default_engine(subject: Subject, machine: Machine, is_gguf: bool) -> str:
    """llama.cpp for GGUF files, others for formats of their own; else vLLM where it runs, MLX on Apple, transformers
    on CPU.

    vLLM serves decoders, and of the encoder-decoders those for speech, whose encoder has a fixed length.
    """
    if is_gguf:
        return "llama.cpp"
    if subject.recipe.method in OWN_FORMATS:
        return OWN_FORMATS[subject.recipe.method]
    architecture = subject.architecture
    if machine.devices and all(device.vendor == "Apple" for device in machine.devices):
        return "mlx" if runs_on_apple(architecture) else "transformers"
    if not all(device.vendor in ("NVIDIA", "AMD", "") and not device.is_cpu for device in machine.devices):
        return "transformers"
    if architecture.encoder_only or (architecture.encoder and not architecture.encoder_tokens):
        return "transformers"
    return "vllm" if runs_vllm(machine) else FALLBACK_ENGINE


def runs_vllm(machine: Machine) -> bool:
    """Whether the newest vLLM runs anything on the devices."""
    from willfit.engines.vllm.devices.support import unfit
    from willfit.engines.vllm.eras import NEWEST

    return not any(unfit(device, NEWEST) for device in machine.devices)


def runs_on_apple(architecture: Architecture) -> bool:
    """Whether mlx-lm has the model."""
    from willfit.engines.mlx.eras import NEWEST
    from willfit.engines.mlx.models import support

    return support(architecture, NEWEST).runs is not False


def ask_usual(
    engine: str | None, subject: Subject, machine: Machine, question: Question, is_gguf: bool
) -> Estimate:
    """What an engine answers, or where none was named the first of the usual ones that does not refuse."""
    chosen = engine or default_engine(subject, machine, is_gguf)
    answer = ask(chosen, subject, machine, question)
    alone = chosen == FALLBACK_ENGINE or subject.recipe.method in OWN_FORMATS
    if engine is not None or not answer.refusal or alone:
        return answer
    notes = (f"{answer.engine} {answer.engine_version}: {answer.refusal}",)
    answer = ask(FALLBACK_ENGINE, subject, machine, replace(question, version=None))
    return replace(answer, notes=(*notes, *answer.notes))


def ask(engine: str, subject: Subject, machine: Machine, question: Question) -> Estimate:
    """What an engine answers to a question."""
    estimate: Estimate = engine_module(engine).answer(subject, machine, question)
    return estimate
