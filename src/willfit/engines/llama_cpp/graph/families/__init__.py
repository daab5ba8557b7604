"""Builders of graphs, one for each way in which llama.cpp builds a model (`src/models/*.cpp`)."""

from __future__ import annotations

from importlib import import_module

from willfit.engines.llama_cpp.graph.network import Network

#: Module of this folder -> the architectures that it builds. Adding one is a module with `build(net)` and a line here.
FAMILIES: dict[str, str] = {
    "decoder": "llama mistral qwen2 qwen3 qwen3moe",
}

_MODULES = {architecture: module for module, names in FAMILIES.items() for architecture in names.split()}


def is_known(architecture: str) -> bool:
    """Whether there is a builder for an architecture."""
    return architecture in _MODULES


def build(net: Network) -> None:
    """Build a model's graph; one without a builder of its own is taken for a plain decoder."""
    module = _MODULES.get(net.meta.architecture, "decoder")
    import_module(f"willfit.engines.llama_cpp.graph.families.{module}").build(net)
