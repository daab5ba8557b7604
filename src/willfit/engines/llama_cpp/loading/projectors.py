"""What the header of a projector's file says of its encoder (`tools/mtmd/clip.cpp: load_hparams`)."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

from willfit.checkpoints.gguf import GgufHeader
from willfit.engines.llama_cpp.graph.pictures import Encoder

#: Side in tokens of the picture that encoders run on at start; others take one of the size in their file.
_SIDES = {
    "qwen2vl_merger": 46, "qwen2.5vl_merger": 46, "qwen3vl_merger": 46, "glm4v": 46, "dots_ocr": 46,
    "pixtral": 16, "lightonocr": 16, "kimivl": 16, "phi4": 16,
}  # fmt: skip
#: Side in tokens of the largest picture of encoders that take several sizes, unless their file says it.
_LARGEST = {
    "qwen2vl_merger": 64, "qwen2.5vl_merger": 64, "qwen3vl_merger": 64, "glm4v": 64, "pixtral": 32, "kimivl": 32,
}  # fmt: skip
#: Encoders that are built as `graph/pictures.py` does.
_KNOWN = frozenset(("qwen3vl_merger",))
_MERGE = {name: 2 for name in _SIDES if name.endswith("_merger") or name == "glm4v"}
#: Kernels of a convolution over frames; others have one.
_FRAMES = 2


def side_of(kind: str, patch: int, merge: int, image: int) -> int:
    """Side in pixels of the picture that an encoder runs on at start."""
    return _SIDES[kind] * patch * merge if kind in _SIDES else image


def largest_of(kind: str, patch: int, merge: int, most_pixels: int) -> int:
    """Side in pixels of the largest picture that an encoder is given whole; 0 where all have one size.

    Parameters
    ----------
    most_pixels
        `clip.vision.image_max_pixels`; 0 where the file does not say it.
    """
    if kind not in _SIDES:
        return 0
    token = patch * merge
    return _LARGEST[kind] * token if kind in _LARGEST else isqrt(most_pixels) // token * token


def encoder_of(header: GgufHeader) -> Encoder | None:
    """The encoder for pictures in a projector's file; None if it has none, or the header lacks its shape."""
    values: Mapping[str, Any] = header.metadata
    kind = str(values.get("clip.vision.projector_type") or values.get("clip.projector_type") or "")

    def number(key: str, default: int = 0) -> int:
        found = values.get(f"clip.vision.{key}", default)
        return found if isinstance(found, int) else default

    layers, hidden, feed_forward = (
        number(key) for key in ("block_count", "embedding_length", "feed_forward_length")
    )
    heads, patch, image = number("attention.head_count"), number("patch_size"), number("image_size")
    merge = number("spatial_merge_size", _MERGE.get(kind, 1)) or 1
    if min(layers, hidden, feed_forward, heads, patch) < 1:
        return None
    side = side_of(kind, patch, merge, image) // (patch * merge) * patch * merge
    names = {tensor.name for tensor in header.tensors}
    deep = any(".deepstack." in name or "deepstack" in name for name in names)
    return (
        Encoder(
            layers,
            hidden,
            feed_forward,
            heads,
            patch,
            merge,
            side,
            number("projection_dim", hidden),
            any(name.endswith("attn_qkv.weight") for name in names),
            kind.endswith("_merger") or kind in ("pixtral", "lightonocr", "kimivl", "glm4v"),
            any("position_embd" in name for name in names),
            _FRAMES if any(name.endswith("patch_embd.weight.1") for name in names) else 1,
            any(".ffn_gate." in name for name in names),
            kind in _KNOWN and not deep,
            largest_of(kind, patch, merge, number("image_max_pixels")),
        )
        if side
        else None
    )
