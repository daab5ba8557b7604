"""llama.cpp: what its programs allocate on devices and in host RAM, by build."""

from willfit.engines.llama_cpp.settings import Drafting, Settings

__all__ = ["Drafting", "Settings"]
