"""What a token mixer reads and computes: pairs of a query and a key, and the elements of its cache.

Everything serves an integer and a NumPy array alike; sums over a prompt are closed forms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from willfit.architectures.mixers import (
    Attention,
    CompressedAttention,
    CrossAttention,
    IndexedAttention,
    LatentAttention,
    Mixer,
    Recurrent,
)
from willfit.quantities import at_most

#: Keys that a sparse indexer chooses: `index_topk` of the published configs (DeepSeek-V3.2, report section 2.1).
CHOSEN_KEYS = 2048

#: Multiplications and additions for one element of a recurrent state and one token: decay, update and read-out, as
#: the recurrent form has them (Dao and Gu 2024, equation 16). A scan in chunks trades some for matrix products.
_PER_STATE = 6


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a query of some mixer looks.

    Attributes
    ----------
    window, chunk
        Tokens of a sliding window, or of a chunk; 0 for all that came before.
    """

    window: int = 0
    chunk: int = 0

    def keys(self, tokens: Any) -> Any:
        """Keys that the last of so many tokens looks at."""
        return at_most(tokens, self.window or self.chunk) if self.window or self.chunk else tokens

    def pairs(self, tokens: Any) -> Any:
        """Pairs of a query and a key over a whole causal prompt: 1 + 2 + ... as far as the mixer looks."""
        if self.window:
            seen = at_most(tokens, self.window)
            return seen * (seen + 1) // 2 + (tokens - seen) * self.window
        if self.chunk:
            whole, rest = tokens // self.chunk, tokens % self.chunk
            return whole * (self.chunk * (self.chunk + 1) // 2) + rest * (rest + 1) // 2
        return tokens * (tokens + 1) // 2


def decode_flops(mixer: Mixer, tokens: Any, source_tokens: Any = 0) -> Any:
    """Operations beside the projections for the last of `tokens` tokens of one sequence, in one layer.

    Two for each multiplication with its addition. MLA decodes on the latents themselves (DeepSeek-V2, section 2.1.2),
    so a pair takes `kv_rank` for the value and `kv_rank + rope_dim` for the score.
    """
    if isinstance(mixer, Attention):
        seen = Reach(mixer.window, mixer.chunk).keys(tokens)
        return 2 * mixer.heads * (mixer.head_dim + mixer.value_dim) * seen
    if isinstance(mixer, LatentAttention):
        seen = Reach(_chosen(mixer)).keys(tokens)
        scored = tokens // mixer.index_pool * mixer.index_heads * mixer.index_dim
        return 2 * mixer.heads * (mixer.latent_per_token + mixer.kv_rank) * seen + 2 * scored
    return _other_flops(mixer, 1, tokens, Reach(_chosen(mixer)).keys(tokens), source_tokens)


def prefill_flops(mixer: Mixer, tokens: Any, causal: bool = True, source_tokens: Any = 0) -> Any:
    """Operations beside the projections for a whole prompt of one sequence, in one layer.

    MLA runs a prompt with keys and values made whole from the latents.
    """
    if isinstance(mixer, Attention):
        whole = (mixer.keeps_cache and causal) or mixer.window
        pairs = Reach(mixer.window, mixer.chunk).pairs(tokens) if whole else tokens * tokens
        return 2 * mixer.heads * (mixer.head_dim + mixer.value_dim) * pairs
    pairs = tokens * (tokens + 1) // 2
    if isinstance(mixer, LatentAttention):
        width = mixer.nope_dim + mixer.rope_dim + mixer.value_dim
        scored = pairs // mixer.index_pool * mixer.index_heads * mixer.index_dim
        return 2 * mixer.heads * width * Reach(_chosen(mixer)).pairs(tokens) + 2 * scored
    return _other_flops(mixer, tokens, pairs, Reach(_chosen(mixer)).pairs(tokens), source_tokens)


def _other_flops(mixer: Mixer, queries: Any, pairs: Any, seen: Any, source_tokens: Any) -> Any:
    """Of mixers that compute alike in a prompt and behind it.

    Parameters
    ----------
    queries, pairs
        Tokens that look, and pairs of them with all that they could look at.
    seen
        Pairs of those that are looked at.
    """
    if isinstance(mixer, CrossAttention):
        return 4 * mixer.heads * mixer.head_dim * queries * (mixer.source_tokens or source_tokens)
    if isinstance(mixer, IndexedAttention):
        scored = pairs * mixer.index_heads * mixer.index_dim
        return 2 * mixer.heads * (mixer.head_dim + mixer.value_dim) * seen + 2 * scored
    if isinstance(mixer, CompressedAttention):
        entries = pairs // mixer.ratio if mixer.ratio else 0 * pairs
        scored = entries * mixer.index_heads * mixer.index_dim
        chosen = at_most(entries, CHOSEN_KEYS * queries) if mixer.index_heads else entries
        return 4 * mixer.heads * mixer.head_dim * (seen + chosen) + 2 * scored
    if isinstance(mixer, Recurrent):
        convolved = 2 * mixer.conv_channels * mixer.conv_kernel
        return (_PER_STATE * mixer.recurrent + convolved) * queries
    raise TypeError(f"a mixer of an unknown kind: {mixer.kind}")


def read_elements(mixer: Mixer, tokens: Any, source_tokens: Any = 0) -> Any:
    """Cached elements that decoding the next token behind `tokens` tokens reads, of one sequence in one layer.

    All that it keeps, but where an indexer chooses: then all index keys and the chosen entries. A layer that shares
    another's cache keeps nothing and reads it all the same.
    """
    if isinstance(mixer, Attention) and mixer.shares_cache:
        return Reach(mixer.window, mixer.chunk).keys(tokens) * mixer.elements_per_token
    kept = mixer.cached_elements(tokens, source_tokens)
    chosen = _chosen(mixer)
    if isinstance(mixer, LatentAttention) and mixer.index_dim:
        return kept - (tokens - Reach(chosen).keys(tokens)) * mixer.latent_per_token
    if isinstance(mixer, IndexedAttention):
        own = mixer.kv_heads * (mixer.head_dim + mixer.value_dim)
        return kept - (tokens - Reach(chosen).keys(tokens)) * own
    return kept


def state_elements(mixer: Mixer) -> int:
    """Elements of states of fixed size, which each step reads and writes whole."""
    return sum(state.elements for state in mixer.fixed_states)


def _chosen(mixer: Mixer) -> int:
    """The window of a mixer, or as many keys as its indexer chooses; 0 for all."""
    if isinstance(mixer, LatentAttention):
        return mixer.window or (CHOSEN_KEYS if mixer.index_dim else 0)
    if isinstance(mixer, CompressedAttention):
        return mixer.window
    return CHOSEN_KEYS if isinstance(mixer, IndexedAttention) else 0
