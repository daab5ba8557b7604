"""vLLM: its own accounting, by version.

`eras` says what changed when, `settings` fills in defaults, `weights`, `profile` and `cache_specs` size the
parts, `cache_plan` groups the cache, `estimate` puts them together. What a user may switch on has modules of its own:
`lora`, `drafts`, `context_parallel`, `experts`, `offload`, `host` and `sleeping`, with the settings in `options`.
"""

from willfit.engines.vllm.eras import NEWEST
from willfit.engines.vllm.estimate import NAME, answer, estimate
from willfit.engines.vllm.settings import Settings

__all__ = ["NAME", "NEWEST", "Settings", "answer", "estimate"]
