"""From a GGUF header to an `Architecture`: the header lists every tensor, its metadata says what layers keep.

Metadata keys: llama.cpp, `src/llama-arch.cpp`; sliding-window patterns: `src/llama-model.cpp` and
`src/models/*.cpp`; widths of recurrent states: `src/llama-hparams.cpp`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from willfit.architectures.blocks.decoder import MAX_LAYERS
from willfit.architectures.mixers import Attention, LatentAttention, Mixer, Recurrent
from willfit.architectures.model import Architecture, FeedForward, Kind, Layer, Part, Rope, Split, Tensor
from willfit.checkpoints.gguf import GgufHeader, GgufTensor
from willfit.errors import BadInput

#: Architectures in which every n-th layer sees everything and the others slide.
_FULL_EVERY = {"gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "cohere2": 4, "exaone4": 4, "llama4": 4}

#: Tokens of a Llama 4 attention chunk, which files of this architecture do not state.
_LLAMA4_CHUNK = 8192

_BLOCK = re.compile(r"^(?:(enc|dec)\.)?blk\.(\d+)\.(.+)$")
_ENCODERS = frozenset(
    {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert", "t5encoder"}
)


class _Metadata:
    """Look-ups under the architecture's own prefix, with the layer's entry where a value is a list."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        name = values.get("general.architecture")
        if not isinstance(name, str) or not name:
            raise BadInput("the GGUF header has no 'general.architecture'", "it is needed to size the model")
        self.architecture = name

    def integer(self, key: str, default: int | None = None, layer: int = 0) -> int:
        """A whole number; the layer's own if the file has one for each."""
        value = self.values.get(f"{self.architecture}.{key}")
        if isinstance(value, tuple | list):
            value = value[layer] if layer < len(value) else None
        if isinstance(value, bool) or not isinstance(value, int):
            if default is None:
                field = f"{self.architecture}.{key}"
                raise BadInput(f"the GGUF header has no number {field!r}", "it is needed to size the model")
            return default
        if not 0 <= value < 2**48:
            raise BadInput(f"the GGUF header: {self.architecture}.{key} is {value}")
        return value

    def flags(self, key: str) -> tuple[bool, ...] | None:
        """A list of truth values, None if it is no list."""
        value = self.values.get(f"{self.architecture}.{key}")
        return tuple(bool(item) for item in value) if isinstance(value, tuple | list) else None


def architecture_of(header: GgufHeader) -> Architecture:
    """The architecture that a GGUF header describes.

    Raises
    ------
    BadInput
        If metadata that is needed to size the model is missing.
    """
    meta = _Metadata(header.metadata)
    hidden = meta.integer("embedding_length")
    count = meta.integer("block_count")
    if not 0 < count <= MAX_LAYERS:
        raise BadInput(f"the GGUF header: block_count is {count}, expected 1 to {MAX_LAYERS}")
    blocks: dict[int, list[GgufTensor]] = {}
    encoder_blocks: dict[int, list[GgufTensor]] = {}
    outside: list[GgufTensor] = []
    for tensor in header.tensors:
        match = _BLOCK.match(tensor.name)
        if match is None:
            outside.append(tensor)
        elif match.group(1) == "enc":
            encoder_blocks.setdefault(int(match.group(2)), []).append(tensor)
        else:
            blocks.setdefault(int(match.group(2)), []).append(tensor)
    drafts = meta.integer("nextn_predict_layers", 0)
    encoder_only = meta.architecture in _ENCODERS
    reader = _Layers(meta, count - drafts, keeps_cache=not encoder_only)
    inputs = [t for t in outside if t.name.startswith(("token_", "position_", "per_layer"))]
    outputs = [t for t in outside if t.name.startswith("output")]
    others = [t for t in outside if t not in inputs and t not in outputs]
    table = next((t for t in outside if t.name == "token_embd.weight"), None)
    vocab = table.shape[0] if table and len(table.shape) == 2 else meta.integer("vocab_size", 0)
    dimension = meta.integer("rope.dimension_count", 0)
    return Architecture(
        model_type=meta.architecture,
        family="gguf",
        hidden_size=hidden,
        vocab_size=vocab,
        max_positions=meta.integer("context_length", 0),
        dtype="fp16",
        embeddings=tuple(_tensor(t, "norm" if "norm" in t.name else "embedding") for t in inputs),
        layers=tuple(reader.layer(index, blocks.get(index, [])) for index in range(count - drafts)),
        head=tuple(_tensor(t, "norm" if "norm" in t.name else "head") for t in outputs),
        tied=not any(t.name == "output.weight" for t in outside),
        encoder=tuple(reader.layer(index, tensors) for index, tensors in sorted(encoder_blocks.items())),
        shared=tuple(_tensor(t, "norm") for t in others),
        mtp=tuple(
            _tensor(tensor, "mtp")
            for index in range(count - drafts, count)
            for tensor in blocks.get(index, [])
        ),
        ropes=(Rope(dimension),) if dimension else (),
        encoder_only=encoder_only,
        causal=not encoder_only,
    )


class _Layers:
    """Makes layers, the same object for layers that are alike."""

    def __init__(self, meta: _Metadata, count: int, keeps_cache: bool) -> None:
        self.meta = meta
        self.count = count
        self.keeps_cache = keeps_cache
        self.made: dict[Any, Layer] = {}

    def layer(self, index: int, tensors: list[GgufTensor]) -> Layer:
        """Layer `index` with its tensors."""
        records = tuple(
            _tensor(tensor, _part(tensor.name), tensor.name.replace(f"blk.{index}.", "blk.{layer}.", 1))
            for tensor in tensors
        )
        names = {record.name.rpartition("{layer}.")[2].partition(".")[0] for record in records}
        mixers = self._mixers(index, names)
        key = (records, mixers)
        if key not in self.made:
            self.made[key] = Layer(records, mixers, self._feed_forward(index, names))
        return self.made[key]

    def _mixers(self, index: int, names: set[str]) -> tuple[Mixer, ...]:
        mixers: list[Mixer] = []
        if names & {"attn_k", "attn_qkv", "attn_kv_a_mqa", "attn_q"} and not names & {"ssm_beta", "ssm_ba"}:
            attention = self._attention(index, names)
            if attention is not None:
                mixers.append(attention)
        if any(name.startswith(("ssm_", "shortconv", "time_mix")) for name in names):
            mixers.append(self._recurrent(index, names))
        return tuple(mixers)

    def _attention(self, index: int, names: set[str]) -> Mixer | None:
        meta = self.meta
        heads = meta.integer("attention.head_count", layer=index)
        kv_heads = meta.integer("attention.head_count_kv", heads, layer=index)
        if not heads or not kv_heads:
            return None
        hidden = meta.integer("embedding_length")
        key_dim = meta.integer("attention.key_length", hidden // heads, layer=index)
        value_dim = meta.integer("attention.value_length", key_dim, layer=index)
        rank = meta.integer("attention.kv_lora_rank", 0)
        if rank:
            rope = meta.integer("rope.dimension_count")
            full = meta.integer("attention.key_length_mla", key_dim)
            value = meta.integer("attention.value_length_mla", value_dim)
            return LatentAttention(
                heads,
                rank,
                rope,
                max(0, full - rope),
                value,
                meta.integer("attention.q_lora_rank", 0),
                meta.integer("attention.indexer.head_count", 0),
                meta.integer("attention.indexer.key_length", 0),
            )
        window, chunk = self._reach(index)
        if window:
            key_dim = meta.integer("attention.key_length_swa", key_dim)
            value_dim = meta.integer("attention.value_length_swa", value_dim)
        shared = meta.integer("attention.shared_kv_layers", 0)
        return Attention(
            heads,
            kv_heads,
            key_dim,
            value_dim,
            window=window,
            chunk=chunk,
            shares_cache=bool(shared) and index >= self.count - shared,
            keeps_cache=self.keeps_cache,
        )

    def _reach(self, index: int) -> tuple[int, int]:
        """(window, chunk) of a layer in tokens, 0 where it sees everything."""
        meta = self.meta
        window = meta.integer("attention.sliding_window", 0)
        pattern = meta.flags("attention.sliding_window_pattern")
        if pattern is not None:
            return (window if index < len(pattern) and pattern[index] else 0), 0
        every = meta.integer("attention.sliding_window_pattern", _FULL_EVERY.get(meta.architecture, 0))
        slides = bool(every) and (index + 1) % every != 0
        if meta.architecture == "llama4":
            return 0, (meta.integer("attention.chunk_size", _LLAMA4_CHUNK) if slides else 0)
        return (window if slides else 0), 0

    def _recurrent(self, index: int, names: set[str]) -> Recurrent:
        meta = self.meta
        hidden = meta.integer("embedding_length")
        if any(name.startswith("shortconv") for name in names):
            return Recurrent("short convolution", hidden, meta.integer("shortconv.l_cache"))
        if any(name.startswith("time_mix") for name in names):
            shifts = meta.integer("token_shift_count", 2)
            return Recurrent("rwkv", shifts * hidden, 2, hidden * meta.integer("wkv.head_size"))
        inner = meta.integer("ssm.inner_size")
        state = meta.integer("ssm.state_size")
        groups = meta.integer("ssm.group_count", 0)
        kind = "gated delta" if names & {"ssm_beta", "ssm_ba"} else "mamba2" if groups else "mamba"
        channels = inner + 2 * groups * state
        return Recurrent(
            kind, channels, meta.integer("ssm.conv_kernel"), inner * state, 1, inner + channels, inner
        )

    def _feed_forward(self, index: int, names: set[str]) -> FeedForward | None:
        meta = self.meta
        routed = any(name.endswith("_exps") for name in names)
        width = meta.integer("feed_forward_length", 0, layer=index)
        if routed:
            expert = meta.integer("expert_feed_forward_length", width)
            shared = meta.integer("expert_shared_count", 0)
            return FeedForward(
                meta.integer("expert_shared_feed_forward_length", shared * expert),
                experts=meta.integer("expert_count"),
                top_k=meta.integer("expert_used_count", 1),
                expert_width=expert,
            )
        return FeedForward(width, gated="ffn_gate" in names) if width else None


def _tensor(tensor: GgufTensor, part: Part, name: str | None = None) -> Tensor:
    shape = tensor.shape
    kind: Kind = "linear"
    if part == "embedding":
        kind = "embedding"
    elif tensor.name.endswith(".bias"):
        kind = "bias"
    elif len(shape) < 2:
        kind = "norm" if "norm" in tensor.name else "other"
    elif "conv" in tensor.name:
        kind = "conv"
    split = Split(0, shape[0]) if kind in ("linear", "embedding") and len(shape) == 2 else None
    return Tensor(name or tensor.name, shape, part, kind, split)


def _part(name: str) -> Part:
    leaf = name.rpartition("blk.")[2].partition(".")[2]
    if "norm" in leaf:
        return "norm"
    if leaf.startswith("ffn_gate_inp") or leaf.startswith("exp_probs"):
        return "router"
    if "_exps" in leaf:
        return "experts"
    if leaf.startswith(("ffn", "channel_mix")):
        return "mlp"
    if leaf.startswith(("ssm", "shortconv", "time_mix")):
        return "mixer"
    return "attention"
