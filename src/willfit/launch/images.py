"""Images of containers: what they start by themselves, and which version of an engine is in them."""

from __future__ import annotations

import re
from typing import NamedTuple

from willfit.engines.llama_cpp.settings import Backend

_VERSION = re.compile(r"v?(\d+\.\d+(?:\.\d+)*(?:\.post\d+|rc\d+)?)(?![\d.])")

#: AMD names vLLM's version behind that of ROCm: `rocm6.4.1_vllm_0.9.1_20250702`.
_INSIDE = re.compile(r"vllm[_-]v?(\d+\.\d+\.\d+)")

#: vLLM in NVIDIA's images, as far as its release notes are known
#: (https://docs.nvidia.com/deeplearning/frameworks/vllm-release-notes/).
_NVIDIA = {"25.10": "0.10.2", "26.01": "0.11.1", "26.03": "0.17.1", "26.05": "0.20.1", "26.10": "0.31.0"}


class Image(NamedTuple):
    """What an image starts by itself, and how its tag names the engine's version.

    Attributes
    ----------
    command
        What follows the entry point if nothing is said.
    naming
        `tag`: the tag begins with it; `inside`: it stands in the tag; `nvidia`: by NVIDIA's month; `llama.cpp`: the
        tag ends with it, and begins with the program; `none`.
    flashinfer
        FlashInfer is installed in it, in versions of vLLM that do not need it as well (`docker/Dockerfile`).
    backend
        What llama.cpp was built for; None if that is not known.
    """

    entrypoint: tuple[str, ...] = ()
    naming: str = "none"
    command: tuple[str, ...] = ()
    flashinfer: bool = False
    backend: Backend | None = None


#: By the end of an image's name, without registry and tag.
_IMAGES = {
    "vllm/vllm-openai": Image(("vllm", "serve"), "tag", flashinfer=True),
    "vllm/vllm-openai-rocm": Image(("vllm", "serve"), "tag"),
    "vllm/vllm-openai-cpu": Image(("vllm", "serve"), "tag"),
    "lmcache/vllm-openai": Image(("vllm", "serve")),
    "nvidia/vllm": Image((), "nvidia"),
    "rocm/vllm": Image((), "inside"),
    "rocm/vllm-dev": Image((), "inside"),
    "huggingface/text-generation-inference": Image(("text-generation-launcher",), "tag"),
    "lmsysorg/sglang": Image((), "tag"),
    "lmsysorg/sglang-rocm": Image((), "tag"),
    "ollama/ollama": Image(("ollama",), "tag", ("serve",)),
    "openmmlab/lmdeploy": Image((), "tag"),
    "nvidia/tensorrt-llm/release": Image((), "tag"),
    "ggml-org/llama.cpp": Image((), "llama.cpp"),
    "ggerganov/llama.cpp": Image((), "llama.cpp"),
    "local/llama.cpp": Image((), "llama.cpp"),
    "abetlen/llama-cpp-python": Image(("python3", "-m", "llama_cpp.server"), "tag"),
    "koboldai/koboldcpp": Image(("koboldcpp",)),
    "theroyallab/tabbyapi": Image(("tabbyapi",)),
}

#: What llama.cpp's images start, by how their tags begin (`.devops/*.Dockerfile`).
_LLAMA_CPP = {"server": "llama-server", "light": "llama-cli", "full": "tools.sh"}

#: What they were built for, by a word of the tag; without one, for the processor.
_LLAMA_CPP_BACKENDS: dict[str, Backend] = {
    "cuda": "cuda", "rocm": "rocm", "vulkan": "vulkan", "intel": "sycl", "cann": "cann",
}  # fmt: skip
_LLAMA_CPP_OTHERS = ("musa", "openvino")


def known_image(name: str) -> tuple[Image, str | None]:
    """What is known of an image, and the engine's version that its tag names."""
    name = re.sub(r"^(docker|oras|library)://", "", name).partition("@")[0].replace("#", "/")
    path, _, tag = name.rpartition(":")
    if not path or "/" in tag:  # no tag; the colon was that of a registry's port
        path, tag = name, ""
    for ending, image in _IMAGES.items():
        if path == ending or path.endswith("/" + ending):
            if image.naming == "llama.cpp":
                return _llama_cpp(tag)
            return image, _version(image.naming, tag)
    return Image(), None


def _version(naming: str, tag: str) -> str | None:
    if naming == "nvidia":
        return _NVIDIA.get(tag[:5])
    found = {"tag": _VERSION.match, "inside": _INSIDE.search}.get(naming, lambda tag: None)(tag)
    return found.group(1) if found else None


def _llama_cpp(tag: str) -> tuple[Image, str | None]:
    """llama.cpp's own images: `server-cuda-b6000`, `full-rocm`, `light-v0.4.1`."""
    program = next((name for start, name in _LLAMA_CPP.items() if tag.startswith(start)), None)
    version = re.search(r"-(b\d{3,6}|v\d+\.\d+\.\d+)(?:-|$)", tag)
    backend = next((kind for word, kind in _LLAMA_CPP_BACKENDS.items() if word in tag), None)
    if backend is None and not any(word in tag for word in _LLAMA_CPP_OTHERS):
        backend = "cpu"
    image = Image((program,) if program else (), "llama.cpp", backend=backend if program else None)
    return image, version[1].removeprefix("v") if version else None
