"""From a GGUF header to an `Architecture`: it lists every tensor, its metadata says what layers keep."""

from __future__ import annotations

import re
from typing import Any

from willfit.architectures.blocks.decoder import MAX_LAYERS
from willfit.architectures.blocks.mtp import mtp_modules
from willfit.architectures.gguf.metadata import Metadata
from willfit.architectures.gguf.mixers import CACHED_ENCODERS, HEADLESS, UNCACHED, MixerReader
from willfit.architectures.gguf.tensors import feed_forward, outer_part, part_of, record
from willfit.architectures.model import Architecture, Layer, Rope
from willfit.checkpoints.gguf import GgufHeader, GgufTensor
from willfit.errors import BadInput

_BLOCK = re.compile(r"^(?P<stack>enc\.|dec\.|)blk\.(?P<index>\d{1,6})\.(?P<leaf>.+)$")

#: What the file holds, by `general.type` or `general.architecture`, if it is no language model.
_NO_MODEL = {
    "clip": "a projector for images or audio",
    "mmproj": "a projector for images or audio",
    "adapter": "a LoRA adapter",
    "imatrix": "an importance matrix",
    "vocab": "a vocabulary",
}


def architecture_of(header: GgufHeader) -> Architecture:
    """The architecture that a GGUF header describes.

    Raises
    ------
    BadInput
        If the file holds no language model, metadata that is needed to size it is missing, or a layer is.
    """
    meta = Metadata(header.metadata)
    holds = _NO_MODEL.get(meta.architecture) or _NO_MODEL.get(str(header.metadata.get("general.type")))
    if holds is not None:
        raise BadInput(f"the GGUF file holds {holds}, no model", "give the GGUF file of the model itself")
    if not header.tensors:
        raise BadInput("the GGUF header lists no tensors", "give the file that holds the model")
    hidden = meta.integer("embedding_length")
    count = _layers(meta, "block_count")
    stacks: dict[str, dict[int, list[GgufTensor]]] = {"": {}, "enc.": {}, "dec.": {}}
    outside: list[GgufTensor] = []
    for tensor in header.tensors:
        match = _BLOCK.match(tensor.name)
        if match is None:
            outside.append(tensor)
        else:
            stacks[match["stack"]].setdefault(int(match["index"]), []).append(tensor)
    uncached = meta.architecture in UNCACHED
    encoder: tuple[Layer, ...] = ()
    if stacks["enc."]:
        cached = meta.architecture in CACHED_ENCODERS
        encoder = _stack("enc.", stacks["enc."], count, MixerReader(meta, count, keeps_cache=cached))
    drafts: tuple[Layer, ...] = ()
    if stacks["dec."]:
        count = _layers(meta, "decoder_block_count", count)
        layers = _stack("dec.", stacks["dec."], count, MixerReader(meta, count))
    elif encoder:
        layers, encoder = encoder, ()
    else:
        if "hrm.layers_per_stack" in meta:
            count = 2 * meta.integer("hrm.layers_per_stack")  # what is counted is how often they are run
        all_layers = count
        count -= _draft_layers(meta, stacks[""], count)
        reader = MixerReader(meta, count, keeps_cache=not uncached)
        found = _stack("", stacks[""], all_layers, reader)
        layers, drafts = found[:count], found[count:]
    return _assembled(meta, hidden, outside, layers, encoder, drafts, uncached)


def _assembled(
    meta: Metadata,
    hidden: int,
    outside: list[GgufTensor],
    layers: tuple[Layer, ...],
    encoder: tuple[Layer, ...],
    drafts: tuple[Layer, ...],
    uncached: bool,
) -> Architecture:
    table = next((t for t in outside if t.name == "token_embd.weight"), None)
    places: dict[str, list[GgufTensor]] = {"embedding": [], "head": [], "shared": []}
    for tensor in outside:
        part = outer_part(tensor.name)
        where = part if part in places else "shared"
        if part == "norm":
            stem = tensor.name.removeprefix("dec.")
            where = "head" if stem.startswith(("output", "cls")) else "shared"
            where = "embedding" if stem.startswith(("token_", "per_layer_")) else where
        places[where].append(tensor)
    made = {
        where: tuple(record(tensor, outer_part(tensor.name)) for tensor in tensors)
        for where, tensors in places.items()
    }
    dimension = meta.integer("rope.dimension_count", 0)
    return Architecture(
        model_type=meta.architecture,
        family="gguf",
        hidden_size=hidden,
        vocab_size=table.shape[0] if table and len(table.shape) == 2 else meta.integer("vocab_size", 0),
        max_positions=meta.integer("context_length", 0),
        dtype="fp16",
        embeddings=made["embedding"],
        layers=layers,
        head=made["head"],
        tied=meta.architecture not in HEADLESS and all(tensor.name != "output.weight" for tensor in outside),
        encoder=encoder,
        shared=made["shared"],
        ropes=(Rope(dimension),) if dimension else (),
        encoder_only=uncached,
        causal=meta.boolean("attention.causal", not uncached),
        **mtp_modules(drafts, first=len(layers)),
    )


def _layers(meta: Metadata, key: str, default: int | None = None) -> int:
    count = meta.integer(key, default)
    if not 0 < count <= MAX_LAYERS:
        raise BadInput(f"the GGUF header: {meta.architecture}.{key} is {count}, expected 1 to {MAX_LAYERS}")
    return count


def _draft_layers(meta: Metadata, blocks: dict[int, list[GgufTensor]], count: int) -> int:
    """How many of the last layers are multi-token-prediction modules, not part of the model proper."""
    drafts = meta.integer("nextn_predict_layers", 0)
    if drafts >= count:
        raise BadInput(
            "the GGUF file holds multi-token-prediction modules alone",
            "give the GGUF file of the model itself",
        )
    modules = [tensor for index in range(count - drafts, count) for tensor in blocks.get(index, ())]
    return drafts if any(".nextn." in tensor.name for tensor in modules) else 0


def _stack(
    stack: str, blocks: dict[int, list[GgufTensor]], count: int, reader: MixerReader
) -> tuple[Layer, ...]:
    """The layers of one stack, the same object for layers that are alike."""
    made: dict[Any, Layer] = {}
    layers = []
    for index in range(count):
        if index not in blocks:
            raise BadInput(
                f"the GGUF header lists no tensors of layer {index} of {count}", "is a part of it missing?"
            )
        prefix = f"{stack}blk.{index}."
        leaves = [tensor.name.removeprefix(prefix) for tensor in blocks[index]]
        tensors = tuple(
            record(tensor, part_of(leaf), f"{stack}blk.{{layer}}.{leaf}")
            for tensor, leaf in zip(blocks[index], leaves, strict=True)
        )
        shapes = {leaf: tensor.shape for tensor, leaf in zip(tensors, leaves, strict=True)}
        mixers = reader.mixers(index, shapes)
        top_k = reader.meta.integer("expert_used_count", 0, layer=index)
        key = (tensors, mixers, top_k)
        if key not in made:
            made[key] = Layer(tensors, mixers, feed_forward(shapes, top_k))
        layers.append(made[key])
    return tuple(layers)
