"""Assisted decoding: a small model that proposes tokens, which the large one checks in one pass.

`generation/utils.py: _assisted_decoding`. The assistant has a cache of its own; while the large model runs, which is
when memory peaks, nothing else of it is there.
"""

from __future__ import annotations

from dataclasses import replace

from willfit.engines.caching_allocator import block_slack
from willfit.engines.transformers.loading import load
from willfit.engines.transformers.moments import Run
from willfit.engines.transformers.sources import SOURCES
from willfit.estimate import Term, between, exact
from willfit.hardware.device import Device


def draft_terms(run: Run, device: Device) -> tuple[Term, ...]:
    """The assistant's weights and its cache; nothing without one."""
    draft = run.subject.draft
    if draft is None or run.settings.phase != "generate":
        return ()
    dtype = run.settings.resolved_dtype(draft.architecture.dtype, draft.recipe.rule is not None)
    loaded = load(draft, run.era, dtype, 1, False)
    own = Run(draft, replace(run.settings, cache="dynamic", tensor_parallel=1), run.era, dtype, loaded)
    tokens = run.last_tokens + run.settings.assistant_tokens
    kept = own.kept(tokens, True)
    cache = kept.elements * own.width * run.settings.threads
    slack = block_slack(kept.largest_tensor * own.width)[1] * kept.tensors
    weights = loaded.total + loaded.buffers + loaded.slack
    version = run.settings.version
    return (
        exact(
            "draft",
            weights,
            f"{loaded.total} B of the assistant's tensors ({draft.recipe.name}) + {loaded.buffers + loaded.slack} B of "
            "tables and rounding",
            SOURCES.cite("weights", version),
        ),
        between(
            "draft_cache",
            cache,
            cache,
            cache + slack * run.settings.threads,
            f"{run.settings.threads} x {kept.elements} elements of {tokens} tokens x {own.width} B ({dtype})",
            SOURCES.cite("assisted", version),
        ),
    )
