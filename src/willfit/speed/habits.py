"""How engines run a step, as far as it decides the time: by engine and version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.engines.versions import Version, changed, era_of, parse_version, succession
from willfit.errors import BadInput

#: What happens between two steps. `synchronous`: scheduling, sampling and reading tokens back in Python, one after
#: the other. `overlapped`: in Python while the device works. `native`: in C++.
Loop = Literal["synchronous", "overlapped", "native"]


@dataclass(frozen=True, slots=True)
class Habits:
    """How an engine runs.

    Attributes
    ----------
    since
        First version that does so.
    loop
        See `Loop`.
    graphs
        Layers are replayed as CUDA graphs, or launched by C++; else Python launches each kernel.
    captured_tokens
        The longest sequence that graphs serve; 0 for any.
    awq_kernel
        AWQ runs on its authors' kernel, not on Marlin.
    launches_experts
        Quantized experts are one kernel each.
    loops_experts
        Python runs the experts of a layer one after the other, also those that no token visits.
    paged_kernel
        Decoding runs vLLM's first paged attention, in which each query head reads keys and values anew.
    copies
        How often a step reads or writes the whole cache beside what attention reads.
    repeats
        Keys and values are copied for each query head before attention reads them.
    chunk
        Tokens of a prompt that are run at once if the engine does not say; 0 for all.
    launch
        The constant that says how long Python takes to launch a layer.
    tuned_experts
        Experts' kernels have tuned sizes for more than a few models.
    """

    since: Version = (0,)
    loop: Loop = "native"
    graphs: bool = True
    captured_tokens: int = 0
    awq_kernel: bool = False
    launches_experts: bool = False
    loops_experts: bool = False
    paged_kernel: bool = False
    copies: int = 0
    repeats: bool = False
    chunk: int = 0
    launch: str = "speed.layer.eager"
    tuned_experts: bool = True


#: `config.py: max_seq_len_to_capture` of V0; `max_context_len_to_capture` before.
_CAPTURED = 8192

_TABLES: dict[str, tuple[Habits, ...]] = {
    # `attention/backends/flash_attn.py` decodes with `PagedAttention.forward_decode` until 0.5, and the sizes in
    # `layers/fused_moe/configs` are for 8 or 16 experts.
    # `worker/model_runner.py: _use_captured_graph` compares with the longest sequence, but in 0.6.3 it is given the
    # encoder's length (0), so that graphs serve any. `layers/quantization/awq_marlin.py` came with 0.5.4,
    # `ops.moe_wna16_marlin_gemm` for all experts at once with 0.8.5 at the latest. V1, on by default from 0.8,
    # captures by batch.
    "vllm": succession(
        Habits(
            loop="synchronous",
            captured_tokens=_CAPTURED,
            awq_kernel=True,
            launches_experts=True,
            paged_kernel=True,
            tuned_experts=False,
        ),
        changed((0, 5), paged_kernel=False, tuned_experts=True),
        changed((0, 5, 4), awq_kernel=False),
        changed((0, 6, 3), captured_tokens=0),
        changed((0, 6, 4), captured_tokens=_CAPTURED),
        changed((0, 8), loop="overlapped", captured_tokens=0),
        changed((0, 8, 5), launches_experts=False),
    ),
    # `managers/scheduler.py: event_loop_overlap` is the default from 0.4 on. Quantized experts run on the kernels of
    # the vLLM that it was installed with, 0.7 and 0.8 (`layers/quantization/__init__.py`), until 0.4.9.
    "sglang": succession(
        Habits(loop="synchronous", launches_experts=True),
        changed((0, 4), loop="overlapped"),
        changed((0, 4, 9), launches_experts=False),
    ),
    "tensorrt-llm": (Habits(loop="overlapped"),),
    "tgi": (Habits(loop="synchronous"),),
    "lmdeploy": (Habits(loop="overlapped"),),
    "lightllm": (Habits(loop="overlapped"),),
    # Python launches every kernel (`generation/utils.py`), unless a static cache is compiled. `DynamicCache.update`
    # concatenates, and `repeat_kv` copies for each query head; from 4.48 on (`integrations/flash_attention.py`) not
    # where flash attention runs. `modeling_qwen3_moe.py` asks which experts are visited from 4.54 on.
    "transformers": succession(
        Habits(
            loop="synchronous",
            graphs=False,
            copies=2,
            repeats=True,
            loops_experts=True,
            launch="speed.layer.transformers",
        ),
        changed((4, 48), repeats=False),
        changed((4, 54), loops_experts=False),
    ),
    "litgpt": (Habits(loop="synchronous", graphs=False, launch="speed.layer.transformers"),),
    "ktransformers": (Habits(loop="overlapped"),),
    # A prompt is run in micro-batches (`-ub`), 512 tokens unless asked otherwise.
    "llama.cpp": (Habits(chunk=512),),
    "ik_llama.cpp": (Habits(chunk=512),),
    "ollama": (Habits(chunk=512),),
    "lmstudio": (Habits(chunk=512),),
}

_OTHER = Habits()


def habits_of(engine: str, version: str) -> Habits:
    """The habits of an engine at a version; those of a C++ engine with graphs for one that is not listed."""
    table = _TABLES.get(engine)
    if table is None:
        return _OTHER
    try:
        parse_version(version)
    except BadInput:
        return table[-1]
    return era_of(version, table)
