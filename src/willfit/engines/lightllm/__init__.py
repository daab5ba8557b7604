"""LightLLM: a slot for every token, as many as fit beside what it leaves free, by version.

`eras` says what changed when and which models it has, `settings` fills in defaults, `slots`, `tables` and `weights`
size the parts, `sizing` puts them in LightLLM's order, `host` counts RAM, `estimate` answers.
"""

from willfit.engines.lightllm.eras import NEWEST
from willfit.engines.lightllm.estimate import NAME, answer, estimate
from willfit.engines.lightllm.settings import KV_TYPES, MODES, Settings, graph_sizes

__all__ = ["KV_TYPES", "MODES", "NAME", "NEWEST", "Settings", "answer", "estimate", "graph_sizes"]
