"""torchtitan: its own model code, FSDP2, and PyTorch's fused optimizer."""

from __future__ import annotations

import re
from dataclasses import replace

from willfit.architectures.model import Architecture
from willfit.engines.versions import parse_version
from willfit.training.frameworks.base import Defaults, fill
from willfit.training.run import Habits, Run
from willfit.training.settings import LossSettings, PrecisionSettings, TrainingSettings
from willfit.training.sharding.base import Wrapping

#: From this date on models' own configs compute head and loss in so many chunks (torchtitan #2937;
#: `components/loss.py: ChunkedCELoss`, `models/llama3/config_registry.py`), as many as the chunked loss of 2025 (#996).
_CHUNKED, _CHUNKS = "2026-04-27", 8

#: From this date on its script sets `PYTORCH_CUDA_ALLOC_CONF` (a5e57e4: `run_llama_train.sh`, `run_train.sh`).
_EXPANDS = "2024-10-22"

#: From this date on embedding and head are units of their own (#1094: `infra/parallelize.py: apply_fsdp`); before, they
#: were the root unit, and the last layer stayed gathered. From the other the caller drops logits before the backward
#: pass (#391: `train.py`).
_ENDS_APART, _DROPS_LOGITS = "2025-07-28", "2024-06-12"

#: torch's own kernel for RMS norms (pytorch #153666: `aten/src/ATen/native/layer_norm.cpp: _fused_rms_norm`), and since
#: when nightly builds had it.
_FUSED_NORM, _FUSED_NORM_DATE = (2, 9), "2025-08"

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


#: From these dates on (pytorch/torchtitan, commits): the loss is compiled where the model is; cuDNN's attention comes
#: first on Blackwell (#1196); selective checkpointing keeps its output (#2095). For some weeks the loss was before.
_COMPILED_LOSS, _CUDNN, _KEEPS_CUDNN = "2025-04-02", "2025-05-14", "2025-12-01"
_COMPILED_EARLIER = "2024-10-22", "2024-12-18"

#: Dates of releases.
_RELEASES = (
    ((0, 1), "2025-06-17"), ((0, 2), "2025-10-17"), ((0, 2, 1), "2025-12-26"), ((0, 2, 2), "2026-02-20"),
)  # fmt: skip
_NEWEST = "2026-08"

#: Dates of commits that are cited as versions.
_COMMITS = {"9dec370": "2024-12-26", "e7c0cae": "2025-06-11", "6fc499f": "2025-08-14"}


def resolve(settings: TrainingSettings, architecture: Architecture) -> Run:
    """Fill in what torchtitan does (`torchtitan/config_manager.py`, `models/llama3/infra/parallelize.py`).

    Parameters
    ----------
    settings
        What was asked. `versions["torchtitan"]` or `version` is a release, or a date.
    """
    date = _date(settings.version, settings.versions.get("torchtitan"))
    defaults = Defaults(
        _PRECISION,
        implementation="fused",
        checkpointing="selective-op",
        kernels=("rms_norm",) if _fuses_norms(settings, date) else (),
        seq_len=2048,
        padded=False,
        reentrant=False,
        # Its data loaders cut texts to the full length (`datasets/hf_datasets.py`).
        varied=False,
        expandable=date >= _EXPANDS,
    )
    if settings.loss.kind is None and date >= _CHUNKED:
        settings = replace(settings, loss=LossSettings("chunked-backward", chunks=_CHUNKS))
    if settings.loss.kind == "chunked" and settings.loss.chunks is None:
        settings = replace(settings, loss=replace(settings.loss, chunks=_CHUNKS))
    if date < _DROPS_LOGITS:
        settings = replace(settings, loss=replace(settings.loss, keeps_logits=True))
    compiled = date >= _COMPILED_LOSS or _COMPILED_EARLIER[0] <= date < _COMPILED_EARLIER[1]
    habits = Habits(
        repeats_keys=True,
        upcasts_logits=True,
        compiles_loss=settings.compile and compiled,
        cudnn_unkept=_CUDNN <= date < _KEEPS_CUDNN,
        wrapping=Wrapping(ends_apart=date >= _ENDS_APART, keeps_last=date < _ENDS_APART),
    )
    return fill(settings, defaults, habits)


def _fuses_norms(settings: TrainingSettings, date: str) -> bool:
    """Whether `nn.RMSNorm` is one kernel of torch; before, it was written out there, as in models before that."""
    torch = settings.versions.get("torch", "")
    return parse_version(torch) >= _FUSED_NORM if re.match(r"\d+\.\d", torch) else date >= _FUSED_NORM_DATE


def _date(version: str | None, dated: str | None) -> str:
    """The date of a version: of a release, or of a commit that is known; else `dated`, or the newest one."""
    if version in _COMMITS:
        return _COMMITS[version]
    for text in (version, dated):
        if text and re.match(r"\d{4}-\d\d", text):
            return text
        if text and re.match(r"\d+\.\d", text):
            release = parse_version(text)
            return next((date for since, date in reversed(_RELEASES) if release >= since), _RELEASES[0][1])
    return _NEWEST
