"""Which models a version of vLLM runs, and which of them with Transformers' modules.

`model_executor/models/registry.py: resolve_model_cls`: a class that the registry lacks is run with Transformers'
modules where these hand attention over to vLLM, and refused otherwise.
"""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.model import Architecture
from willfit.engines.support import YES, Support, by_class, through_transformers
from willfit.engines.versions import Version, parse_version
from willfit.engines.vllm.model_table import BESIDE, CLASSES, THROUGH_TRANSFORMERS

#: Since when classes are converted by the end of their names (`config/model.py: _SUFFIX_TO_DEFAULTS`); before, some.
_CONVERTS: Version = (0, 10)


def support(architecture: Architecture, version: str) -> Support:
    """Whether a version runs a model. Heads that draft for another are for the settings of speculation to judge."""
    if architecture.family in ("draft_heads", "token_heads"):
        return YES
    own = by_class(CLASSES, architecture, version, parse_version(version) >= _CONVERTS or None)
    if own.runs is not False:
        return replace(own, through=_registered_through(architecture, version))
    runs = through_transformers(CLASSES, BESIDE, architecture, version)
    # What was dropped is refused by name unless Transformers has it.
    if runs is False or (runs is None and own.dropped):
        return own
    return Support(runs, own.versions, through=bool(runs))


def _registered_through(architecture: Architecture, version: str) -> bool:
    return any(THROUGH_TRANSFORMERS.has(name, version) for name in architecture.class_names)
