"""In what Ollama's own files differ from those that llama.cpp's converter and `llama-quantize` make of a model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import isqrt
from typing import Literal

from willfit.architectures.mixers import LatentAttention
from willfit.architectures.model import Architecture, Tensor, Tower
from willfit.checkpoints.gguf import GgufHeader, GgufTensor
from willfit.engines.ollama.facts import Vision
from willfit.ggml_types import GGML_TYPES

#: Types that Ollama's own quantization chooses otherwise, by its name of the architecture, for mixes of four bits
#: (`server/quantization.go`).
_TYPES: dict[str, tuple[tuple[str, str], ...]] = {
    **dict.fromkeys(
        ("qwen3next", "qwen35", "qwen35moe"),
        (
            (r"\.(attn_v|ffn_down_exps|ffn_down_shexp)\.weight$", "Q6_K"),
            (
                r"\.(attn_(q|k|output|qkv|gate)|ssm_(ba|beta|alpha|out)|ffn_(gate|up)_(exps|shexp))\.weight$",
                "Q4_K",
            ),
        ),
    ),
    **dict.fromkeys(("deepseek2", "glm4moelite"), ((r"\.attn_(k_b|v_b|q_a|q_b|kv_a_mqa)\.weight$", "Q8_0"),)),
    **dict.fromkeys(("gemma3n", "gemma4"), ((r"^per_layer_token_embd\.weight$", "F16"),)),
    "glmocr": ((r"^(token_embd|output)\.weight$", "F16"),),
}
_FOUR_BITS = ("Q4_K_M", "Q4_K_S")
_LAYER = re.compile(r"blk\.(\d+)\.")
_TABLE, _HEAD = "token_embd.weight", "output.weight"

#: Parts of names of tensors that lead from an encoder to the language model.
_PROJECTING = re.compile(r"multi_modal|mm_projector|embed_vision|embed_audio|vision_adapter")
#: Tables of positions that the files call like those of language models (`position_embd`).
_LOOKED_UP = re.compile(r"position_embedding_table$|gated_positional_embedding\.(embedding|gate)$")
#: Tables that are stored in 32 bits (`convert/reader.go: Kind`).
_IN_FLOAT = re.compile(r"position_embedding_table$|positional_embedding_vlm$")
#: Positions of Llama 3.2's encoder.
_POSITIONS = "gated_positional_embedding.embedding"
#: Tiles of an image, where an encoder takes several.
_TILES = {"mllama": 4}


@dataclass(frozen=True, slots=True)
class Stored:
    """How Ollama stores a model.

    Attributes
    ----------
    architecture
        What its file calls the architecture; empty for llama.cpp's name.
    encoder
        Where its image encoder is: in the model's own file, or in one of its own; empty without one.
    quant
        The mix.
    types
        Pairs of a pattern of tensor names and a type that these have.
    own_rules
        Ollama's own rules for mixes were in force when it was made.
    whole_heads
        Latent attention is stored as if every head had keys and values of its own.
    drafts
        Modules that draft: layers as llama.cpp has them (empty), tensors `apart` from the layers, or `none`.
    untied
        The head is stored beside the token table that it equals.
    words
        Rows of the token table, where these are fewer than the config says; 0 for those.
    """

    architecture: str = ""
    encoder: Literal["", "inline", "file"] = ""
    quant: str = ""
    types: tuple[tuple[str, str], ...] = ()
    own_rules: bool = True
    whole_heads: bool = False
    drafts: Literal["", "apart", "none"] = ""
    untied: bool = False
    words: int = 0


#: As llama.cpp's own tools would.
AS_CONVERTED = Stored()


def as_stored(
    header: GgufHeader, architecture: Architecture, stored: Stored, translated: bool = False
) -> GgufHeader:
    """The header of Ollama's own file.

    Parameters
    ----------
    header
        What llama.cpp's converter and `llama-quantize` would make.
    translated
        llama.cpp reads it, and finds modules that draft where it has them itself.
    """
    name = str(header.metadata.get("general.architecture", ""))
    rules = list(stored.types)
    if stored.quant in _FOUR_BITS and stored.own_rules:
        rules += _TYPES.get(stored.architecture or name, ())
    if rules:
        patterns = [(re.compile(pattern), kind) for pattern, kind in rules]
        header = replace(header, tensors=tuple(_retyped(tensor, patterns) for tensor in header.tensors))
    if stored.drafts == "none" or (stored.drafts and not translated):
        header = _without_drafts(header, name, stored.drafts == "apart")
    if stored.words:
        tensors = tuple(_cut(tensor, stored.words) for tensor in header.tensors)
        header = replace(header, tensors=tensors)
    if stored.untied:
        header = replace(header, tensors=tuple(_untied(header)))
    first = next((mixer for layer in architecture.layers for mixer in layer.mixers), None)
    if stored.whole_heads and isinstance(first, LatentAttention):
        changed = {
            f"{name}.attention.head_count_kv": first.heads,
            f"{name}.attention.key_length": first.nope_dim + first.rope_dim,
            f"{name}.attention.value_length": first.value_dim,
        }
        tensors = tuple(_joined(header, first))
        metadata = {key: value for key, value in header.metadata.items() if not key.endswith("_mla")}
        header = replace(header, metadata={**metadata, **changed}, tensors=tensors)
    return header


def _without_drafts(header: GgufHeader, name: str, apart: bool) -> GgufHeader:
    """Without modules that draft among the layers; `apart` they are stored outside of them."""
    count, drafting = f"{name}.block_count", f"{name}.nextn_predict_layers"
    first = int(header.metadata.get(count, 0)) - int(header.metadata.get(drafting, 0))
    tensors = []
    for tensor in header.tensors:
        found = _LAYER.match(tensor.name)
        if found is None or int(found[1]) < first:
            tensors.append(tensor)
        elif apart:
            index = int(found[1]) - first
            tensors.append(replace(tensor, name=f"mtp.layers.{index}.{tensor.name[found.end() :]}"))
    metadata = {key: value for key, value in header.metadata.items() if key != drafting}
    return replace(header, metadata={**metadata, count: first}, tensors=tuple(tensors))


def _cut(tensor: GgufTensor, words: int) -> GgufTensor:
    """A token table without the rows that only pad it."""
    if tensor.name not in (_TABLE, _HEAD):
        return tensor
    ne = (tensor.ne[0], words)
    return replace(tensor, ne=ne, bytes=_bytes(ne, tensor.type))


def _untied(header: GgufHeader) -> Iterator[GgufTensor]:
    """With a head beside the token table, which then has the type that most matrices have."""
    table = next((tensor for tensor in header.tensors if tensor.name == _TABLE), None)
    common = Counter(tensor.type for tensor in header.tensors if len(tensor.ne) > 1).most_common(1)
    for tensor in header.tensors:
        yield _retyped(tensor, [(re.compile(f"^{_TABLE}$"), common[0][0])]) if tensor is table else tensor
    if table is not None and all(tensor.name != _HEAD for tensor in header.tensors):
        yield replace(table, name=_HEAD)


def _joined(header: GgufHeader, mixer: LatentAttention) -> Iterator[GgufTensor]:
    """With one matrix that makes keys and values of all heads, of the type that the output's has."""
    types = {tensor.name: tensor.type for tensor in header.tensors}
    for tensor in header.tensors:
        if tensor.name.endswith("attn_k_b.weight"):
            continue
        if tensor.name.endswith("attn_v_b.weight"):
            layer = tensor.name.removesuffix("attn_v_b.weight")
            ne = (mixer.kv_rank, mixer.heads * (mixer.nope_dim + mixer.value_dim))
            kind = types.get(f"{layer}attn_output.weight", tensor.type)
            tensor = replace(
                tensor, name=f"{layer}attn_kv_b.weight", ne=ne, type=kind, bytes=_bytes(ne, kind)
            )
        yield tensor


def _retyped(tensor: GgufTensor, patterns: Iterable[tuple[re.Pattern[str], str]]) -> GgufTensor:
    kind = next((kind for pattern, kind in patterns if pattern.search(tensor.name)), None)
    if kind is None or kind == tensor.type or tensor.ne[0] % GGML_TYPES[kind].block:
        return tensor
    return replace(tensor, type=kind, bytes=_bytes(tensor.ne, kind))


def _bytes(ne: Iterable[int], kind: str) -> int:
    return GGML_TYPES[kind].stored(tuple(ne))


def encoder_of(architecture: Architecture, stored: Stored) -> Vision | None:
    """The image encoder of a model as Ollama stores it; None if it has none, or the architecture does not show it."""
    tower = next((tower for tower in architecture.towers if tower.modality == "vision"), None)
    if tower is None or not stored.encoder:
        return None
    cut = _patches(tower)
    patch = cut.shape[-1] if cut is not None else 0
    tensors = [one for tower in architecture.towers for one in tower.tensors]
    projecting = sum(_stored(one, stored) for one in tensors if _PROJECTING.search(one.name))
    return Vision(
        bytes=sum(_stored(one, stored) for one in tensors) - projecting,
        projecting=projecting,
        looked_up=sum(_stored(one, stored) for one in tensors if _LOOKED_UP.search(one.name)),
        own_file=stored.encoder == "file",
        image_size=_side(tower) * patch,
        patch_size=patch,
        channels=cut.shape[1] if cut is not None else 0,
        heads=tower.heads,
        embedding=tower.hidden_size,
        tiles=_TILES.get(stored.architecture, 0),
        class_token=any("class_embedding" in one.name for one in tower.tensors),
    )


def _patches(tower: Tower) -> Tensor | None:
    """The convolution that cuts an image into patches."""
    return next((one for one in tower.tensors if one.kind == "conv" and "patch" in one.name), None)


def _side(tower: Tower) -> int:
    """Patches along the side of an image."""
    table = next((one for one in tower.tensors if one.name.endswith(_POSITIONS)), None)
    return isqrt(tower.positions or (table.shape[0] if table is not None else 0))


def _stored(tensor: Tensor, stored: Stored) -> int:
    """Bytes of an encoder's tensor: matrices in 16 bits, vectors in 32, and some tables of positions too."""
    in_float = (
        len(tensor.shape) < 2
        or (stored.architecture == "mllama" and tensor.kind == "other")
        or _IN_FLOAT.search(tensor.name) is not None
    )
    return tensor.elements * (4 if in_float else 2)
