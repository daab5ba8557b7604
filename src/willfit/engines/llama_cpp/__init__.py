"""llama.cpp: what its programs allocate on devices and in host RAM, by build."""

from willfit.engines.llama_cpp.estimate import NAME, NEWEST, answer, estimate, estimate_alone, settings_for
from willfit.engines.llama_cpp.ik_eras import NEWEST_IK
from willfit.engines.llama_cpp.settings import Drafting, Settings

__all__ = [
    "NAME", "NEWEST", "NEWEST_IK", "Drafting", "Settings", "answer", "estimate", "estimate_alone", "settings_for",
]  # fmt: skip
