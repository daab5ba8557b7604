"""MLC-LLM: buffers planned when a model is compiled, a cache in pages sized by MLC's own account, by version.

`eras` says what changed when, `settings` fills in defaults, `planning` works out the compiler's plan of buffers,
`account` MLC's own sizing, `estimate` answers.
"""

from willfit.engines.mlc_llm.eras import NEWEST
from willfit.engines.mlc_llm.estimate import NAME, answer, estimate
from willfit.engines.mlc_llm.settings import Settings

__all__ = ["NAME", "NEWEST", "Settings", "answer", "estimate"]
