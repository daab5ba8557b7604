"""What one rank reads and computes in a pass: the part of a roofline that no machine changes.

Products take 2 operations for each weight and token (Kaplan et al. 2020, section 2.1); weights are read once a pass in
their stored bytes; of routed experts those that the tokens of the pass visit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from willfit.architectures.mixers import Mixer
from willfit.speed.arithmetic import distinct_experts
from willfit.speed.attention import decode_flops, prefill_flops, read_elements

#: How weights are stored, as far as kernels differ: 16 and 32 bits, 8-bit floats, 8-bit integers, 4-bit floats with
#: small blocks, AWQ's order of 4-bit integers, and all else that is unpacked on the way to 16-bit products.
Kind = Literal["plain", "fp8", "int8", "fp4", "awq", "int4"]
KINDS: tuple[Kind, ...] = ("plain", "fp8", "int8", "fp4", "awq", "int4")

#: Those that are multiplied in 16 bits once they are unpacked.
UNPACKED = frozenset({"int8", "awq", "int4"})


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of one kind that every pass reads whole.

    Attributes
    ----------
    kind
        How they are stored.
    bytes
        On one rank.
    products
        Multiplications of a token with them, on one rank.
    """

    kind: Kind
    bytes: int
    products: int


@dataclass(frozen=True, slots=True)
class Experts:
    """Routed experts of all layers that are alike.

    Attributes
    ----------
    kind, bytes, products
        As in `Weights`, of all experts of all these layers.
    experts, chosen
        How many a layer has, and how many a token visits.
    layers
        How many layers these are.
    """

    kind: Kind
    bytes: int
    products: int
    experts: int
    chosen: int
    layers: int

    def read(self, tokens: Any) -> Any:
        """Bytes that a pass of so many tokens reads: those of the experts that it visits."""
        return self.bytes / self.experts * distinct_experts(self.experts, self.chosen, tokens)

    def multiplied(self, tokens: Any) -> Any:
        """Multiplications of so many tokens."""
        return self.products * self.chosen / self.experts * tokens


@dataclass(frozen=True, slots=True)
class Mixed:
    """Mixers that are alike.

    Attributes
    ----------
    mixer, layers
        The mixer, and in how many layers it is.
    share
        Of its heads that one rank has; keys and values that all ranks need lie on each (`cache_share`).
    """

    mixer: Mixer
    layers: int
    share: float
    cache_share: float

    @property
    def group(self) -> float:
        """Query heads for each head of keys."""
        return getattr(self.mixer, "heads", 1) / getattr(self.mixer, "kv_heads", 1)


@dataclass(frozen=True, slots=True)
class Work:
    """A model on one of `ranks` tensor-parallel ranks, all pipeline stages together.

    Attributes
    ----------
    dense, encoder
        Weights of the decoder's layers, and of an encoder that runs once, on the source.
    experts
        Routed experts.
    head
        The output projection, which runs on the last position of each sequence.
    mixed, encoder_mixed
        Token mixers.
    row_bytes
        Of one token in the token table.
    state_bytes
        Of states of fixed size of one sequence, on this rank.
    cache_bytes
        Of one cached element.
    hidden, layers, ranks
        Width of the residual stream, layers, and the degree of tensor parallelism.
    source_tokens
        Positions of the encoder.
    causal
        Whether a token sees only those before it.
    """

    dense: tuple[Weights, ...]
    encoder: tuple[Weights, ...]
    experts: tuple[Experts, ...]
    head: tuple[Weights, ...]
    mixed: tuple[Mixed, ...]
    encoder_mixed: tuple[Mixed, ...]
    row_bytes: int
    state_bytes: int
    cache_bytes: float
    hidden: int
    layers: int
    ranks: int
    source_tokens: int
    causal: bool

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights of a rank but the token table."""
        whole = sum(one.bytes for one in (*self.dense, *self.encoder, *self.head))
        return whole + sum(one.bytes for one in self.experts)

    @property
    def products(self) -> int:
        """Multiplications with all weights of a rank: its parameters but for vectors, and a tied head's."""
        whole = sum(one.products for one in (*self.dense, *self.encoder, *self.head))
        return whole + sum(one.products for one in self.experts)

    def read_bytes(self, tokens: Any) -> Any:
        """Bytes of weights that a pass of so many tokens reads; of the table only their rows."""
        fixed = sum(one.bytes for one in (*self.dense, *self.head))
        return fixed + sum(one.read(tokens) for one in self.experts) + self.row_bytes * tokens

    def cache_read_bytes(self, length: Any, copies: float = 0, repeats: float = 0) -> Any:
        """Bytes of cache and states that decoding one token behind `length` tokens reads and writes.

        States are read and written back.

        Parameters
        ----------
        copies
            How often the cache is read or written beside what attention reads.
        repeats
            How often, for each query head of a key.
        """
        read = sum(
            one.layers
            * one.cache_share
            * (1 + copies + repeats * one.group)
            * read_elements(one.mixer, length, self.source_tokens)
            for one in self.mixed
        )
        return read * self.cache_bytes + 2 * self.state_bytes

    def decode_products_flops(self, sequences: Any) -> Any:
        """Operations of the matrix products of one step for so many sequences."""
        dense = sum(one.products for one in (*self.dense, *self.head)) * sequences
        return 2 * (dense + sum(one.multiplied(sequences) for one in self.experts))

    def decode_attention_flops(self, length: Any) -> Any:
        """Operations of the mixers for one token of one sequence behind `length - 1` others."""
        return sum(
            one.layers * one.share * decode_flops(one.mixer, length, self.source_tokens) for one in self.mixed
        )

    def prefill_products_flops(self, tokens: Any, sequences: Any = 1) -> Any:
        """Operations of the matrix products for prompts of `tokens` tokens in all; the head on each one's last."""
        layers = sum(one.products for one in self.dense) * tokens
        routed = sum(one.multiplied(tokens) for one in self.experts)
        source = sum(one.products for one in self.encoder) * self.source_tokens
        return 2 * (layers + routed + (sum(one.products for one in self.head) + source) * sequences)

    def prefill_attention_flops(self, tokens: Any) -> Any:
        """Operations of the mixers for the prompt of one sequence."""
        own = sum(
            one.layers * one.share * prefill_flops(one.mixer, tokens, self.causal, self.source_tokens)
            for one in self.mixed
        )
        return own + sum(
            one.layers * one.share * prefill_flops(one.mixer, self.source_tokens, causal=False)
            for one in self.encoder_mixed
        )
