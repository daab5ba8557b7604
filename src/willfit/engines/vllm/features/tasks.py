"""What vLLM makes of a model that was not told what it is for: text, or vectors and scores; and on which engine.

`config/model.py: _get_default_runner_type` (0.33): sentence-transformers' files, the registry, the end of a class name.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from willfit.architectures.model import Architecture
from willfit.engines.base import Subject
from willfit.engines.versions import Version, parse_version
from willfit.engines.vllm.model_table import CLASSES, POOLING
from willfit.engines.vllm.settings import Settings

#: Ends of class names that generate, looked at before those below (`config/model.py: _SUFFIX_TO_DEFAULTS`).
_GENERATING = ("ForCausalLM", "ForConditionalGeneration", "ChatModel", "LMHeadModel")
_POOLING = (
    "ForTextEncoding", "EmbeddingModel", "ForSequenceClassification", "ForTokenClassification",
    "ForAudioClassification", "ForImageClassification", "ForVideoClassification", "ClassificationModel",
    "ForRewardModeling", "RewardModel", "Model",
)  # fmt: skip

#: Families whose images and videos go through one encoder.
_WITH_VIDEOS = frozenset({"ernie4_5_vl", "exaone4_5", "gemma4_multimodal", "glm4v", "internvl", "qwen_vl"})

#: Since when the V1 engine runs vectors and scores, encoders, and models that only V0 had at first
#: (`SupportsV0Only` in `models/*.py`, 0.8.5 to 0.11; `engine/arg_utils.py: _is_v1_supported_oracle`).
_POOLS_ON_V1: Version = (0, 9, 2)
_ENCODES_ON_V1: Version = (0, 10, 1)
_ON_V1: dict[str, Version] = {
    **dict.fromkeys(("bamba", "falcon_h1", "granitemoehybrid", "mamba2", "nemotron_h", "zamba2"), (0, 9, 2)),
    **dict.fromkeys(("jamba", "mamba", "falcon_mamba", "minimax_text_01"), (0, 10, 1)),
    **dict.fromkeys(("bloom", "plamo2", "whisper"), (0, 10, 2)),
    **dict.fromkeys(("bart", "mbart", "mllama"), (0, 11)),
}


def settled(subject: Subject, settings: Settings) -> Settings:
    """The settings with runner and engine generation filled in where they were left to vLLM."""
    runner = default_runner(subject, settings.version) if settings.runner == "auto" else settings.runner
    settings = replace(settings, runner=runner)
    if subject.architecture.towers and not any(map(settings.limit, _modalities(subject.architecture))):
        # Encoders that no prompt may use are not loaded (`models/interfaces.py: _mark_tower_model`).
        settings = replace(settings, language_model_only=True)
    if settings.generation is None and _needs_v0(subject.architecture, settings):
        settings = replace(settings, generation="v0")
    return settings


def _modalities(architecture: Architecture) -> set[str]:
    """What prompts may have beside text."""
    found = {"image" if tower.modality == "vision" else "audio" for tower in architecture.towers}
    return found | ({"video"} if architecture.family in _WITH_VIDEOS else set())


def default_runner(subject: Subject, version: str) -> Literal["generate", "pooling"]:
    """`pooling` for vectors and scores, `generate` for text."""
    architecture = subject.architecture
    if subject.embeds or architecture.encoder_only:
        return "pooling"
    for name in architecture.class_names:
        if CLASSES.has(name, version):
            return "pooling" if POOLING.of(name) else "generate"
        if name.endswith(_GENERATING):
            return "generate"
        if name.endswith(_POOLING):
            return "pooling"
    return "generate"


def _needs_v0(architecture: Architecture, settings: Settings) -> bool:
    """Whether a version that has both engines falls back to the older one for a model."""
    version = parse_version(settings.version)
    if architecture.encoder_only:
        return version < _ENCODES_ON_V1
    if settings.runner == "pooling" and version < _POOLS_ON_V1:
        return True
    since = _ON_V1.get(architecture.model_type)
    return since is not None and version < since
