"""Published speeds of serving: what ran, and how long that took."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from willfit.hardware.device import Device
from willfit.hardware.table import find_device
from willfit.speed.counting import work_of
from willfit.speed.habits import Habits, habits_of
from willfit.speed.planning import plan_from
from willfit.speed.serving import Plan, decode_step, prefill, request_s
from willfit.speed.work import Work
from willfit.validation.cases import Case
from willfit.validation.predictors.vllm import subject_of
from willfit.validation.scoring import Unpredictable

#: Measured keys that are speeds: generated tokens per second; with those of prompts; after the first token.
KEYS = frozenset({"tokens_per_s", "tokens_per_s_total", "decode_tokens_per_s"})

#: A note of a row that ran on another version than its table.
_OTHER_VERSION = re.compile(r"\b(?:vllm|sglang)==([\d.]+)")

#: A note of rows that sampled otherwise than the rest of their table. Penalties cost V0 time for each token of the
#: prompt in each step (`model_executor/sampling_metadata.py: SamplingTensors`), and what they were is not said.
_OTHER_SAMPLING = "new sample config"


@dataclass(frozen=True, slots=True)
class Run:
    """What a case ran.

    Attributes
    ----------
    work, device, engine, version
        What a rank does, on which card, under what.
    stages
        Devices that run layers one after the other.
    batch, prompt, generated
        Sequences, and their tokens; `generated` is 0 where only the speed of decoding is said.
    """

    work: Work
    device: Device
    engine: str
    version: str
    stages: int
    batch: int
    prompt: int
    generated: int

    @property
    def habits(self) -> Habits:
        """What its engine does."""
        return habits_of(self.engine, self.version)

    def plan(self) -> Plan:
        """How it runs, with the constants in force.

        Raises
        ------
        Unpredictable
            If the card's figures are not known.
        """
        plan = plan_from(self.work, (self.device,), self.habits, self.stages)
        if plan is None:
            raise Unpredictable(f"the rates of {self.device.name} are not known")
        return replace(plan, pipelined=False)

    def speeds(self) -> dict[str, float]:
        """Tokens per second by measured key."""
        plan = self.plan()
        if not self.generated:
            return {"decode_tokens_per_s": self.batch / decode_step(plan, self.batch, self.prompt).total}
        seconds = request_s(plan, self.prompt, self.generated, self.batch)
        decoding = seconds - prefill(plan, self.prompt, self.batch).total
        found = {
            "tokens_per_s": self.batch * self.generated / seconds,
            "tokens_per_s_total": self.batch * (self.prompt + self.generated) / seconds,
        }
        if self.generated > 1:
            found["decode_tokens_per_s"] = self.batch * (self.generated - 1) / decoding
        return found


def run_of(case: Case) -> Run:
    """What a case ran.

    Raises
    ------
    Unpredictable
        If the lengths are not said, or the model or the card is not known.
    """
    said = case.settings
    if said.get("input_len") is None or (
        said.get("output_len") is None and "decode_tokens_per_s" not in case.measured
    ):
        raise Unpredictable("the lengths of prompt and answer are not said")
    if not isinstance(case.fields.get("gpu"), str):
        raise Unpredictable("the source does not name the card")
    tensor = int(said.get("tensor_parallel") or 1)
    return Run(
        work_of(subject_of(case), tensor),
        find_device(str(case.fields["gpu"])),
        case.engine,
        version_of(case),
        max(1, int(case.fields.get("n_gpus") or 1) // tensor),
        int(said.get("batch") or 1),
        int(said["input_len"]),
        int(said.get("output_len") or 0),
    )


def version_of(case: Case) -> str:
    """The version that a row ran on: its note may name another than its table."""
    noted = _OTHER_VERSION.search(str(case.fields.get("notes") or ""))
    if noted:
        return noted[1]
    version = str(case.fields.get("engine_version") or "")
    return version if version[:1].isdigit() else "0"


def samples_plainly(case: Case) -> bool:
    """Whether nothing says that a row sampled otherwise than the rest of its table."""
    return _OTHER_SAMPLING not in str(case.fields.get("notes") or "")


def measured_key(case: Case) -> str | None:
    """Which of the speeds a case measured; None without."""
    return next((key for key in sorted(KEYS) if key in case.measured), None)
