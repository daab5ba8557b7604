"""What a layer of a GGUF file keeps: its metadata and the tensors that it has decide.

Where llama.cpp keeps more than the model's maths needs, because it does not know a smaller way, this says
what llama.cpp keeps: a GGUF file is run by it. That is so for the windows of Phi-3 and for latent attention
in files that lack the divided up-projections.

Sources: llama.cpp, `src/llama-hparams.cpp` (widths of states), `load_arch_hparams` in `src/models/*.cpp`
(windows, kinds of layers), `llama_model::create_memory` in `src/llama-model.cpp`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from willfit.architectures.gguf.metadata import Metadata
from willfit.architectures.mixers import (
    Attention,
    CompressedAttention,
    CrossAttention,
    LatentAttention,
    Mixer,
    Recurrent,
)
from willfit.architectures.mixers.recurrent import (
    gated_delta,
    linear_attention,
    mamba,
    mamba2,
    short_convolution,
)

#: Run without a cache: encoders, and diffusion models that see the whole text in each step.
UNCACHED = frozenset(
    {
        "bert", "dream", "eurobert", "gemma-embedding", "jina-bert-v2", "jina-bert-v3", "llada", "llada-moe",
        "modern-bert", "neo-bert", "nomic-bert", "nomic-bert-moe", "rnd1", "t5encoder",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Windows:
    """Which layers see a window: every n-th sees everything, 0 for none of them; the first or the last of n.

    `window` stands for one that the file does not state.
    """

    every: int
    window: int = 0
    full_first: bool = False


#: Models that have no head if their files list none; others take the table of embeddings as their head. BitNet reads
#: that table where it is, heads that draft borrow that of their model.
HEADLESS = (UNCACHED | {"bitnet", "dflash", "eagle3"}) - {
    "dream",
    "gemma-embedding",
    "llada",
    "llada-moe",
    "rnd1",
    "t5encoder",
}
#: Encoders that llama.cpp gives a cache all the same.
CACHED_ENCODERS = frozenset(("t5encoder",))


#: Where the file need not list the layers.
_WINDOWS: dict[str, _Windows] = {
    "afmoe": _Windows(4),
    "cohere2": _Windows(4),
    "cohere2moe": _Windows(4, full_first=True),
    "exaone-moe": _Windows(4, 128),
    "exaone4": _Windows(4, 4096),
    "gemma-embedding": _Windows(6),
    "gemma2": _Windows(2, 4096),
    "gemma3": _Windows(6),
    "gemma3n": _Windows(5),
    "gpt-oss": _Windows(2),
    "laguna": _Windows(4, full_first=True),
    "lfm2": _Windows(0),
    "llama4": _Windows(4),
    "mellum": _Windows(4),
    "modern-bert": _Windows(3, full_first=True),
    "muse-glimmer": _Windows(4),
    "olmo2": _Windows(4),
    "plamo3": _Windows(8),
    "smallthinker": _Windows(4, full_first=True),
}

#: Only the EXAONE 4 model of so many layers has windows.
_EXAONE4_LAYERS = 64
#: What SmallThinker's windows are, whatever its files say.
_SMALLTHINKER_WINDOW = 4096
#: Tokens of a Llama 4 attention chunk, which its files do not state.
_LLAMA4_CHUNK = 8192
#: Every n-th layer of MiniMax-Text-01 has softmax attention, unless the file says otherwise.
_MINIMAX_INTERVAL = 8
#: Layers of Gemma 3n that have keys and values of their own; others read theirs.
_GEMMA3N_OWN = 20
#: Rows of an indexer's cache for a token where keys are pooled (`src/llama-memory-hybrid-idx.cpp`).
_POOLED_ROWS = 3
#: The compression at which DeepSeek-V4 overlaps its entries.
_OVERLAPPING_RATIO = 4


@dataclass(frozen=True, slots=True)
class MixerReader:
    """Makes the mixers of layers.

    Attributes
    ----------
    meta
        The metadata.
    count
        Layers of the model, without draft modules.
    keeps_cache
        False for an encoder.
    """

    meta: Metadata
    count: int
    keeps_cache: bool = True

    def mixers(self, index: int, shapes: Mapping[str, tuple[int, ...]]) -> tuple[Mixer, ...]:
        """The mixers of a layer.

        Parameters
        ----------
        index
            Which layer.
        shapes
            Shape of each of its tensors, by the name behind the layer's index: `attn_q.weight`.

        Raises
        ------
        BadInput
            If metadata that is needed is missing.
        """
        names = frozenset(leaf.partition(".")[0] for leaf in shapes)
        state = self._state(index, names)
        # These layers mix with a state alone: what is called attention projects into it.
        exclusive = state is not None and state.kind in ("gated delta", "kimi delta", "linear attention")
        found: list[Mixer] = [state] if state is not None else []
        if not exclusive and names & {"attn_q", "attn_qkv", "attn_k", "attn_kv", "attn_kv_a_mqa"}:
            attention = self._attention(index, names, shapes.get("attn_q.weight"))
            if attention is not None:
                found.append(attention)
        if "cross_attn_k" in names:
            heads, key, _ = self._heads(index)
            found.append(CrossAttention(heads, self.meta.integer("attention.head_count_kv", heads), key))
        if "ple_conv1d" in names:
            found.append(self._memory())
        return tuple(found) * self._runs(index)

    def _runs(self, index: int) -> int:
        """How often a layer is run, each time with a cache of its own."""
        meta = self.meta
        if "hrm.layers_per_stack" in meta:
            high = meta.integer("hrm.h_cycles")
            return (
                high if index >= meta.integer("hrm.layers_per_stack") else high * meta.integer("hrm.l_cycles")
            )
        return meta.integer("num_loops", 1)

    def _heads(self, index: int) -> tuple[int, int, int]:
        """Heads, and the width of a key and of a value."""
        meta = self.meta
        heads = meta.integer("attention.head_count", layer=index)
        first = meta.integer("attention.head_count", layer=0) or heads
        default = meta.integer("embedding_length") // first if first else 0
        key = meta.integer("attention.key_length", default, layer=index)
        return heads, key, meta.integer("attention.value_length", default, layer=index)

    def _attention(self, index: int, names: frozenset[str], queries: tuple[int, ...] | None) -> Mixer | None:
        meta = self.meta
        heads, key, value = self._heads(index)
        kv_heads = meta.integer("attention.head_count_kv", heads, layer=index)
        if not heads or not kv_heads:
            return None
        if "attn_kv" in names and "attention.compress_ratios" in meta:
            return self._compressed(index, heads, key, names)
        index_heads, index_dim = self._indexer(index, names)
        if "attn_kv_a_mqa" in names and "attention.kv_lora_rank_swa" in meta and self._reach(index)[0]:
            return self._windowed_latent(index, heads)
        if "attn_kv_a_mqa" in names and "attention.key_length_mla" in meta:
            rank = meta.integer("attention.kv_lora_rank")
            rope = max(0, key - rank)
            return LatentAttention(
                heads,
                rank,
                rope,
                max(0, meta.integer("attention.key_length_mla") - rope),
                meta.integer("attention.value_length_mla"),
                meta.integer("attention.q_lora_rank", 0),
                index_heads,
                index_dim,
            )
        window, chunk = self._reach(index)
        if window:
            key = meta.integer("attention.key_length_swa", key)
            value = meta.integer("attention.value_length_swa", value)
        return Attention(
            heads,
            kv_heads,
            key,
            value,
            window=window,
            chunk=chunk,
            shares_cache=self._own_caches() <= index < self.count,
            keeps_cache=self.keeps_cache,
            gated=queries is not None and queries[0] == 2 * heads * key,
            index_dim=index_dim,
        )

    def _windowed_latent(self, index: int, heads: int) -> LatentAttention:
        """Latents of other widths, in layers with a window."""
        meta = self.meta
        rank = meta.integer("attention.kv_lora_rank_swa")
        rope = max(0, meta.integer("attention.key_length_swa") - rank)
        return LatentAttention(
            heads,
            rank,
            rope,
            max(0, meta.integer("attention.key_length_mla_swa") - rope),
            meta.integer("attention.value_length_mla_swa"),
            meta.integer("attention.q_lora_rank", 0),
            window=self._reach(index)[0],
        )

    def _compressed(self, index: int, heads: int, key: int, names: frozenset[str]) -> CompressedAttention:
        meta = self.meta
        ratio = meta.integer("attention.compress_ratios", 0, layer=index)
        indexed = "indexer_compressor_kv" in names
        return CompressedAttention(
            heads,
            key,
            meta.integer("attention.sliding_window"),
            meta.integer("attention.q_lora_rank"),
            ratio,
            overlaps=ratio == _OVERLAPPING_RATIO,
            index_heads=meta.integer("attention.indexer.head_count", 0) if indexed else 0,
            index_dim=meta.integer("attention.indexer.key_length", 0) if indexed else 0,
        )

    def _indexer(self, index: int, names: frozenset[str]) -> tuple[int, int]:
        """Heads and key width of a sparse indexer; (0, 0) where the layer has none of its own."""
        meta = self.meta
        kinds = meta.flags("attention.indexer.types")
        shares = kinds is not None and index < len(kinds) and not kinds[index]
        if "indexer" not in names or shares:
            return 0, 0
        # Pooled keys are kept with the sums that they are made of.
        rows = _POOLED_ROWS if meta.integer("attention.indexer.kpool", 0) else 1
        width = meta.integer("attention.indexer.key_length")
        return meta.integer("attention.indexer.head_count"), rows * width

    def _own_caches(self) -> int:
        """How many of the first layers have a cache of their own."""
        meta = self.meta
        if "attention.shared_kv_layers" in meta:
            return self.count - meta.integer("attention.shared_kv_layers")
        return _GEMMA3N_OWN if meta.architecture == "gemma3n" else self.count

    def _reach(self, index: int) -> tuple[int, int]:
        """(window, chunk) of a layer in tokens, 0 where it sees everything."""
        meta = self.meta
        if meta.architecture == "exaone4" and self.count != _EXAONE4_LAYERS:
            return 0, 0
        rule = _WINDOWS.get(meta.architecture)
        window = meta.integer("attention.sliding_window", rule.window if rule else 0)
        if meta.architecture == "smallthinker" and window:
            window = _SMALLTHINKER_WINDOW
        pattern = meta.flags("attention.sliding_window_pattern")
        if pattern is not None:
            slides = index < len(pattern) and pattern[index]
        elif rule is not None:
            every = meta.integer("attention.sliding_window_pattern", rule.every)
            full_at = 0 if rule.full_first else every - 1
            slides = index < self.count and (not every or index % every != full_at)
        else:
            slides = False
        if not slides:
            return 0, 0
        if meta.architecture == "llama4":
            off = "attention.sliding_window" in meta and not window
            return 0, 0 if off else _LLAMA4_CHUNK
        return window, 0

    def _state(self, index: int, names: frozenset[str]) -> Recurrent | None:
        """The state of fixed size that the layer keeps."""
        meta = self.meta
        hidden = meta.integer("embedding_length")
        if "shortconv" in names:
            return short_convolution(hidden, meta.integer("shortconv.l_cache"))
        if any(name.startswith("time_mix") for name in names):
            shifts = meta.integer("token_shift_count", 2)
            head = meta.integer("wkv.head_size")
            return Recurrent(
                "rwkv", shifts * hidden, 2, hidden * head, hidden // head if head else 1, 4 * hidden, hidden
            )
        if meta.architecture == "minimax-01" and self._is_lightning(index):
            heads, key, _ = self._heads(index)
            return linear_attention(heads, key)
        if not any(name.startswith("ssm_") for name in names):
            return None
        kernel = meta.integer("ssm.conv_kernel", 4)
        if "kda.head_dim" in meta and "ssm_conv1d_q" in names:
            heads, width = meta.integer("attention.head_count"), meta.integer("kda.head_dim")
            return gated_delta(heads, width, heads, width, kernel, kind="kimi delta")
        inner, size = meta.integer("ssm.inner_size"), meta.integer("ssm.state_size")
        groups = meta.integer("ssm.group_count", 0)
        heads = meta.integer("ssm.time_step_rank", 0)
        if names & {"ssm_ba", "ssm_beta"}:
            value = inner // heads if heads else 0
            return gated_delta(groups, size, heads, value, kernel)
        if groups and heads:
            return mamba2(heads, inner // heads, groups, size, kernel)
        return mamba(inner, size, kernel, heads)

    def _memory(self) -> Recurrent:
        """The dilated convolution behind the n-gram memory of Qwen4."""
        meta = self.meta
        channels = meta.integer("hyper_connection.count") * meta.integer("embedding_length")
        inputs = (meta.integer("ple.conv_kernel") - 1) * meta.integer("ple.ngram_size")
        return Recurrent("n-gram memory", channels, inputs + 1, 0, 1, channels, channels)

    def _is_lightning(self, index: int) -> bool:
        listed = self.meta.flags("attention.recurrent_layers")
        if listed is not None:
            return index < len(listed) and listed[index]
        every = self.meta.integer("full_attention_interval", _MINIMAX_INTERVAL)
        return (index + 1) % every != 0 if every else True
