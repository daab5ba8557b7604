"""The weights of a model as they lie on the fullest rank once they are loaded."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.calibration import constant
from willfit.engines.base import Subject
from willfit.engines.vllm.eras import era_for
from willfit.engines.vllm.features.offload import Offloaded, offloaded
from willfit.engines.vllm.loading.buffers import buffer_bytes
from willfit.engines.vllm.loading.pieces import layout_bytes, on_rank
from willfit.engines.vllm.loading.slack import slack_bytes
from willfit.engines.vllm.loading.weights import latent_copy_bytes, parameter_bytes
from willfit.engines.vllm.settings import Settings
from willfit.engines.vllm.sources import source
from willfit.estimate import Term, between
from willfit.hardware.device import Device

_AFTER_LOADING = "copies and layouts made after loading, and slack of the allocator"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Weights on one rank.

    Attributes
    ----------
    weights
        Parameters and buffers of the fullest rank, as the start-up log counts them.
    after_loading_bytes
        Part of them that is made after loading, or the allocator's slack.
    moved
        Weights that each rank keeps in host RAM.
    """

    weights: Term
    after_loading_bytes: int
    moved: Offloaded


def loaded(subject: Subject, settings: Settings, dtype: str, device: Device) -> Loaded:
    """Load a model.

    Parameters
    ----------
    dtype
        The model's dtype (`devices.dtypes.model_dtype`); only its size matters.
    device
        It only matters which kernels run MXFP4 experts on it (`pieces.runs_triton_mxfp4`).
    """
    lines = on_rank(subject, settings, dtype, device)
    stored = parameter_bytes(subject, settings, dtype, lines)
    buffers = buffer_bytes(subject, settings, dtype)
    made = latent_copy_bytes(subject, settings) + layout_bytes(subject, settings, device)
    copies = made + slack_bytes(subject, settings, lines)
    moved = offloaded(subject, settings, dtype, device)
    return Loaded(_term(subject, settings, stored, buffers, copies, moved), copies, moved)


def _term(
    subject: Subject, settings: Settings, stored: int, buffers: int, copies: int, moved: Offloaded
) -> Term:
    ranks = settings.tensor_parallel
    size = stored + buffers + copies
    formula = f"{stored} B of tensors ({subject.recipe.name})" + (
        f" on one of {ranks} ranks" if ranks > 1 else ""
    )
    formula += f" + {buffers} B of rotary tables and scales"
    if copies:
        formula += f" + {copies} B of {_AFTER_LOADING}"
    if moved.host_bytes:
        formula += f" - {moved.host_bytes} B kept in host RAM"
    if moved.buffer_bytes:
        formula += f" + {moved.buffer_bytes} B to copy layers into"
    spread = constant("vllm.weights_ratio")
    era = era_for(settings.version, settings.generation)
    reference = f"{source('weights', settings.version, era)}; interval: {spread.reference}"
    held = size - moved.saved_bytes
    less, more = subject.weight_sureness
    low, high = int(held * spread.low * less), int(held * spread.high * more)
    return between("weights", held, low, high, formula, reference)
