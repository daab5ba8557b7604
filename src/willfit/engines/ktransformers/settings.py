"""KTransformers' settings: of SGLang with kt-kernel, and of its own programs before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.engines.ktransformers.eras import NEWEST, Era, Program, era_for
from willfit.engines.sglang import NEWEST as NEWEST_SGLANG
from willfit.engines.sglang import Settings as Serving

#: How experts are held in RAM where nothing is said (`server_args.py: --kt-method`).
DEFAULT_METHOD = "AMXINT4"

#: File type of experts in GGUF files where nothing says another.
DEFAULT_FILE_TYPE = "q4_k_m"


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings under the programs' own names; None leaves the choice to them.

    Attributes
    ----------
    version
        Version of KTransformers.
    backend_type
        Which program serves.
    sglang
        SGLang's own settings; None for its defaults.
    kt_method
        How experts are held in RAM.
    kt_num_gpu_experts, kt_gpu_experts_ratio
        Experts of each layer that are on cards as well, or the share of all.
    kt_threadpool_count
        Groups of threads, one for each part of the RAM (NUMA node), that divide every expert.
    kt_gpu_prefill_token_threshold
        Tokens of a prompt from which on a layer's experts are put on the card; 0 for never.
    kt_weight_format
        File type of the GGUF files that `LLAMAFILE` reads experts from.
    cache_lens, chunk_size, max_batch_size
        Of its own programs: tokens of the cache, those of a prompt that are computed at once, and sequences.
    linear
        How its own programs hold matrices on cards: packed to 4 bits, or as a checkpoint in FP8 has them.
    experts
        Who computes experts there: llamafile's kernels on mapped files, or AMX's on copies in 8 or 16 bits.
    gpus
        Cards over which its own programs put layers.
    numa_copies
        Copies of the experts of a program that was built for several NUMA nodes; 0 for files that are mapped.
    """

    version: str = NEWEST
    backend_type: Program | None = None
    sglang: Serving | None = None
    kt_method: str = DEFAULT_METHOD
    kt_num_gpu_experts: int = 1
    kt_gpu_experts_ratio: float | None = None
    kt_threadpool_count: int = 2
    kt_gpu_prefill_token_threshold: int = 0
    kt_weight_format: str | None = None
    cache_lens: int | None = None
    chunk_size: int | None = None
    max_batch_size: int = 4
    linear: Literal["marlin", "fp8"] = "marlin"
    experts: Literal["llamafile", "AMXInt8", "AMXBF16"] = "llamafile"
    gpus: int = 1
    numa_copies: int = 0

    @property
    def era(self) -> Era:
        """What holds for the version."""
        return era_for(self.version)

    @property
    def program(self) -> Program:
        """The program that serves."""
        return self.backend_type or self.era.program

    @property
    def serving(self) -> Serving:
        """SGLang's settings, of the version that goes with this one."""
        return self.sglang or Serving(version=self.era.sglang or NEWEST_SGLANG)
