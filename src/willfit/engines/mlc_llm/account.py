"""MLC's own account of a card's memory, by which it sizes its cache (`cpp/serve/config.cc: EstimateMemoryUsageOnMode`).

What it counts is not what is allocated: it takes the compiler's plan twice, scores of a whole part of a prompt with it,
keys and values in 16 bits, and so many bytes for the workspaces of attention as they had once. `estimate` counts what
is allocated.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from willfit.architectures.mixers import Attention, LatentAttention
from willfit.engines.base import Machine, Subject
from willfit.engines.mlc_llm.models import OPEN_VOCABULARY, ROLLING, SHORT_PART, SHORT_PARTS, WINDOW_ENDS
from willfit.engines.mlc_llm.planning import planned, usual
from willfit.engines.mlc_llm.settings import Settings
from willfit.formats.weights import WeightLine
from willfit.quantities import DTYPE_BYTES, MIB, ceil_div

#: Tokens of a page (`cpp/serve/config.h`).
PAGE = 16

#: Sequences and tokens of the cache that `local` takes at most, and tokens that Metal takes whatever there is room for.
_LOCAL_SEQUENCES, _LOCAL_TOKENS, METAL_TOKENS = 4, 8192, 32768

#: What the account puts down for attention: bytes for each sequence, each token of a part of a prompt and head, of an
#: element of a query or key, and at once; beside each token of the cache; and for scores of a sequence and a word.
_SEQUENCE, _HEAD, _ELEMENT, _AT_ONCE = 88, 8, 4, 48 * MIB
_TOKEN = 1.25
_SCORES, _SCORE = 20, 16.125

#: How often it takes the compiler's plan.
_TIMES = 2

#: Bytes of a matrix in 4 bits beside those in 16.
_QUANTIZED = 4.5 / 16

#: How far a plan may be off that no log shows.
_LESS, _MORE = 0.6, 1.6


@dataclass(frozen=True)
class Account:
    """A model on cards, as MLC counts it.

    Attributes
    ----------
    subject, machine, settings
        What is run, where, and how.
    """

    subject: Subject
    machine: Machine
    settings: Settings

    # What there is

    @property
    def ranks(self) -> int:
        """Cards that divide matrices."""
        return self.settings.tensor_parallel_shards

    @cached_property
    def dtype(self) -> str:
        """Dtype that the model computes in; fp16 for a file whose format is refused."""
        name = self.subject.recipe.base.name
        return name if name in DTYPE_BYTES else "fp16"

    @property
    def width(self) -> int:
        """Bytes of a number."""
        return DTYPE_BYTES[self.dtype]

    @cached_property
    def weights(self) -> int:
        """Bytes of the parameters on a card: the table and the head are not divided."""
        return sum(self._held(line) for line in self.subject.lines)

    @property
    def weights_interval(self) -> tuple[int, int]:
        """What parameters may take: of encoders of images, some matrices are quantized and some are not."""
        less, more = self.subject.weight_sureness
        towers = sum(self._held(line) for line in self.subject.lines if line.tensor.part == "vision")
        maybe = int(towers * (1 - _QUANTIZED)) if self.subject.recipe.method == "mlc" else 0
        return int((self.weights - maybe) * less), int(self.weights * more)

    def _held(self, line: WeightLine) -> int:
        tensor = line.tensor
        if tensor.kind == "buffer" or tensor.part in ("mtp", "audio"):
            return 0
        size = line.bytes if tensor.part in ("head", "embedding") else line.on_rank(self.ranks)
        if line.format.name in ("fp32", "fp16", "bf16"):
            size = size // DTYPE_BYTES[line.format.name] * self.width
        return size

    @cached_property
    def mixers(self) -> tuple[Attention | LatentAttention, ...]:
        """The attention of each layer that keeps a cache."""
        mixers = (mixer for layer in self.subject.architecture.layers for mixer in layer.mixers)
        return tuple(
            mixer
            for mixer in mixers
            if isinstance(mixer, LatentAttention) or (isinstance(mixer, Attention) and mixer.keeps_cache)
        )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Query heads, key/value heads and width of a head on a card, and of a value: all layers are alike."""
        if not self.mixers:
            return 1, 1, 1, 1
        mixer = self.mixers[0]
        heads = ceil_div(mixer.heads, self.ranks)
        if isinstance(mixer, LatentAttention):
            return heads, 1, mixer.kv_rank + mixer.rope_dim, mixer.kv_rank
        return heads, ceil_div(mixer.kv_heads, self.ranks), mixer.head_dim, mixer.head_dim

    @property
    def latent(self) -> bool:
        """Whether the cache is of latents, for keys and values alike."""
        return bool(self.mixers) and isinstance(self.mixers[0], LatentAttention)

    @property
    def page_bytes(self) -> int:
        """Bytes of a page over all layers."""
        _, heads, width, _ = self.shape
        return len(self.mixers) * (1 if self.latent else 2) * heads * PAGE * width * self.width

    # What is asked for

    @property
    def rolling(self) -> bool:
        """Whether only a window of the last tokens is kept."""
        attention = [one for one in self.mixers if isinstance(one, Attention)]
        kind = self.subject.architecture.model_type
        return kind in ROLLING and bool(attention) and all(one.window for one in attention)

    @cached_property
    def limit(self) -> int | None:
        """Tokens of the longest sequence; None without an end."""
        architecture = self.subject.architecture
        if self.settings.context_window_size:
            return self.settings.context_window_size
        if self.rolling:
            return None
        least = WINDOW_ENDS.get(architecture.model_type)
        windows = [one.window for one in self.mixers if isinstance(one, Attention) and one.window]
        if least is not None and windows:
            return max(least, max(windows))
        return architecture.max_positions or None

    @property
    def configured_chunk(self) -> int:
        """Tokens of a part of a prompt in the model's configuration."""
        architecture = self.subject.architecture
        if self.settings.config_prefill_chunk_size:
            return self.settings.config_prefill_chunk_size
        most = self.settings.era.chunk
        if architecture.model_type in SHORT_PARTS:
            most = min(most, SHORT_PART)
        if self.rolling:
            most = min(most, max(getattr(one, "window", 0) for one in self.mixers))
        return min(most, self.limit or most)

    @property
    def compiled_chunk(self) -> int:
        """Tokens of a part of a prompt that buffers are planned for."""
        asked = self.settings.prefill_chunk_size
        return min(asked, self.limit or asked) if asked else self.configured_chunk

    @property
    def configured_batch(self) -> int:
        """Most sequences in the model's configuration."""
        return self.settings.config_max_batch_size or self.settings.era.batch

    @property
    def compiled_batch(self) -> int:
        """Most sequences that the model is compiled for."""
        return self.settings.max_num_sequence or self.configured_batch

    @property
    def sequences(self) -> int:
        """Sequences that run at once."""
        settings = self.settings
        if settings.max_num_sequence:
            return settings.max_num_sequence
        if settings.mode == "interactive":
            return 1
        most = self.configured_batch
        return min(_LOCAL_SEQUENCES, most) if settings.mode == "local" else most

    # What is planned

    @cached_property
    def plan(self) -> tuple[int, int, int]:
        """Elements for each token in the compiler's plan, without scores: likely, at least and at most."""
        architecture, era = self.subject.architecture, self.settings.era
        size = planned(architecture, self.ranks)
        more = architecture.hidden_size if era.one_hidden_more else 0
        if self.ranks > 1:
            # Sums over cards are tensors of their own.
            more += architecture.hidden_size
        if usual(architecture) and self.ranks == 1:
            return size + more, size, size + more
        if usual(architecture):
            return size + more, size, size + 2 * more
        return size + more, int(_LESS * size), int(_MORE * (size + more))

    @property
    def scores(self) -> int:
        """Bytes for each token of scores that are in the plan, where the vocabulary is known to the compiler."""
        architecture = self.subject.architecture
        if architecture.model_type in OPEN_VOCABULARY:
            return 0
        plain = self.subject.recipe.method == "" and not architecture.tied and self.settings.libraries
        # Products of a library are in 16 bits before they are turned into fp32.
        return architecture.vocab_size * (DTYPE_BYTES["fp32"] + (self.width if plain else 0))

    @property
    def planned_bytes(self) -> tuple[int, int, int]:
        """Bytes of the largest plan, as `mlc_llm compile` says: likely, at least and at most.

        It is that of checking drafted tokens, with scores of all of them, where the vocabulary is known; else that of
        parts of prompts, with the hidden states of their last tokens.
        """
        last = 0 if self.scores or self.settings.era.one_hidden_more else self.compiled_batch
        last *= self.subject.architecture.hidden_size * self.width
        likely, low, high = (
            self.compiled_chunk * (size * self.width + self.scores) + last for size in self.plan
        )
        return likely, low, high

    @property
    def temporary(self) -> tuple[int, int, int]:
        """Bytes that the account puts down for the plan: likely, at least and at most."""
        likely, low, high = (_TIMES * size for size in self.planned_bytes)
        return likely, low, high

    # What the account says

    @property
    def token(self) -> float:
        """Bytes of a token in the cache, as counted."""
        _, heads, width, _ = self.shape
        return width * heads * len(self.mixers) * 4 + _TOKEN

    @property
    def attention(self) -> int:
        """Bytes of the tables and workspaces of attention, as counted."""
        heads, kv_heads, width, _ = self.shape
        chunk = self.configured_chunk
        return (
            (self.sequences + 1) * _SEQUENCE
            + chunk * (heads + 1) * _HEAD
            + chunk * width * (heads + kv_heads) * _ELEMENT
            + _AT_ONCE
        )

    @property
    def workspaces(self) -> float:
        """Bytes of hidden states and scores, as counted."""
        heads, _, width, _ = self.shape
        chunk, sequences = self.configured_chunk, self.sequences
        hidden = chunk * 4 + sequences * 4 + (2 * chunk + sequences) * heads * width * 2
        return hidden + sequences * _SCORES + sequences * self.subject.architecture.vocab_size * _SCORE

    @property
    def card_bytes(self) -> int | None:
        """Memory of a card as its driver says; None if it is not known."""
        return min((one.usable_bytes or 0 for one in self.machine.devices[: self.ranks]), default=0) or None

    @property
    def metal(self) -> bool:
        """Whether it runs on Apple's cards."""
        return any(one.vendor == "Apple" for one in self.machine.devices)

    def fitting(self, temporary: int) -> int | None:
        """Tokens that a card has room for, as counted; None if its memory is not known."""
        if self.card_bytes is None:
            return None
        share = self.settings.gpu_memory_utilization * self.card_bytes
        tokens = int((share - self.weights - temporary - self.attention - self.workspaces) / self.token)
        return min(tokens, METAL_TOKENS) if self.metal else tokens

    @cached_property
    def tokens(self) -> tuple[int, int, int]:
        """Tokens of the cache: likely, at least and at most."""
        likely, low, high = (self._tokens(self.fitting(size)) for size in self.temporary)
        return likely, min(likely, high), max(likely, low)

    def _tokens(self, fitting: int | None) -> int:
        settings = self.settings
        if fitting is not None and fitting <= 0:
            return 0
        if settings.max_total_seq_length:
            return settings.max_total_seq_length
        most = [fitting] if fitting is not None else []
        if self.limit is not None:
            most.append(self.limit * (self.sequences if settings.mode == "server" else 1))
        if settings.mode == "local":
            most.append(_LOCAL_TOKENS)
        return min(most, default=_LOCAL_TOKENS)

    @property
    def chunk(self) -> int:
        """Tokens of a part of a prompt while it runs."""
        tokens = self.tokens[0]
        if self.settings.prefill_chunk_size or self.settings.mode == "server" or not tokens:
            return self.compiled_chunk
        return min(self.compiled_chunk, tokens, self.limit or tokens)
