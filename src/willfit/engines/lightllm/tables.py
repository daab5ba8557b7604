"""What LightLLM keeps of each request beside its slots: where its tokens are, counters, recurrent states."""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.engines.lightllm.settings import Resolved, Settings
from willfit.engines.lightllm.sources import SOURCES
from willfit.engines.ranks import state_bytes_on_rank
from willfit.estimate import Term, between
from willfit.quantities import dtype_name


def request_states(architecture: Architecture, settings: Settings, dtype: str) -> int:
    """Bytes of the states of one request on a rank."""
    recurrent = dtype_name(settings.linear_att_ssm_data_type)
    return state_bytes_on_rank(architecture, dtype, recurrent, settings.group_ranks)


def request_tables(architecture: Architecture, settings: Settings, resolved: Resolved, dtype: str) -> Term:
    """Tables of all requests and of one for padding (`common/req_manager.py`).

    A draft model needs a state for each token that it may have to take back; how much wider the inputs of convolutions
    become is between nothing and as much.
    """
    rows, width = resolved.requests + 1, max(resolved.length, resolved.batch_max_tokens)
    size, formula = rows * width * 4, f"{rows} requests x {width} tokens x 4 B"
    if resolved.era.counters and settings.penalty_counter_mode == "gpu_counter":
        size += rows * architecture.vocab_size * 4
        formula += f" + {rows} x {architecture.vocab_size} counters x 4 B"
    high = size
    state = request_states(architecture, settings, dtype)
    if state:
        copies = settings.mtp_step + 1
        size += rows * state
        high += rows * state * copies
        formula += f" + {rows} x {state} B of states"
    return between("request_tables", size, size, high, formula, SOURCES.cite("tables", settings.version))
