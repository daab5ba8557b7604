"""The file types of llama.cpp: one name (`Q4_K_M`), many tensor types.

Which tensor gets which type is decided by its role, its place among the layers, the model's grouped-query
ratio and its number of experts, and by whether a row divides into blocks (`src/llama-quant.cpp`,
`llama_tensor_get_type_impl` and `tensor_type_fallback`; no importance matrix). Norms, biases, routers,
convolutions and other small tensors are written in F32 by the converter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from willfit.architectures.mixers import Attention, LatentAttention
from willfit.architectures.model import Architecture, Layer, Tensor
from willfit.formats.base import Format, Piece, Pieced
from willfit.formats.ggml import Ggml
from willfit.formats.recipe import Recipe
from willfit.formats.recipes.patterns import module_of
from willfit.ggml_types import GGML_TYPES

#: File type -> the type that most of its tensors have.
BASES: dict[str, str] = {
    **{name: name for name in (
        "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q6_K",
        "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ3_S", "IQ1_S", "IQ1_M", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0",
    )},
    "Q2_K": "Q2_K", "Q2_K_S": "Q2_K",
    "Q3_K_S": "Q3_K", "Q3_K_M": "Q3_K", "Q3_K_L": "Q3_K", "Q3_K": "Q3_K",
    "Q4_K_S": "Q4_K", "Q4_K_M": "Q4_K", "Q4_K": "Q4_K",
    "Q5_K_S": "Q5_K", "Q5_K_M": "Q5_K", "Q5_K": "Q5_K",
    "IQ2_S": "IQ2_XS", "IQ2_M": "IQ2_S",
    "IQ3_XS": "IQ3_S", "IQ3_M": "IQ3_S",
    "MXFP4_MOE": "Q8_0",
}  # fmt: skip

#: `llama-quantize` takes the bare name of a K-quant for its medium mix.
_MEDIUM = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}

_IQ1 = ("IQ1_S", "IQ1_M")
_IQ2_SMALL = ("IQ2_XXS", "IQ2_XS")
_IQ2_LARGE = ("IQ2_S", "IQ2_M")
_TINY = (*_IQ1, *_IQ2_SMALL, *_IQ2_LARGE)

#: What replaces a type whose block does not divide a row.
_FALLBACK = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}

#: Last word of a module name -> role of the tensor, for attention and for feed-forward parts.
_ATTENTION_ROLES = {
    **dict.fromkeys(("v_proj", "value", "qkv_proj", "query_key_value", "Wqkv", "c_attn", "W_pack"), "value"),
    **dict.fromkeys(("in_proj_qkv", "kv_b_proj", "wqkv", "qkv"), "value"),
    **dict.fromkeys(("q_proj", "query"), "query"),
    **dict.fromkeys(("k_proj", "key"), "key"),
    **dict.fromkeys(("o_proj", "out_proj", "dense", "c_proj", "wo"), "output"),
}
_MLP_ROLES = {
    **dict.fromkeys(("down_proj", "w2", "fc2", "dense_4h_to_h", "c_proj", "output_linear"), "down"),
    **dict.fromkeys(
        ("gate_proj", "w1", "up_proj", "w3", "fc1", "dense_h_to_4h", "c_fc", "gate_up_proj"), "up"
    ),
    **dict.fromkeys(("input_linear",), "up"),
}

#: One object for each type, so that equal tensors are counted together.
_STORED = {name: Ggml(name) for name in GGML_TYPES}
_F32 = _STORED["F32"]
_INDEX = re.compile(r"(?:^|\.)(\d+)\.")


@dataclass(frozen=True, slots=True)
class _SplitLatent(Pieced):
    """The up-projection of latent attention, which the converter cuts into keys (transposed) and values."""

    keys: Ggml
    values: Ggml
    key_dim: int
    value_dim: int

    @property
    def name(self) -> str:
        """See `Format.name`."""
        return f"{self.keys.name} + {self.values.name}"

    def pieces(self, shape: tuple[int, ...]) -> tuple[Piece, ...]:
        """See `Format.pieces`."""
        rank = shape[-1]
        heads = shape[0] // (self.key_dim + self.value_dim)
        return (
            *self.keys.pieces((heads, rank, self.key_dim)),
            *self.values.pieces((heads, self.value_dim, rank)),
        )


@lru_cache(maxsize=64)
def _split_latent(keys: Ggml, values: Ggml, key_dim: int, value_dim: int) -> _SplitLatent:
    return _SplitLatent(keys, values, key_dim, value_dim)


@dataclass(frozen=True)
class _Mix:
    """The rule of one file type for one model.

    Attributes
    ----------
    kind
        The file type.
    layers
        Number of decoder layers.
    values
        Place of a layer among those with a value-like projection, by layer index.
    downs
        Number of down projections before a layer, by layer index, counting shared experts apart.
    ratio
        Query heads for each KV head in the first layer; 0 if it has none.
    experts
        Routed experts of a layer; 0 if dense.
    tied, falcon, large
        There is no head of its own; the Falcon architecture; a Llama or Qwen2 of 80 layers.
    latent
        Key and value width of a head of latent attention, if the model has it.
    """

    kind: str
    layers: int
    values: dict[int, int]
    downs: dict[int, int]
    ratio: int
    experts: int
    tied: bool
    falcon: bool
    large: bool
    latent: tuple[int, int] | None

    def __call__(self, name: str, tensor: Tensor) -> Format:
        """See `Rule`."""
        base = BASES[self.kind]
        if tensor.kind not in ("linear", "embedding") or tensor.part == "router" or len(tensor.shape) < 2:
            return _F32
        word = module_of(name).rpartition(".")[2]
        if tensor.kind == "embedding" and ("position" in word or "token_type" in word or word == "wpe"):
            return _F32
        if tensor.shape[-2] == 1:
            return _F32
        if GGML_TYPES[base].block == 1:
            return _STORED[base]
        if word == "kv_b_proj" and self.latent:
            key_dim, value_dim = self.latent
            # Both halves are 3-D, which `MXFP4_MOE` takes for experts.
            role = "expert" if self.kind == "MXFP4_MOE" else "other"
            keys, values = self._fitting(role, 0, tensor, key_dim), self._fitting(role, 0, tensor)
            return _split_latent(keys, values, key_dim, value_dim)
        role = self._role(name, word, tensor)
        found = _INDEX.search(name)
        layer = int(found.group(1)) if found else 0
        if role == "down":
            shared = tensor.part == "mlp" and "shared" in name
            return self._fitting("shared" if shared else "down", layer, tensor)
        return self._fitting(role, layer, tensor)

    def _role(self, name: str, word: str, tensor: Tensor) -> str:
        if tensor.part == "head" or (tensor.kind == "embedding" and self.tied and "per_layer" not in word):
            return "head"
        if tensor.kind == "embedding":
            return "embedding"
        if tensor.part in ("mlp", "experts"):
            if word == "dense":  # BERT: `intermediate.dense` and `output.dense`
                return "down" if "output" in name else "up"
            return _MLP_ROLES.get(word, "other")
        if tensor.part == "attention" or word == "in_proj_qkv":
            return _ATTENTION_ROLES.get(word, "other")
        return "other"

    def _fitting(self, role: str, layer: int, tensor: Tensor, columns: int = 0) -> Ggml:
        """The chosen type, or the one that replaces it where a row is no whole number of blocks."""
        columns = columns or tensor.shape[-1]
        chosen = self._chosen(role, layer, tensor, columns)
        if columns % GGML_TYPES[chosen].block:
            chosen = _FALLBACK.get(chosen, "F16")
            if columns % GGML_TYPES[chosen].block:
                chosen = "F16"
        return _STORED[chosen]

    def _chosen(self, role: str, layer: int, tensor: Tensor, columns: int) -> str:
        kind, base = self.kind, BASES[self.kind]
        if role == "head":
            return self._head(columns)
        if kind == "MXFP4_MOE":
            return "MXFP4" if tensor.part == "experts" or role == "expert" else "Q8_0"
        if role == "embedding":
            small = {**dict.fromkeys((*_IQ1, *_IQ2_SMALL), "Q2_K"), **dict.fromkeys(_IQ2_LARGE, "IQ3_S")}
            return {**small, "IQ3_XXS": "IQ3_S", "TQ1_0": "Q4_K", "TQ2_0": "Q4_K"}.get(kind, base)
        if kind in _TINY:
            return self._tiny(role, layer)
        if role == "value":
            return self._value(self.values.get(layer, 0))
        if role in ("query", "key"):
            if role == "key" and self.experts == 8:
                return "Q8_0"
            return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(kind, base)
        if role in ("down", "shared"):
            return self._down(layer if self.experts > 1 else self.downs.get(layer, 0))
        if role == "output":
            return self._output()
        if role == "up" and kind == "IQ3_XS" and self.layers // 8 <= layer < 7 * self.layers // 8:
            return "IQ3_XXS"
        return base

    def _head(self, columns: int) -> str:
        base = BASES[self.kind]
        if self.kind == "MXFP4_MOE" or self.falcon or columns % GGML_TYPES[base].block:
            return "Q8_0"
        if self.kind in _TINY or self.kind == "IQ3_XXS":
            return "Q5_K"
        return base if base == "Q8_0" else "Q6_K"

    def _tiny(self, role: str, layer: int) -> str:
        """The types below three bits, which need an importance matrix."""
        base, better = BASES[self.kind], "IQ3_S" if self.kind in _IQ2_LARGE else "Q2_K"
        if role == "value":
            return "Q4_K" if self.ratio >= 4 or self.experts >= 4 else better
        if role == "key" and self.experts == 8:
            return "Q4_K"
        if role in ("down", "shared"):
            place = self.downs.get(layer, 0) + (role == "shared")
            return better if place < self.layers // 8 else base
        if role == "output":
            if self.experts == 8:
                return "Q5_K"
            return "IQ2_XXS" if self.kind in _IQ1 else "IQ3_S" if self.kind in _IQ2_LARGE else base
        return base

    def _value(self, place: int) -> str:
        kind, chosen, grouped = self.kind, BASES[self.kind], self.ratio >= 4
        if kind == "Q2_K":
            chosen = "Q4_K" if grouped else "Q3_K"
        elif kind == "IQ3_XXS":
            chosen = "Q4_K" if grouped else "IQ3_S"
        elif kind == "IQ3_M" or (kind in ("Q2_K_S", "IQ3_XS", "IQ3_S") and grouped):
            chosen = "Q4_K"
        elif kind == "Q3_K_M":
            chosen = "Q5_K" if place < 2 else "Q4_K"
        elif kind == "Q3_K_L" or (kind in ("IQ4_NL", "IQ4_XS") and grouped):
            chosen = "Q5_K"
        elif kind in ("Q4_K_M", "Q5_K_M") and _more_bits(place, len(self.values)):
            chosen = "Q6_K"
        elif kind == "Q4_K_S" and place < 4:
            chosen = "Q5_K"
        if self.large and chosen in ("Q3_K", "Q4_K"):
            chosen = "Q5_K"
        return "Q8_0" if self.experts == 8 else chosen

    def _down(self, place: int) -> str:
        kind, base, layers = self.kind, BASES[self.kind], self.layers
        early, more = place < layers // 8, _more_bits(place, layers)
        if kind == "Q2_K":
            return "Q3_K"
        if kind == "Q2_K_S":
            return "Q4_K" if early else base
        if kind == "IQ3_XXS":
            return "Q4_K" if early else "Q3_K"
        if kind == "Q3_K_M":
            if place < layers // 16:
                return "Q5_K"
            return "Q3_K" if self.falcon and not more else "Q4_K"
        if kind == "IQ3_M":
            return "Q4_K" if early or (self.experts == 8 and more) else base
        if kind == "Q3_K_L":
            return "Q4_K" if self.falcon else "Q5_K"
        if kind == "Q4_K_M" and self.falcon:
            return "Q6_K" if place < layers // 16 else "Q5_K" if more else "Q4_K"
        if kind in ("Q4_K_M", "Q5_K_M"):
            return "Q6_K" if more else base
        if early and (kind in ("IQ4_NL", "IQ4_XS") or (kind == "Q4_K_S" and not self.falcon)):
            return "Q5_K"
        return base

    def _output(self) -> str:
        kind, base = self.kind, BASES[self.kind]
        if self.falcon:
            return "Q4_K" if kind == "Q3_K_L" else base
        if self.experts == 8:
            low = ("Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M")
            return "Q5_K" if kind in low or kind.startswith(("IQ3", "IQ4")) else base
        better = {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}
        return better.get(kind, base)


def _more_bits(place: int, count: int) -> bool:
    """The first and last eighth of the layers, and every third between them."""
    eighth = count // 8
    return place < eighth or place >= 7 * count // 8 or (place - eighth) % 3 == 2


def gguf_mix(name: str, architecture: Architecture) -> Recipe:
    """The recipe of a llama.cpp file type for one model.

    Parameters
    ----------
    name
        A key of `BASES`, in any case.
    architecture
        The model; roles and layer counts decide the types.
    """
    kind = _MEDIUM.get(name.upper(), name.upper())
    values: dict[int, int] = {}
    downs: dict[int, int] = {}
    down = 0
    for index, layer in enumerate(architecture.layers):
        roles = _roles(layer)
        if "value" in roles:
            values[index] = len(values)
        downs[index] = down
        down += len(roles & {"down", "shared"})
    first = (
        architecture.layers[0].mixers[0] if architecture.layers and architecture.layers[0].mixers else None
    )
    if isinstance(first, Attention):
        ratio = first.heads // max(1, first.kv_heads)
    elif isinstance(first, LatentAttention):
        ratio = first.heads
    else:
        ratio = _scalar_ratio(architecture)
    latent = (first.nope_dim, first.value_dim) if isinstance(first, LatentAttention) else None
    vocabulary = architecture.vocab_size
    has_head = any(tensor.kind == "linear" and tensor.shape[0] == vocabulary for tensor in architecture.head)
    mix = _Mix(
        kind,
        len(architecture.layers),
        values,
        downs,
        ratio,
        max((ffn.experts for layer, _ in architecture.blocks if (ffn := layer.feed_forward)), default=0),
        not has_head,
        architecture.model_type in ("falcon", "RefinedWeb", "RefinedWebModel"),
        len(architecture.layers) == 80 and architecture.model_type in ("llama", "qwen2"),
        latent,
    )
    return Recipe(f"gguf {kind}", _F32, mix, by_layer=GGML_TYPES[BASES[kind]].block > 1)


def _roles(layer: Layer) -> frozenset[str]:
    """The roles that a layer's tensors have, as far as places are counted by them."""
    roles = set()
    for tensor in layer.tensors:
        word = module_of(tensor.name).rpartition(".")[2]
        if tensor.kind != "linear" or len(tensor.shape) < 2:
            continue
        is_down = _MLP_ROLES.get(word) == "down" or tensor.name.endswith(".output.dense.weight")
        if tensor.part in ("mlp", "experts") and is_down:
            roles.add("shared" if tensor.part == "mlp" and "shared" in tensor.name else "down")
        elif word != "kv_b_proj" and _ATTENTION_ROLES.get(word) == "value":
            roles.add("value")
    return frozenset(roles)


def _scalar_ratio(architecture: Architecture) -> int:
    """The ratio of a model whose first layer is no attention.

    Gated delta models write one number of KV heads for all layers; others write one for each layer, 0 here.
    """
    delta = architecture.layers and architecture.layers[0].kind.startswith("gated delta")
    for layer, _ in architecture.blocks if delta else ():
        for mixer in layer.mixers:
            if isinstance(mixer, Attention):
                return mixer.heads // max(1, mixer.kv_heads)
    return 0
