"""torchtitan: its own model code, FSDP2, and PyTorch's fused optimizer."""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.training.frameworks.base import Defaults, fill
from willfit.training.run import Habits, Run
from willfit.training.settings import PrecisionSettings, TrainingSettings

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
    return fill(settings, defaults, Habits(repeats_keys=True, upcasts_logits=True))
