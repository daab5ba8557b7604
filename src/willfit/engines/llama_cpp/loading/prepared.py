"""Projections of latents that ik_llama.cpp makes when it loads a file that lacks them (`llm_prepare_mla`).

Its `-mla` needs the matrix that makes keys and values of latents, the two parts of it, or all three. Files hold one or
the other, by who converted them; what is made lies beside the tensors that it is made of, and no log counts it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from willfit.architectures.mixers import LatentAttention
from willfit.architectures.model import Architecture
from willfit.checkpoints.gguf import GgufTensor
from willfit.engines.llama_cpp.loading.weights import Placed
from willfit.ggml_types import GGML_TYPES, INTERLEAVED_TYPES

_KEYS, _VALUES, _BOTH = "attn_k_b.weight", "attn_v_b.weight", "attn_kv_b.weight"
_HALVES = ("F16", "BF16")


def prepared(named: Mapping[str, Placed], architecture: Architecture, mla: int) -> tuple[Placed, ...]:
    """What is made for all layers.

    Parameters
    ----------
    named
        The file's tensors by name.
    mla
        How latent attention is computed: 0 not among latents, 1 among them only, more for both.
    """
    found: list[Placed] = []
    for index, layer in enumerate(architecture.layers):
        start = f"blk.{index}."
        k, v, both = (named.get(start + name) for name in (_KEYS, _VALUES, _BOTH))
        mixer = next((one for one in layer.mixers if isinstance(one, LatentAttention)), None)
        if both is not None and k is None and mla and mixer is not None:
            found += _parts(both, start, mixer)
        elif both is None and k is not None and v is not None and mla != 1:
            found.append(_whole(k, v, start))
    return tuple(found)


def _whole(k: Placed, v: Placed, start: str) -> Placed:
    plain, rank, heads, _ = k.ne
    kinds = {k.tensor.type, v.tensor.type}
    kind = kinds.pop() if len(kinds) == 1 and kinds <= set(_HALVES) else "Q8_0"
    return _made(k, start + _BOTH, kind, (rank, heads * (plain + v.ne[1])))


def _parts(both: Placed, start: str, mixer: LatentAttention) -> Iterator[Placed]:
    kind = both.tensor.type
    quantized = "Q8_0_R8" if kind in INTERLEAVED_TYPES else "Q8_0"
    keys = kind if GGML_TYPES[kind].block == 1 else quantized
    yield _made(both, start + _KEYS, keys, (mixer.nope_dim, mixer.kv_rank, mixer.heads))
    yield _made(both, start + _VALUES, kind, (mixer.kv_rank, mixer.value_dim, mixer.heads))


def _made(of: Placed, name: str, kind: str, ne: tuple[int, ...]) -> Placed:
    tensor = GgufTensor(name, kind, ne, GGML_TYPES[kind].stored(ne), 0, of.tensor.file)
    return Placed(name, tensor, replace(of.buffer, mapped=False, apart=False))
