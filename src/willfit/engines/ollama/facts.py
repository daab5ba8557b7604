"""What Ollama reads of a GGUF header: the numbers that its estimates and layouts are made of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from willfit.architectures.gguf.metadata import Metadata
from willfit.checkpoints.gguf import GgufArray, GgufHeader

_GROUP = re.compile(r"^(?P<group>(?:[\w-]+\.)*?(?:blk|mm)\.[^.]+|[^.]+)\.")
_CROSSING = re.compile(r"blk\.(\d+)\..*cross_attn")


@dataclass(frozen=True, slots=True)
class Vision:
    """An image encoder.

    Attributes
    ----------
    bytes
        Its tensors, without those that project to the language model (`mm.`).
    projecting
        Bytes of those.
    looked_up
        Bytes of tables of positions, which Ollama's own engine keeps on the host like those of tokens.
    own_file
        It has a file of its own.
    image_size, patch_size, channels, heads, embedding, tiles
        As in the header; 0 where that says nothing.
    class_token
        There is a position for the whole image.
    """

    bytes: int
    projecting: int = 0
    looked_up: int = 0
    own_file: bool = False
    image_size: int = 0
    patch_size: int = 0
    channels: int = 0
    heads: int = 0
    embedding: int = 0
    tiles: int = 0
    class_token: bool = False

    @property
    def total(self) -> int:
        """All its tensors."""
        return self.bytes + self.projecting


@dataclass(frozen=True, slots=True)
class Facts:
    """A model as Ollama's estimates see it.

    Attributes
    ----------
    architecture
        `general.architecture`.
    layers
        Bytes of each layer's tensors.
    largest_group
        Bytes of the largest group of tensors: a layer, or the token table.
    output_bytes
        The output layer: its norm, and its matrix or else the token table.
    input_bytes
        What stays on the host whatever is asked: token and position tables.
    file_bytes
        All tensors.
    embedding, vocabulary, feed_forward, context
        As in the header; `context` is what the model was trained for.
    heads, kv_heads
        Of each layer; empty where the header says nothing.
    listed_heads
        The header has a list for one of them.
    key_length, value_length
        Of a head; 0 where the header leaves them to the embedding.
    window
        Tokens that a sliding layer sees; 0 without.
    conv_kernel, inner_size, state_size, group_count
        Of recurrent layers.
    cross_layers
        Layers that look at an image instead of the text.
    gate_experts_bytes
        Gates of the first layer's experts where these are one tensor; 0 otherwise.
    gate_width
        Rows of the gate of the first layer's first expert where each is a tensor of its own; 0 otherwise.
    qkv_bias
        Numbers of the first layer's fused bias; 0 without.
    embeds
        It gives vectors: the header names a pooling.
    vision
        Its image encoder; None without one.
    draft_layers
        Multi-token-prediction layers.
    """

    architecture: str
    layers: tuple[int, ...]
    largest_group: int
    output_bytes: int
    input_bytes: int
    file_bytes: int
    embedding: int
    vocabulary: int
    feed_forward: int = 0
    context: int = 0
    heads: tuple[int, ...] = ()
    kv_heads: tuple[int, ...] = ()
    listed_heads: bool = False
    key_length: int = 0
    value_length: int = 0
    window: int = 0
    conv_kernel: int = 0
    inner_size: int = 0
    state_size: int = 0
    group_count: int = 0
    cross_layers: frozenset[int] = frozenset()
    gate_experts_bytes: int = 0
    gate_width: int = 0
    qkv_bias: int = 0
    embeds: bool = False
    vision: Vision | None = None
    draft_layers: int = 0

    @property
    def head_width(self) -> int:
        """The embedding divided by the heads, or the fewest of them; 0 without."""
        fewest = min(self.heads, default=0)
        return self.embedding // fewest if fewest else 0

    @property
    def inline(self) -> Vision | None:
        """The image encoder in the model's own file."""
        return self.vision if self.vision is not None and not self.vision.own_file else None

    @property
    def projector_bytes(self) -> int:
        """Bytes of an image encoder in a file of its own."""
        return self.vision.total if self.vision is not None and self.vision.own_file else 0


def facts_of(header: GgufHeader, architecture: str = "", vision: Vision | None = None) -> Facts:
    """What Ollama reads of a header.

    Parameters
    ----------
    architecture
        What Ollama's own file calls the architecture; empty for what the header does.
    vision
        An image encoder that the header does not have.

    Raises
    ------
    BadInput
        If the header lacks the number of layers or the width of the embedding.
    """
    meta = Metadata(header.metadata)
    count = meta.integer("block_count")
    groups: Counter[str] = Counter()
    for tensor in header.tensors:
        match = _GROUP.match(tensor.name)
        groups[match["group"] if match else tensor.name] += tensor.bytes
    by_name = {tensor.name: tensor for tensor in header.tensors}
    table = groups["token_embd"]
    gate_experts = by_name.get("blk.0.ffn_gate_exps.weight")
    gate = by_name.get("blk.0.ffn_gate.0.weight")
    bias = by_name.get("blk.0.attn_qkv.bias")
    heads, heads_listed = _each(header.metadata, f"{meta.architecture}.attention.head_count", count)
    kv_heads, kv_listed = _each(header.metadata, f"{meta.architecture}.attention.head_count_kv", count)
    crossing = (_CROSSING.match(tensor.name) for tensor in header.tensors)
    inputs = ("token_embd", "position_embd", "token_norm_embd", "token_types")
    return Facts(
        architecture=architecture or meta.architecture,
        layers=tuple(groups[f"blk.{index}"] for index in range(count)),
        largest_group=max(groups.values()),
        output_bytes=groups["output_norm"] + (groups["output"] or table),
        input_bytes=sum(groups[name] for name in inputs),
        file_bytes=sum(groups.values()),
        embedding=meta.integer("embedding_length"),
        vocabulary=_vocabulary(header, meta),
        feed_forward=meta.integer("feed_forward_length", 0),
        context=meta.integer("context_length", 0),
        heads=heads,
        kv_heads=kv_heads,
        listed_heads=heads_listed or kv_listed,
        key_length=meta.integer("attention.key_length", 0),
        value_length=meta.integer("attention.value_length", 0),
        window=meta.integer("attention.sliding_window", 0),
        conv_kernel=meta.integer("ssm.conv_kernel", 0),
        inner_size=meta.integer("ssm.inner_size", 0),
        state_size=meta.integer("ssm.state_size", 0),
        group_count=meta.integer("ssm.group_count", 0),
        cross_layers=frozenset(int(found[1]) for found in crossing if found),
        gate_experts_bytes=gate_experts.bytes if gate_experts else 0,
        gate_width=gate.ne[1] if gate and len(gate.ne) > 1 else 0,
        qkv_bias=prod(bias.ne) if bias else 0,
        embeds="pooling_type" in meta,
        vision=vision or _vision(meta, groups, by_name),
        draft_layers=meta.integer("nextn_predict_layers", 0),
    )


def _each(metadata: Mapping[str, Any], key: str, count: int) -> tuple[tuple[int, ...], bool]:
    """A number for each layer, and whether the header lists them; empty where it says nothing."""
    value = metadata.get(key)
    if isinstance(value, tuple | list):
        listed = tuple(int(item) for item in value[:count])
        return listed + (1,) * (count - len(listed)), True
    return ((int(value),) * count if isinstance(value, int) else ()), False


def _vocabulary(header: GgufHeader, meta: Metadata) -> int:
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, GgufArray | tuple | list):
        return tokens.length if isinstance(tokens, GgufArray) else len(tokens)
    table = next((tensor for tensor in header.tensors if tensor.name == "token_embd.weight"), None)
    return table.ne[1] if table and len(table.ne) > 1 else meta.integer("vocab_size", 0)


def _vision(meta: Metadata, groups: Mapping[str, int], names: Mapping[str, object]) -> Vision | None:
    if not meta.integer("vision.block_count", 0):
        return None
    return Vision(
        bytes=sum(size for name, size in groups.items() if name == "v" or name.startswith("v.")),
        projecting=sum(size for name, size in groups.items() if name == "mm" or name.startswith("mm.")),
        image_size=meta.integer("vision.image_size", 0),
        patch_size=meta.integer("vision.patch_size", 0),
        channels=meta.integer("vision.num_channels", 0),
        heads=meta.integer("vision.attention.head_count", 0),
        embedding=meta.integer("vision.embedding_length", 0),
        tiles=meta.integer("vision.max_num_tiles", 0),
        class_token="v.class_embd" in names,
    )
