"""TensorRT-LLM: its PyTorch backend, and engines that were built with TensorRT.

`eras` says what changed when, `settings` fills in defaults, `sizing` goes through the start-up, `estimate` puts it
together.
"""

from willfit.engines.tensorrt_llm.eras import NEWEST
from willfit.engines.tensorrt_llm.estimate import NAME, answer, estimate, settings_for
from willfit.engines.tensorrt_llm.settings import Settings

__all__ = ["NAME", "NEWEST", "Settings", "answer", "estimate", "settings_for"]
