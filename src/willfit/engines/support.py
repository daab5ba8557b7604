"""Whether an engine's version runs a model at all, in one answer for all engines, and who does if it does not.

An engine package that chooses its implementation by the model's class or type has a module `models` with
`support(architecture, version)`, made from a table that `scripts/build_model_tables.py` reads from its sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from willfit.architectures.mixers import Attention, LatentAttention
from willfit.architectures.model import Architecture
from willfit.engines.base import Subject
from willfit.engines.spans import Spans
from willfit.engines.versions import parse_version

#: Engines that a refusal may name, the likelier one first, and what they are called.
TITLES = {
    "vllm": "vLLM",
    "sglang": "SGLang",
    "transformers": "transformers",
    "tensorrt_llm": "TensorRT-LLM",
    "tgi": "TGI",
    "lmdeploy": "LMDeploy",
    "lightllm": "LightLLM",
}

#: Ends of class names, and what engines put in their place to find the class that they convert
#: (vLLM `config/model.py: _SUFFIX_TO_DEFAULTS`).
_CONVERTED = (
    "ForTextEncoding", "EmbeddingModel", "ForSequenceClassification", "ForTokenClassification",
    "ClassificationModel", "ForRewardModeling", "RewardModel", "Model",
)  # fmt: skip
_GENERATING = ("ForCausalLM", "ForConditionalGeneration", "ChatModel", "LMHeadModel")


@dataclass(frozen=True, slots=True)
class Support:
    """Whether a version of an engine runs a model.

    Attributes
    ----------
    runs
        None if it is not established.
    versions
        Which other versions do, in words: `0.10.2 was the last that did`.
    dropped
        An earlier version did.
    through
        It is run with Transformers' modules.
    """

    runs: bool | None
    versions: str = ""
    dropped: bool = False
    through: bool = False


YES = Support(True)


def by_class(
    table: Spans, architecture: Architecture, version: str, converts: bool | None = False
) -> Support:
    """Support by the config's `architectures`; a config without any is taken to be one that the engine has.

    Parameters
    ----------
    converts
        Whether the version makes a class for another task of one that generates; None if that is not established.
    """
    spans = [table.of(name) for name in architecture.class_names]
    found = [table.has(name, version) for name in architecture.class_names]
    if True in found or not architecture.class_names:
        return YES
    if converts is not False:
        found += [table.has(name, version) for one in architecture.class_names for name in _bases(one)]
    if True in found:
        return Support(converts)
    if None in found:
        return Support(None)
    span = next((span for span in spans if span), None)
    dropped = span is not None and parse_version(span[0]) < parse_version(version)
    return Support(False, _words(span, table), dropped)


def by_type(table: Spans, architecture: Architecture, version: str) -> Support:
    """Support by the config's `model_type`."""
    found = table.has(architecture.model_type, version)
    return Support(found, "" if found else _words(table.of(architecture.model_type), table))


def through_transformers(
    table: Spans, beside: Sequence[tuple[str, str, str]], architecture: Architecture, version: str
) -> bool | None:
    """Whether an engine with classes around Transformers' modules runs a model with them; None if it may.

    The modules must leave attention to the engine (`_supports_attention_backend`), and there is none for encoders
    and decoders in one.

    Parameters
    ----------
    table
        The engine's classes, with those around Transformers' modules.
    beside
        Which versions of transformers the engine's versions ask for: since when, at least, and below.
    """
    from willfit.engines.transformers.model_table import HANDING_OVER, TYPES

    if architecture.encoder or is_recurrent(architecture):
        return False
    around = [table.has(name, version) for name in _around(architecture)]
    available = True if True in around else None if None in around else False
    kind = architecture.model_type
    if not available:
        return available
    if kind not in HANDING_OVER:
        # Code that comes with a checkpoint may hand over attention as well.
        return False if TYPES.of(kind) else None
    _, least, below = max(
        (row for row in beside if parse_version(row[0]) <= parse_version(version)),
        key=lambda row: parse_version(row[0]),
        default=("", "", ""),
    )
    if not least or TYPES.has(kind, least):
        return True
    # A newer transformers may be installed, unless the engine forbids it.
    return False if below and TYPES.has(kind, below) is False else None


def is_recurrent(architecture: Architecture) -> bool:
    """Whether layers keep something else than keys and values."""
    mixers = (mixer for layer, _ in architecture.blocks for mixer in layer.mixers)
    return not all(isinstance(mixer, Attention | LatentAttention) for mixer in mixers)


def _around(architecture: Architecture) -> list[str]:
    """Names of the classes around Transformers' modules, also as they were called at first."""
    experts = any(layer.feed_forward and layer.feed_forward.experts for layer, _ in architecture.blocks)
    task = "ForCausalLM"
    if architecture.encoder_only:
        classifies = any(name.endswith("ForSequenceClassification") for name in architecture.class_names)
        task = "ForSequenceClassification" if classifies else "EmbeddingModel"
    name = f"Transformers{'MultiModal' if architecture.towers else ''}{'MoE' if experts else ''}{task}"
    first = {"TransformersMultiModalForCausalLM": "TransformersForMultimodalLM"}
    return [name, first[name]] if name in first else [name]


def _bases(name: str) -> list[str]:
    """Classes that are converted where a class of this name is asked for."""
    if name.endswith(_GENERATING):
        return []
    stem = next((name.removesuffix(suffix) for suffix in _CONVERTED if name.endswith(suffix)), None)
    return [] if stem is None else [stem + suffix for suffix in _GENERATING]


def _words(span: tuple[str, str] | None, table: Spans) -> str:
    """Which versions have a name that this one lacks."""
    if span is None:
        return ""
    first, last = span
    if table.read.index(first) > 0 and not last:
        return f"{first} and later do"
    return f"{last} was the last that did" if last else ""


def model_refusal(engine: str, architecture: Architecture, version: str, support: Support) -> str:
    """Why an engine does not run a model, in one line that names one that does; empty if it does or may.

    Parameters
    ----------
    engine
        A key of `TITLES`, or what the engine is called.
    """
    if support.runs is not False:
        return ""
    title = TITLES.get(engine, engine)
    versions = f" ({support.versions})" if support.versions else ""
    return f"{title} {version} does not run {_called(architecture)}{versions}; {others(architecture, engine)}"


def too_long(architecture: Architecture, length: int) -> str:
    """Why no engine runs sequences of a length; empty if it may. Learned positions end, others can be stretched."""
    end = architecture.positions_end
    if not end or length <= end:
        return ""
    return f"the model has {end:,} positions, {length:,} are asked for; no engine can go beyond"


def model_note(engine: str, architecture: Architecture, version: str, support: Support) -> list[str]:
    """What to say where it is not established whether an engine runs a model."""
    if support.runs is not None:
        return []
    title = TITLES.get(engine, engine)
    versions = f" ({support.versions})" if support.versions else ""
    return [f"whether {title} {version} runs {_called(architecture)} is not established{versions}"]


def vectors_note(subject: Subject, title: str) -> list[str]:
    """What to say where vectors are wanted of an engine that has no such endpoint."""
    return [f"{title} generates text; vLLM and SGLang give vectors"] if subject.embeds else []


def others(architecture: Architecture, besides: str = "") -> str:
    """Which other engine runs a model, in its newest version: `SGLang does`."""
    possible = ""
    for name, title in TITLES.items():
        if name == besides:
            continue
        support = import_module(f"willfit.engines.{name}.models").support
        runs = support(architecture, import_module(f"willfit.engines.{name}").NEWEST).runs
        if runs:
            return f"{title} does"
        if runs is None and not possible:
            possible = f"{title} may"
    return possible or "none of the engines known here does"


def _called(architecture: Architecture) -> str:
    names: Sequence[str] = architecture.class_names
    return names[0] if names else f"{architecture.model_type!r} models"
