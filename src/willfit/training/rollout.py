"""An engine that generates for the trainer: what it takes of a card that both share, awake and asleep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from willfit.engines.base import Machine, Subject
from willfit.engines.vllm.estimate import estimate as vllm_estimate
from willfit.engines.vllm.settings import Settings
from willfit.estimate import Term, exact
from willfit.quantities import format_bytes
from willfit.training.settings import RolloutSettings

_REFERENCE = "vllm device_allocator/cumem.py, trl generation/vllm_generation.py"

#: Share of a card that TRL gives a colocated engine (`grpo_config.py: vllm_gpu_memory_utilization`).
_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Rollout:
    """A colocated engine on one card.

    Attributes
    ----------
    awake, asleep
        Bytes that it holds while it generates, and while the trainer works.
    host
        Bytes of weights in the host's RAM while it sleeps.
    refusal
        Why it would not start; empty if it would.
    """

    awake: int
    asleep: int
    host: int
    refusal: str = ""


def colocated(subject: Subject, machine: Machine, rollout: RolloutSettings, length: int) -> Rollout | None:
    """What a colocated vLLM or SGLang takes of each card; None where it runs elsewhere or the policy itself generates.

    Parameters
    ----------
    subject, machine
        The model, and the devices.
    rollout
        The engine's settings.
    length
        Tokens of the longest prompt with its completion.
    """
    if not rollout.colocated or rollout.engine == "transformers":
        return None
    share = rollout.memory_utilization or _SHARE
    settings = Settings(
        gpu_memory_utilization=share,
        max_model_len=length,
        tensor_parallel=rollout.tp,
        sleep_mode=rollout.sleep_level > 0,
    )
    group = replace(machine, devices=machine.devices[: rollout.tp])
    answer = vllm_estimate(subject, group, settings)
    device = answer.devices[0]
    refusal = answer.refusal
    short = next((demand for demand in answer.demands if demand.verdict == "does_not_fit"), None)
    if not refusal and short is not None:
        need, pool = format_bytes(short.needed_bytes), format_bytes(max(0, short.pool_bytes))
        refusal = f"the colocated engine's share of {share} leaves {pool} for {short.what}, which take {need}"
    if not rollout.sleep_level:
        return Rollout(device.peak_bytes, device.peak_bytes, 0, refusal)
    rest = answer.details["asleep"][f"level_{rollout.sleep_level}"]
    return Rollout(device.peak_bytes, int(rest["device_bytes"]), int(rest["host_bytes"]), refusal)


#: What the trainer gives back while completions are generated.
_AWAY = frozenset({"activations", "logits", "temporaries", "communication", "gradients"})


def shared_with(rollout: Rollout, terms: Sequence[Term]) -> list[Term]:
    """The terms of a card at the fuller of two times: the trainer works beside the sleeping engine, or waits for it."""
    rest = exact("rollout", rollout.asleep, f"{rollout.asleep} B of the engine that sleeps", _REFERENCE)
    whole = exact("rollout", rollout.awake, f"{rollout.awake} B of the engine that generates", _REFERENCE)
    training = [*terms, *([rest] if rest.bytes else [])]
    waiting = [*(term for term in terms if term.name not in _AWAY), whole]
    return max(training, waiting, key=lambda found: sum(term.bytes for term in found))
