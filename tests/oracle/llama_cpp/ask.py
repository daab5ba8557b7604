"""`python -m tests.oracle.llama_cpp.ask HEADER_OR_MODEL`: what llama.cpp would allocate.

    python -m tests.oracle.llama_cpp.ask meta-llama/Meta-Llama-3-8B --file-type Q4_K_M --gpus 1 \\
        --settings '{"n_ctx": 8192, "cache_type_k": "q8_0", "cache_type_v": "q8_0"}'
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from willfit.checkpoints.gguf import GgufHeader, read_gguf
from willfit.checkpoints.source import LocalFile

from .gguf_file import with_types
from .graph import graph_text
from .headers import header_of
from .library import HOME, RELEASE
from .live import Answer, Gpu, Oracle

_MIB = 2**20


def main(words: Sequence[str] | None = None) -> int:
    """Ask and print."""
    parser = argparse.ArgumentParser(
        prog="ask", description="What llama.cpp would allocate, by its own planner."
    )
    parser.add_argument("model", help="a GGUF file, or a model of the catalogue")
    parser.add_argument("--file-type", default="F16", help="mix for a model of the catalogue: Q4_K_M")
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON; names: plan.SETTINGS")
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument(
        "--gpu", type=json.loads, default={}, help='JSON: {"backend": "rocm", "capability": 4352}'
    )
    parser.add_argument("--library", type=Path, default=HOME / RELEASE, help="folder of the shared libraries")
    parser.add_argument("--cpu", default="haswell", help="variant of the CPU backend")
    parser.add_argument("--graph", nargs="?", const="prompt", help="print a graph: prompt, token or T,S,O")
    parser.add_argument("--log", action="store_true", help="print the library's log")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(words)
    graph = [int(n) for n in asked.graph.split(",")] if asked.graph and "," in asked.graph else asked.graph
    with Oracle(asked.library, asked.cpu) as oracle:
        header = _header(asked.model, asked.file_type, oracle)
        gpus = [Gpu(**asked.gpu)] * asked.gpus
        answer = oracle.ask(header, asked.settings, gpus, log=asked.log, graph=graph)
    if asked.json:
        print(json.dumps(answer.json))
    else:
        _print(answer)
    return 1 if answer.error else 0


def _header(model: str, file_type: str, oracle: Oracle) -> GgufHeader:
    if Path(model).is_file():
        return read_gguf(model, lambda name: LocalFile(name))
    header = header_of(model)
    return header if file_type == "F16" else with_types(header, oracle.types(header, file_type))


def _print(answer: Answer) -> None:
    settled: dict[str, Any] = dict(answer.settled)
    graph, log = settled.pop("reserved_graph", None), settled.pop("log", None)
    if log:
        print(log)
    if answer.error:
        print("error:", answer.error)
        return
    for part, sizes in (("model", answer.model), ("context", answer.context), ("compute", answer.compute)):
        for buffer, size in sizes.items():
            print(f"{part:<8} {buffer:<12} {size:>16} bytes {size / _MIB:>12.2f} MiB")
    for name, value in settled.items():
        print(f"{name}: {value}")
    if graph:
        print(f"graph {graph['shape']}: bytes by backend {graph['sizes']}")
        for line in graph_text(graph):
            print(line)


if __name__ == "__main__":
    raise SystemExit(main())
