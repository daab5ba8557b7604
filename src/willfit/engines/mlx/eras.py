"""What changed in mlx-lm and the mlx that it asks for, and when.

mlx-lm's wheels 0.5.0 to 0.32.2 were read (`mlx_lm/generate.py`, before 0.22.3 `utils.py`; `models/cache.py`,
`models/base.py`, `server.py`), and mlx at the tags of the versions that these ask for, 0.11 to 0.32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.engines.versions import Version, changed, era_of, succession

#: Latent attention of these types keeps keys and values of all heads in every version, and latents in every version.
_NEVER_LATENT = frozenset({"deepseek_v2", "minicpm3", "youtu_llm"})
_ALWAYS_LATENT = frozenset({"glm4_moe_lite"})

#: Types that kept latents some weeks after DeepSeek-V3.
_LATER_LATENT = frozenset({"kimi_linear", "longcat_flash"})


@dataclass(frozen=True, slots=True)
class Era:
    """How mlx-lm behaves from a version on.

    Attributes
    ----------
    since
        First version that behaves so.
    chunk
        Tokens of a prompt that are computed at once; 0 for all.
    logits
        Logits that are made of a prompt: those of its last part (`part`), or of its last token.
    grows
        Tokens by which a cache grows.
    fused
        Widths of heads for which a kernel attends to a prompt without making scores (Metal).
    vectors
        Whether there is such a kernel for single tokens.
    mask
        `added`: numbers that are added to scores; `boolean`.
    latents
        Models whose latent attention keeps latents, not keys and values of all heads: few, some, or most.
    segment
        Tokens of a segment of a Mamba-2 layer; 0 for all.
    batches
        The server computes requests together.
    kept_prompts
        Finished prompts whose caches the server keeps.
    loads
        Quantization methods other than MLX's own that are read.
    bounded
        Command buffers are committed by a device's limits, and at most so many wait for the GPU.
    unit
        What the printed `Peak memory: ... GB` is divided by.
    """

    since: Version
    chunk: int = 0
    logits: Literal["part", "token"] = "part"
    grows: int = 1
    fused: frozenset[int] = frozenset()
    vectors: bool = False
    mask: Literal["added", "boolean"] = "added"
    latents: Literal["few", "some", "most"] = "few"
    segment: int = 0
    batches: bool = False
    kept_prompts: int = 0
    loads: frozenset[str] = frozenset()
    bounded: bool = False
    unit: Literal["GiB", "GB"] = "GiB"

    def keeps_latent(self, model_type: str) -> bool:
        """Whether latent attention of a model type keeps latents."""
        if model_type in _NEVER_LATENT | _ALWAYS_LATENT:
            return model_type in _ALWAYS_LATENT
        return self.latents == "most" or (self.latents == "some" and model_type not in _LATER_LATENT)


_PROMPTS = frozenset({64, 80, 128})

ERAS = succession(
    Era((0, 0)),
    changed((0, 13), grows=256),
    changed((0, 17), chunk=512, vectors=True),
    changed((0, 20), unit="GB", kept_prompts=1),
    changed((0, 22, 2), chunk=2048, fused=_PROMPTS, mask="boolean", bounded=True),
    changed((0, 26), loads=frozenset({"bitnet"})),
    changed((0, 27), logits="token", loads=frozenset({"bitnet", "mxfp4"})),
    changed((0, 28, 3), segment=256, loads=frozenset({"bitnet", "mxfp4", "compressed-tensors"})),
    changed((0, 28, 4), batches=True, kept_prompts=10),
    changed((0, 30, 4), loads=frozenset({"bitnet", "mxfp4", "compressed-tensors", "awq", "gptq"})),
    changed((0, 30, 6), latents="some"),
    changed((0, 30, 7), latents="most"),
    changed(
        (0, 32),
        fused=_PROMPTS | {72, 96},
        loads=frozenset({"bitnet", "mxfp4", "mxfp8", "compressed-tensors", "awq", "gptq", "modelopt"}),
    ),
)

NEWEST = "0.32.2"


def era_for(version: str) -> Era:
    """The era of a version."""
    return era_of(version, ERAS)
