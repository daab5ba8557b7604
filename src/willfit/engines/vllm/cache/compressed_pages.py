"""What one layer of DeepSeek-V4's compressed attention keeps: a window, entries, index keys and partial states.

`models/deepseek_v4/attention.py`, `compressor.py`, `v1/attention/backends/mla/sparse_swa.py` (0.33).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from willfit.architectures.mixers import CompressedAttention
from willfit.quantities import DTYPE_BYTES, round_up

#: Kind, tokens in a block, bytes of a block, and window of what a layer keeps.
Page = tuple[Literal["sliding", "mla", "indexer"], int, int, int]

#: Tokens in a block of entries, of a window, and of the states of each ratio.
_ENTRY_BLOCK = 256
_WINDOW_BLOCK = 64
_STATE_BLOCKS = {4: 4, 128: 8}

#: Bytes of a packed token: 8-bit latent, 16-bit rotary part, scales; and of an index key's scale.
_PACKED = 584
_INDEX_SCALE = 4

#: Pages are multiples of this, where tokens are packed and where they are not.
_PACKED_STEP, _PLAIN_STEP = 576, 512


def has_unknown_states(mixer: CompressedAttention) -> bool:
    """Whether a layer's partial states are kept in a way that is not established (DeepSeek-V4.1's rings)."""
    return mixer.keeps_entries and mixer.ratio > 1 and mixer.ratio not in _STATE_BLOCKS


def compressed_pages(mixer: CompressedAttention, kv_dtype: str) -> Iterator[Page]:
    """A window, and with a compressor its entries, their index keys and partial states.

    Parameters
    ----------
    kv_dtype
        `fp8_ds_mla` for packed tokens, else the dtype of plain rows.
    """
    packed = kv_dtype == "fp8_ds_mla"
    step = _PACKED_STEP if packed else _PLAIN_STEP
    token = _PACKED if packed else mixer.head_dim * DTYPE_BYTES[kv_dtype]
    yield "sliding", _WINDOW_BLOCK, round_up(_WINDOW_BLOCK * token, step), mixer.window
    if not mixer.ratio or not mixer.keeps_entries:
        return
    entries = _ENTRY_BLOCK // mixer.ratio
    yield "mla", _ENTRY_BLOCK, round_up(entries * token, step), 0
    if mixer.index_dim:
        yield "indexer", _ENTRY_BLOCK, round_up(entries * (mixer.index_dim + _INDEX_SCALE), step), 0
    block = _STATE_BLOCKS.get(mixer.ratio)
    if block is None:
        return
    spans = 2 if mixer.overlaps else 1
    # Index keys have a compressor of their own. Projections and scores of each token are kept in fp32.
    for width in (mixer.head_dim, mixer.index_dim):
        if width:
            yield (
                "sliding",
                block,
                round_up(block * 2 * spans * width * DTYPE_BYTES["fp32"], step),
                spans * mixer.ratio,
            )
