"""Which models a version of Text Generation Inference runs (`models/__init__.py: get_model`).

Types that it lacks are run with Transformers' classes if these generate text; flash attention since 3.1.1 where they
hand attention over.
"""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.engines.support import Support, by_type
from willfit.engines.tgi.model_table import TYPES


def support(architecture: Architecture, version: str) -> Support:
    """Whether a version runs a model. It generates text; vectors and scores are for another server."""
    if architecture.encoder_only:
        return Support(False)
    own = by_type(TYPES, architecture, version)
    if own.runs is not False or not architecture.model_type:
        return own
    # Types with encoders are not in Transformers' list of text generators, nor are those of speech.
    if architecture.towers or architecture.encoder_tokens:
        return own
    return Support(None, own.versions, through=True)
