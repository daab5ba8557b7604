"""What sampling takes during the profile run, for each logit, and what the sampler keeps.

The profile ends with a row of logits for each sequence and one pass of the sampler with top-k and top-p on
(`v1/worker/gpu_model_runner.py: _dummy_sampler_run`; V2: `v1/worker/gpu/model_runner.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.vllm.eras import Era
from willfit.engines.vllm.settings import Settings
from willfit.hardware.device import Device

#: Beside the logits and their fp32 copy, sorting a vocabulary takes sorted values and int64 indices, the sort's own
#: buffers of the same size, probabilities and their running sums in fp32
#: (`v1/sample/ops/topk_topp_sampler.py: apply_top_k_top_p`).
_SORTED = 12 + 12 + 8

#: Without a sort: probabilities and random numbers in fp32 (`random_sample`). FlashInfer's sampler holds masked
#: logits and probabilities, as many bytes (`top_k_top_p_sampling_from_logits`).
_FUSED = 4 + 4

#: Fewer rows than this are sorted even where there are kernels for more.
_FEW_ROWS = 8

#: The V2 runner counts the tokens of each sequence (int32 for each of the vocabulary) and marks those of its prompt
#: and those that a grammar allows (a bit each) (`v1/worker/gpu/sample/penalties.py`, `structured_outputs.py`).
_V2_COUNTS = 4
_V2_MARKS_PER_BYTE = 4


@dataclass(frozen=True, slots=True)
class SamplerBytes:
    """Bytes for each logit of a row.

    Attributes
    ----------
    passing
        What one pass takes at its widest, logits included.
    least
        The same if FlashInfer samples; differs where that depends on what is installed.
    kept
        Buffers that stay for each row and token of the vocabulary, in eighths of a byte.
    """

    passing: int
    least: int
    kept_eighths: int


def sampler_bytes(
    era: Era, settings: Settings, device: Device, rows: int, size: int, v2_runner: bool
) -> SamplerBytes:
    """Bytes that the sampler takes for each logit.

    Parameters
    ----------
    rows
        Rows that are sampled at once.
    size
        Bytes of a logit in the model's dtype.
    """
    copied, fused = size + 4, size + 4 + _FUSED
    if v2_runner:
        passing = size
        if era.rehearses_sampler:
            passing = fused if _has_flashinfer(era, settings, device) else copied
        return SamplerBytes(passing, passing, 8 * _V2_COUNTS + 8 // _V2_MARKS_PER_BYTE)
    # Speculation rehearses two rows for each sequence: the drafted one, and one more that is sampled from its copy.
    drafted = bool(settings.speculative_tokens) and era.generation == "v1"
    if era.activation == "fused" and (rows >= _FEW_ROWS or _has_flashinfer(era, settings, device)):
        passing = fused + (2 * size + 4 if drafted else 0)
        return SamplerBytes(passing, passing, 0)
    more = size if drafted else 0
    if settings.flashinfer_sampler or _has_flashinfer(era, settings, device):
        return SamplerBytes(fused + more, fused + more, 0)
    sorting = copied + _SORTED + more
    unsure = (
        era.flashinfer == "if_installed" and device.vendor == "NVIDIA" and settings.flashinfer_sampler is None
    )
    return SamplerBytes(sorting, fused + more if unsure else sorting, 0)


def _has_flashinfer(era: Era, settings: Settings, device: Device) -> bool:
    """FlashInfer runs on NVIDIA cards from Turing on (`flashinfer_sampler_supported`)."""
    if settings.flashinfer_sampler is not None:
        return settings.flashinfer_sampler
    capability = device.compute_capability.split(".")
    known = all(part.isdigit() for part in capability) and len(capability) == 2
    new_enough = not known or (int(capability[0]), int(capability[1])) >= (7, 5)
    return era.flashinfer == "by_default" and device.vendor == "NVIDIA" and new_enough
