"""llama.cpp: what its programs allocate on devices and in host RAM, by build."""

from willfit.engines.llama_cpp.estimate import NAME, NEWEST, answer, estimate
from willfit.engines.llama_cpp.settings import Drafting, Settings

__all__ = ["NAME", "NEWEST", "Drafting", "Settings", "answer", "estimate"]
