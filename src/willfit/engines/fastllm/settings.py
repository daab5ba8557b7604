"""fastLLM's settings under its own names, and what it makes of those left open."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.model import Architecture
from willfit.engines.fastllm.eras import NEWEST, Era, era_for
from willfit.engines.fastllm.models import EXPERTS_IN_RAM
from willfit.quantities import DTYPE_BYTES

#: Tokens of a page, and with matrices divided over cards (`tools/fastllm_pytools/util.py: apply_page_size_default`).
_PAGE, _PAGE_DIVIDED = 128, 16

#: Tokens of a part of a prompt (`include/models/basellm.h`), and of models that say otherwise.
_CHUNK = 8192
_CHUNKS = {
    "deepseek_v2": 2048, "deepseek_v3": 2048, "deepseek_v32": 2048, "kimi_k2": 2048, "kimi_k3": 2048,
    "qwen3_next": 2048, "glm_moe_dsa": 2048, "deepseek_v4": 4096, "laguna": 256, "step3p5": 128,
}  # fmt: skip

#: Requests that run at once where nothing is said.
_MOST_REQUESTS = 512

#: Devices that are not cards.
IN_RAM = ("cpu", "numa", "tfacc")

#: A device with its share of the layers: `cuda`, `cuda:1`, `multicuda:0,1`, `cpu`, `numa`, `disk`.
Shares = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of `ftllm server`; None leaves the choice to fastLLM.

    Attributes
    ----------
    context
        Tokens of the longest sequence; None for the model's own.
    device, moe_device
        Where layers and experts go; empty for fastLLM's choice.
    moe_device_layers
        How many of the last layers have their experts on `moe_device`; -1 for all.
    tp
        Cards that divide matrices (`--tp`); 0 without.
    dtype, moe_dtype
        Types of weights; `auto` for those of the checkpoint, 16 bits for plain ones.
    kv_cache_dtype
        Of keys and values; `auto` for 16 bits.
    tokens, page_size, gpu_mem_ratio
        Of a cache in pages: tokens in all, tokens of a page, and the share of a card that is used.
    kv_cache_limit
        Bytes that caches may grow to; None for fastLLM's choice.
    cuda_embedding, cuda_shared_expert
        Whether the token table, and shared experts, are on a card.
    """

    version: str = NEWEST
    context: int | None = None
    device: Shares = ()
    moe_device: Shares = ()
    moe_device_layers: int = -1
    tp: int = 0
    dtype: str = "auto"
    moe_dtype: str = ""
    kv_cache_dtype: str = "auto"
    tokens: int | None = None
    page_size: int | None = None
    gpu_mem_ratio: float = 0.9
    kv_cache_limit: int | None = None
    max_batch: int | None = None
    chunked_prefill_size: int | None = None
    cuda_embedding: bool = False
    cuda_shared_expert: bool = True

    @property
    def era(self) -> Era:
        """What holds for the version."""
        return era_for(self.version)

    def main(self) -> Shares:
        """Where layers go."""
        if self.device:
            return self.device
        if self.tp > 1:
            return ((f"multicuda:{','.join(map(str, range(self.tp)))}", 1),)
        return (("cuda", 1),)

    def experts(self, architecture: Architecture) -> Shares:
        """Where experts go."""
        if self.moe_device:
            return self.moe_device
        if not self.device and not self.tp and architecture.model_type in EXPERTS_IN_RAM:
            return (("cpu", 1),)
        return self.main()

    def page(self) -> int:
        """Tokens of a page."""
        divided = any(name.startswith("multicuda") for name, _ in (*self.device, *self.moe_device))
        return self.page_size or (_PAGE_DIVIDED if divided else _PAGE)

    def chunk(self, architecture: Architecture) -> int:
        """Tokens of a part of a prompt."""
        return self.chunked_prefill_size or _CHUNKS.get(architecture.model_type, _CHUNK)

    def kv_bytes(self) -> int:
        """Bytes of a number in a cache."""
        return DTYPE_BYTES["fp16" if self.kv_cache_dtype == "auto" else self.kv_cache_dtype]

    def requests(self) -> int:
        """Requests that run at once."""
        return self.max_batch or _MOST_REQUESTS
