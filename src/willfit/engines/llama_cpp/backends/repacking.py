"""What the processor keeps in a form of its own (`ggml-cpu/repack.cpp`, `ggml-cpu/amx`)."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.checkpoints.gguf import GgufTensor
from willfit.engines.llama_cpp.era import Era
from willfit.engines.llama_cpp.graph.tensor import AMX, Node
from willfit.ggml_types import GGML_TYPES
from willfit.hardware.processors import ProcessorKind

#: Rows that are interleaved; ARM takes fewer of types with blocks of 32.
_ROWS, _ARM_ROWS = 8, 4
_LARGE_BLOCK = 256

#: Types that AMX multiplies, each with what it keeps beside a block: sums of its values, minima or scales.
_AMX_BESIDE = {"Q4_0": 0, "Q4_1": 0, "Q8_0": 4, "Q4_K": 4, "Q5_K": 4, "Q6_K": 0, "IQ4_XS": 2}
#: Results come in tiles of so many.
_AMX_RESULTS = 32


@dataclass(frozen=True, slots=True)
class Repacking:
    """What a processor repacks.

    Attributes
    ----------
    types
        Types whose rows it interleaves, each with how many rows at once.
    place
        The buffer of these.
    amx_columns
        AMX multiplies matrices whose rows are a multiple of this; 0 without AMX.
    amx_batches
        It also multiplies several matrices at once.
    """

    types: tuple[tuple[str, int], ...] = ()
    place: str = "CPU_REPACK"
    amx_columns: int = 0
    amx_batches: bool = False

    def buffer(self, tensor: GgufTensor, op: str) -> str:
        """Name of the buffer that keeps a tensor in a form of its own; empty if none does."""
        if op == "mul_mat" and self.amx_columns and self._amx(tensor):
            return AMX
        rows = dict(self.types).get(tensor.type)
        if rows is None or op not in ("mul_mat", "mul_mat_id"):
            return ""
        dims = len(tensor.ne) - next((i for i, n in enumerate(reversed(tensor.ne)) if n != 1), 0)
        suits = dims == (2 if op == "mul_mat" else 3) and tensor.ne[1] % rows == 0
        return self.place if suits else ""

    def _amx(self, tensor: GgufTensor) -> bool:
        if tensor.type not in _AMX_BESIDE and tensor.type != "F16":
            return False
        if not self.amx_batches and any(n != 1 for n in tensor.ne[2:]):
            return False
        return tensor.ne[0] % self.amx_columns == 0 and [*tensor.ne, 1][1] % _AMX_RESULTS == 0


def repacking(era: Era, kind: ProcessorKind) -> Repacking:
    """What a processor of a kind repacks in the builds of an era."""
    if kind == "plain":
        return Repacking()
    if kind in ("dotprod", "i8mm"):
        types = era.repacked_dotprod if kind == "dotprod" else era.repacked_i8mm
        rows = {type: _ROWS if GGML_TYPES[type].block == _LARGE_BLOCK else _ARM_ROWS for type in types}
    else:
        types = era.repacked if kind == "avx2" else (*era.repacked, *era.repacked_avx512)
        rows = dict.fromkeys(types, _ROWS)
    return Repacking(
        tuple(rows.items()),
        era.repack_buffer,
        era.amx_columns if kind == "amx" else 0,
        era.amx_batches,
    )


def amx_bytes(node: Node) -> int:
    """Bytes of a tensor in an AMX buffer (`ggml_backend_amx_get_alloc_size`)."""
    beside = _AMX_BESIDE.get(node.type)
    if beside is None:
        return node.bytes
    kind = GGML_TYPES[node.type]
    return node.ne[1] * (node.ne[0] // kind.block) * (kind.bytes + beside)
