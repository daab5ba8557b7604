"""torchtitan: its own model code, FSDP2, and PyTorch's fused optimizer."""

from __future__ import annotations

import re
from dataclasses import replace

from willfit.architectures.model import Architecture
from willfit.engines.versions import parse_version
from willfit.training.frameworks.base import Defaults, fill
from willfit.training.run import Habits, Run
from willfit.training.settings import LossSettings, PrecisionSettings, TrainingSettings

#: From this release and this date on models' own configs compute head and loss in so many chunks (torchtitan #2937;
#: `components/loss.py: ChunkedCELoss`, `models/llama3/config_registry.py`).
_CHUNKED, _CHUNKED_DATE, _CHUNKS = (0, 3), "2026-04-27", 8

#: `JobConfig`: mixed precision with float32 shards and reductions.
_PRECISION = PrecisionSettings(
    weights="fp32",
    compute="bf16",
    gradients="fp32",
    states="fp32",
    reduce="fp32",
    autocast=False,
    master="none",
)


def resolve(settings: TrainingSettings, architecture: Architecture) -> Run:
    """Fill in what torchtitan does (`torchtitan/config_manager.py`, `models/llama3/infra/parallelize.py`)."""
    defaults = Defaults(
        _PRECISION,
        implementation="fused",
        checkpointing="selective-op",
        kernels=("rms_norm",),
        seq_len=2048,
        padded=False,
        reentrant=False,
        # Its data loaders cut texts to the full length (`datasets/hf_datasets.py`), and since 2024-10-22 its
        # script sets `PYTORCH_CUDA_ALLOC_CONF` (`run_llama_train.sh`, `run_train.sh`).
        varied=False,
        expandable=True,
    )
    if settings.loss.kind is None and _chunks(settings.version or settings.versions.get("torchtitan")):
        settings = replace(settings, loss=LossSettings("chunked-backward", chunks=_CHUNKS))
    return fill(settings, defaults, Habits(repeats_keys=True, upcasts_logits=True))


def _chunks(version: str | None) -> bool:
    """Whether a version, a release or a date, computes the loss in chunks; the newest does."""
    if not version:
        return True
    if re.match(r"\d{4}(-\d{2}){0,2}$", version):
        return version >= _CHUNKED_DATE
    return not re.match(r"v?\d+\.\d", version) or parse_version(version) >= _CHUNKED
