"""RAM that LightLLM takes beside the model: what it keeps of prompts, images and requests."""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.engines.lightllm.settings import Resolved, Settings, prefix_states
from willfit.engines.lightllm.sources import SOURCES
from willfit.engines.lightllm.tables import request_states
from willfit.engines.lightllm.weights import runs_encoders
from willfit.estimate import Term, exact


def host_terms(
    architecture: Architecture, settings: Settings, resolved: Resolved, dtype: str
) -> tuple[Term, ...]:
    """Pinned and shared memory of all ranks."""
    terms = []
    if settings.cpu_cache_bytes:
        reference = SOURCES.cite("host cache", settings.version)
        formula = f"{settings.cpu_cache_bytes} B (as asked for), shared"
        terms.append(exact("kv_cache", settings.cpu_cache_bytes, formula, reference))
    if resolved.era.tables_before and architecture.towers and runs_encoders(settings, resolved):
        reference = SOURCES.cite("embeddings", settings.version)
        formula = f"{resolved.embed_cache_bytes} B of embeddings of images"
        terms.append(exact("embeddings", resolved.embed_cache_bytes, formula, reference))
    if resolved.era.counters and settings.penalty_counter_mode == "pin_mem_counter":
        size = (resolved.requests + 1) * architecture.vocab_size * 4
        formula = f"{settings.tp} ranks x {resolved.requests + 1} requests x {architecture.vocab_size} x 4 B"
        reference = SOURCES.cite("tables", settings.version)
        terms.append(exact("request_tables", settings.tp * size, formula, reference))
    state = request_states(architecture, settings, dtype)
    if state and resolved.era.tables_before:
        count = prefix_states(settings, resolved.requests)
        formula = f"{settings.tp} ranks x {count} prefixes x {state} B"
        reference = SOURCES.cite("states", settings.version)
        terms.append(exact("recurrent_state", settings.tp * count * state, formula, reference))
    return tuple(terms)
