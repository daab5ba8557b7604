"""Which models a version of Text Generation Inference runs (`models/__init__.py: get_model`).

Types that it lacks are run with Transformers' classes if the version beside it has some that generate text.
"""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.engines.support import Support, by_type, is_recurrent
from willfit.engines.tgi.model_table import TYPES
from willfit.engines.transformers.model_table import TYPES as TRANSFORMERS

#: The version of transformers that 3.3.7 is locked to is not read; this is the newest of its time.
_BESIDE = "4.57.6"


def support(architecture: Architecture, version: str) -> Support:
    """Whether a version runs a model. It generates text; vectors and scores are for another server."""
    if architecture.encoder_only:
        return Support(False)
    own = by_type(TYPES, architecture, version)
    if own.runs is not False or not architecture.model_type:
        return own
    # Types with encoders are not in Transformers' list of text generators, nor are those of speech; there is no cache
    # of recurrent states.
    if architecture.towers or architecture.encoder_tokens or is_recurrent(architecture):
        return own
    spans = TRANSFORMERS.of(architecture.model_type)
    if spans is None:
        return Support(None, own.versions, through=True)
    return (
        Support(None, own.versions, through=True)
        if TRANSFORMERS.has(architecture.model_type, _BESIDE)
        else own
    )
