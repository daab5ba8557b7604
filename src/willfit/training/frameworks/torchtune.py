"""torchtune: its own model code, 16-bit training throughout, and PyTorch's fused optimizer."""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.engines.versions import parse_version
from willfit.training.frameworks.base import Defaults, fill
from willfit.training.run import Habits, Run
from willfit.training.settings import PrecisionSettings, TrainingSettings

_PRECISION = PrecisionSettings(weights="bf16", compute="bf16", autocast=False, master="none")

#: From this version on norms run as `F.rms_norm` on a float32 copy; with a 16-bit scale that is no fused kernel
#: (torch `aten/src/ATen/native/layer_norm.cpp: rms_norm`), so that all of it is float32 (`modules/rms_norm.py`).
_WIDE_NORMS = (0, 5)

#: Releases of some years, for what is dated instead of numbered.
_RELEASES = (("2024-12-20", "0.5.0"), ("2024-11-14", "0.4.0"), ("2024-09-29", "0.3.1"), ("", "0.1.0"))
_NEWEST = "0.6.1"


def resolve(settings: TrainingSettings, architecture: Architecture) -> Run:
    """Fill in what torchtune's recipes and configs do (`recipes/configs`).

    The version is a release or a date.
    """
    version = parse_version(_release(settings.version or settings.versions.get("torchtune") or _NEWEST))
    defaults = Defaults(
        _PRECISION, implementation="fused", loss="chunked", adapter_dtype="bf16", reentrant=False
    )
    # The decoder itself upcasts logits that are not chunked (`modules/transformer.py`).
    habits = Habits(
        repeats_keys=True, upcasts_logits=True, norm="rms_float32" if version >= _WIDE_NORMS else ""
    )
    return fill(settings, defaults, habits)


def _release(version: str) -> str:
    """The release of a version, or the newest of a date."""
    if "-" not in version:
        return version
    return next(release for since, release in _RELEASES if since <= version)
