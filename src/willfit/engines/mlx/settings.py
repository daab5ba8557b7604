"""What is asked of mlx-lm, under its programs' own names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.engines.mlx.eras import NEWEST, Era, era_for
from willfit.errors import BadInput

Program = Literal["generate", "chat", "server", "benchmark", "vlm"]

#: Bits and group sizes that MLX quantizes to (`ops.cpp: quantize`).
KV_BITS = (2, 3, 4, 5, 6, 8)
KV_GROUPS = (32, 64, 128)


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one mlx-lm process; None leaves the choice to the program.

    Attributes
    ----------
    program, version
        What is started: `vlm` is mlx-vlm's server or command, whose version is then that of mlx-lm of its time.
    prompt_tokens, max_tokens
        Tokens of the longest prompt and of its answer. None for the prompt: as many as leave room for the answer in the
        default context.
    max_kv_size
        Newest tokens that caches hold.
    kv_bits, kv_group_size, quantized_kv_start
        Quantized caches, and the length from which on they are.
    prefill_step_size
        Tokens of a prompt that are computed at once.
    decode_concurrency, prompt_concurrency
        Requests that the server decodes together, and whose prompts it computes together.
    prompt_cache_size, prompt_cache_bytes
        Finished prompts whose caches the server keeps, and what all caches may take.
    batch
        Sequences of a benchmark.
    draft
        A second model drafts.
    """

    program: Program = "generate"
    version: str = NEWEST
    prompt_tokens: int | None = None
    max_tokens: int = 1
    max_kv_size: int | None = None
    kv_bits: int | None = None
    kv_group_size: int = 64
    quantized_kv_start: int = 5000
    prefill_step_size: int | None = None
    decode_concurrency: int = 32
    prompt_concurrency: int = 8
    prompt_cache_size: int | None = None
    prompt_cache_bytes: int | None = None
    batch: int = 1
    draft: bool = False

    def __post_init__(self) -> None:
        if self.kv_bits is not None and self.kv_bits not in KV_BITS:
            raise BadInput(
                f"MLX has no {self.kv_bits}-bit cache", f"known: {', '.join(map(str, KV_BITS))} bits"
            )
        if self.kv_group_size not in KV_GROUPS:
            raise BadInput(
                f"MLX quantizes no groups of {self.kv_group_size}", f"known: {', '.join(map(str, KV_GROUPS))}"
            )

    @property
    def era(self) -> Era:
        """What the version does."""
        return era_for(self.version)

    @property
    def serves(self) -> bool:
        """Whether it answers several users."""
        return self.program in ("server", "vlm")

    @property
    def batched(self) -> bool:
        """Whether requests are computed together (`server.py: _is_batchable`)."""
        if self.program == "benchmark":
            return True
        return self.program == "server" and self.era.batches and self.kv_bits is None and not self.draft

    @property
    def kept_prompts(self) -> int:
        """Finished prompts whose caches stay."""
        if not self.serves:
            return 0
        return self.era.kept_prompts if self.prompt_cache_size is None else self.prompt_cache_size
