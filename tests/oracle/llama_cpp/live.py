"""Asking llama.cpp itself what it would allocate: headers and settings in, bytes out.

`ask` puts one question, `Oracle` many to the same process.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from willfit.checkpoints.gguf import GgufHeader

from .gguf_file import write_gguf
from .library import HOME, RELEASE

ROOT = Path(__file__).parents[3]


def available() -> bool:
    """Whether `set_up.sh` has been run."""
    return (HOME / RELEASE).is_dir()


@dataclass(frozen=True)
class Gpu:
    """A GPU that the library is made to see.

    Attributes
    ----------
    backend
        `cuda`, `rocm`, `vulkan` or `metal`: names, alignments and which operations there are.
    capability
        Compute capability times ten: 89. Of CUDA only; it decides where flash attention is available.
    fusion
        CUDA and ROCm: which kernels keep what they read allocated: the weighted `sum` of experts (since b10700 or so),
        the `choice` of experts. None with `GGML_CUDA_DISABLE_FUSION=1`.
    total_bytes, free_bytes
        What the device reports.
    """

    backend: str = "cuda"
    capability: int = 89
    fusion: tuple[str, ...] = ("sum", "choice")
    total_bytes: int = 24 * 2**30
    free_bytes: int = 24 * 2**30 - 300 * 2**20


@dataclass(frozen=True)
class Answer:
    """What the library would allocate, or why it refuses.

    Attributes
    ----------
    error
        Why there is no plan; None if there is one.
    model, context, compute
        Bytes by buffer type (`CUDA0`, `CUDA_Host`, `CPU`, `CPU_REPACK`), from `llama_get_memory_breakdown`.
    settled
        All else: sizes as logged (`kv_buffers`, `kv_pools`, `output_buffers`, ...), `graph`, `n_ctx`, `flash_attn`, ...
    """

    error: str | None
    model: dict[str, int] = field(default_factory=dict)
    context: dict[str, int] = field(default_factory=dict)
    compute: dict[str, int] = field(default_factory=dict)
    settled: dict[str, Any] = field(default_factory=dict)

    @property
    def json(self) -> dict[str, Any]:
        """As `python -m tests.oracle.llama_cpp.ask --json` prints it."""
        if self.error is not None:
            return {"error": self.error, **self.settled}
        return {"model": self.model, "context": self.context, "compute": self.compute, **self.settled}


class Oracle:
    """A process with the library loaded. Use it as a context manager.

    Parameters
    ----------
    folder
        Where the shared libraries are.
    cpu
        Variant of the CPU backend; `haswell` has AVX2 and runs nearly everywhere.
    """

    def __init__(self, folder: Path = HOME / RELEASE, cpu: str = "haswell") -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="llama-cpp-")
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.worker", str(folder), cpu],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self._files: dict[str, str] = {}

    def __enter__(self) -> Oracle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()
        self._folder.cleanup()

    def ask(
        self,
        header: GgufHeader,
        settings: Mapping[str, Any],
        gpus: Sequence[Gpu] = (),
        *,
        log: bool = False,
        graph: str | Sequence[int] | None = None,
    ) -> Answer:
        """What the library says; see `plan.SETTINGS` for the names of settings.

        Parameters
        ----------
        log
            Whether to return all that the library logs as `settled["log"]`.
        graph
            The graph to return as `settled["reserved_graph"]` (see `graph.read_graph`): `prompt`, `token`, or numbers
            of tokens, sequences and outputs.
        """
        found = self._put(
            {
                "kind": "plan",
                "path": self._file(header),
                "settings": dict(settings),
                "gpus": [vars(gpu) for gpu in gpus],
                "log": log,
                "graph": graph,
            }
        )
        error = found.pop("error", None)
        if error is not None:
            return Answer(error, settled=found)
        return Answer(None, found.pop("model"), found.pop("context"), found.pop("compute"), found)

    def types(self, header: GgufHeader, file_type: str) -> dict[str, str]:
        """The type that `llama-quantize` gives each tensor in a mix such as `Q4_K_M`."""
        found = self._put({"kind": "types", "path": self._file(header), "file_type": file_type})
        if "error" in found:
            raise OSError(found["error"])
        return found["types"]

    def _file(self, header: GgufHeader) -> str:
        key = hashlib.sha256(repr((sorted(header.metadata.items()), header.tensors)).encode()).hexdigest()
        if key not in self._files:
            path = Path(self._folder.name) / f"{key[:24]}.gguf"
            write_gguf(header, path)
            self._files[key] = str(path)
        return self._files[key]

    def _put(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            _, told = self._process.communicate()
            raise OSError(f"llama.cpp's oracle did not start: {told[-2000:]}")
        return json.loads(line)


def ask(header: GgufHeader, settings: Mapping[str, Any], gpus: Sequence[Gpu] = ()) -> Answer:
    """What the library says to one question, from a process of its own."""
    with Oracle() as oracle:
        return oracle.ask(header, settings, gpus)
