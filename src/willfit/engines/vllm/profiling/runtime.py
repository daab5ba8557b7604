"""What vLLM's process takes of a device outside torch's allocator, beside the driver's context."""

from __future__ import annotations

from willfit.calibration import constant
from willfit.engines.vllm.eras import Era
from willfit.engines.vllm.settings import Settings
from willfit.estimate import Term
from willfit.hardware.device import Device

#: Libraries keep more for a larger card; the constant by compute capability, where logs of it are many.
_ONE_RANK = {"7.5": "vllm.non_torch.turing", "9.0": "vllm.non_torch.hopper"}

#: From this generation on NVLink switches add up by themselves (NVLink SHARP), with buffers of their own in NCCL.
_NVLINK_SHARP = 9


def runtime_term(settings: Settings, device: Device, era: Era) -> Term:
    """What is taken outside the allocator during the profile run: workspaces of libraries, NCCL's buffers.

    Where the host's memory is the device's, too, what the process takes as its own counts as well.
    """
    ranks = settings.tensor_parallel * settings.pipeline_parallel
    spread = constant(*runtime_constants(ranks, device, era.nccl_inside))
    return Term(
        "runtime",
        int(spread.value),
        int(spread.low),
        int(spread.high),
        f"{int(spread.value)} B of library workspaces of {ranks} rank(s)",
        spread.reference,
    )


def runtime_constants(ranks: int, device: Device, nccl_inside: bool = False) -> tuple[str, ...]:
    """Names of the constants for what is taken outside the allocator on a device, the most special first.

    Parameters
    ----------
    nccl_inside
        All of NCCL's buffers count, which few logs show; else those that come with the first collective operations.
    """
    if device.unified_memory:
        return ("vllm.non_torch.unified",)
    if device.vendor == "AMD":
        return ("vllm.non_torch.amd",)
    if ranks == 1:
        special = _ONE_RANK.get(device.compute_capability, "")
        return (special, "vllm.non_torch.one_rank") if special else ("vllm.non_torch.one_rank",)
    switched = device.interconnect == "NVLink" and _generation(device) >= _NVLINK_SHARP
    special = "vllm.non_torch.nvlink_sharp" if switched and not nccl_inside else ""
    return (special, "vllm.non_torch.many_ranks") if special else ("vllm.non_torch.many_ranks",)


def _generation(device: Device) -> int:
    major = device.compute_capability.split(".")[0]
    return int(major) if major.isdigit() else 0
