"""Which engines there are, and which one answers a question that names none."""

from __future__ import annotations

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

#: Who answers if the engine that people would use does not run the model at all.
FALLBACK_ENGINE = "transformers"


def engine_module(name: str) -> Any:
    """The module of an engine.

    Raises
    ------
    BadInput
        If there is none of that name.
    """
    if name not in ENGINES:
        raise BadInput(f"unknown engine {name!r}", f"known: {', '.join(ENGINES)}")
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
    """llama.cpp for GGUF files; else vLLM where it runs, MLX on Apple, transformers on CPU.

    vLLM serves decoders, and of the encoder-decoders those for speech, whose encoder has a fixed length.
    """
    if is_gguf:
        return "llama.cpp"
    architecture = subject.architecture
    if machine.devices and all(device.vendor == "Apple" for device in machine.devices):
        return "mlx" if runs_on_apple(architecture) else "transformers"
    if not all(device.vendor in ("NVIDIA", "AMD", "") and not device.is_cpu for device in machine.devices):
        return "transformers"
    if architecture.encoder_only or (architecture.encoder and not architecture.encoder_tokens):
        return "transformers"
    return "vllm"


def runs_on_apple(architecture: Architecture) -> bool:
    """Whether mlx-lm has the model."""
    from willfit.engines.mlx.eras import NEWEST
    from willfit.engines.mlx.models import support

    return support(architecture, NEWEST).runs is not False


def ask(engine: str, subject: Subject, machine: Machine, question: Question) -> Estimate:
    """What an engine answers to a question."""
    estimate: Estimate = engine_module(engine).answer(subject, machine, question)
    return estimate
