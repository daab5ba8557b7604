"""What frameworks, DeepSpeed and a checkpoint's own code do, against hand-computed bytes and published figures."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from willfit.architectures.model import Architecture
from willfit.asking import find_subject, machine_of
from willfit.training.estimate import estimate
from willfit.training.frameworks.table import resolve
from willfit.training.optimizers import optimizer_memory
from willfit.training.parameters import Parameter
from willfit.training.settings import (
    AdapterSettings,
    CheckpointingSettings,
    LayoutSettings,
    OptimizerSettings,
    PrecisionSettings,
    TrainingSettings,
)
from willfit.training.sharding.base import Unit
from willfit.training.sharding.zero import zero

CASES = Path(__file__).parents[1] / "data" / "cases"
BF16 = PrecisionSettings(weights="bf16", compute="bf16", gradients="bf16")
UNITS = (Unit(600, 600, 300, 600, 200), Unit(1400, 1400, 700, 1400, 500))


def architecture(name: str = "meta-llama/Meta-Llama-3-8B") -> Architecture:
    return find_subject(name, offline=True)[0].architecture


def lora(framework: str, version: str | None = None, **changes: object) -> TrainingSettings:
    return replace(
        TrainingSettings(framework=framework, version=version, adapter=AdapterSettings("lora", rank=8)),
        **changes,
    )


def test_zero_two_makes_whole_buckets_and_flattens_gradients_before_it_steps() -> None:
    layout = LayoutSettings(reduce_bucket=4000)
    found = zero(UNITS, layout, BF16, lora("deepspeed").offload, ranks=2, stage=2, hidden=8)
    # A bucket of 4000 elements, though 1000 are trained; a partition is 500 of them.
    assert found.backward == (8_000, 8_000)
    assert found.master == found.step == 4 * 500
    # 2 of gradients and 8 of the largest in float64; more than 2 of a flat copy and 4 of that in float32 beside.
    assert found.before_step == (2 + 8) * 500
    assert found.frees_gradients


def test_zero_three_alone_gathers_nothing() -> None:
    layout = LayoutSettings(reduce_bucket=0)
    alone, shared = (
        zero(UNITS, layout, BF16, lora("deepspeed").offload, ranks=ranks, stage=3, hidden=8)
        for ranks in (1, 2)
    )
    assert alone.forward == (0, 0)
    assert min(shared.forward) > 0
    # `auto` is the width squared; gradients have a buffer from the beginning.
    assert (alone.resident, alone.gradients, alone.buffered) == (2 * 64, 2000, True)
    # 2 of their flat copy and 4 of that in float32.
    assert alone.before_step == 6 * 1000


@pytest.mark.parametrize(
    ("peft", "layout", "dtype"),
    [("0.5.0", None, "fp32"), ("0.7.1", None, "bf16"), ("0.13.0", None, "fp32"), ("0.13.0", "zero2", "bf16")],
)
def test_adapters_have_the_dtype_of_their_version(peft: str, layout: str | None, dtype: str) -> None:
    settings = lora(
        "transformers",
        versions={"peft": peft},
        precision=PrecisionSettings(weights="bf16", compute="bf16"),
        layout=LayoutSettings(data=layout),
    )
    adapter = resolve(settings, architecture()).settings.adapter
    assert adapter is not None
    assert adapter.dtype == dtype


@pytest.mark.parametrize(
    ("framework", "version", "targets"),
    [("ms-swift", "3.0.0", ("all-linear",)), ("llamafactory", "0.9.4", ("all-linear",)), ("trl", None, ())],
)
def test_frameworks_have_targets_of_their_own(
    framework: str, version: str | None, targets: tuple[str, ...]
) -> None:
    adapter = resolve(lora(framework, version), architecture()).settings.adapter
    assert adapter is not None
    assert adapter.targets == targets


def test_early_swift_adapts_queries_keys_and_values() -> None:
    found = estimate(
        find_subject("Qwen/Qwen-7B-Chat", offline=True)[0],
        machine_of("a100-80g"),
        lora("ms-swift", "1.7.3", seq_len=64),
    )
    states = next(term for term in found.devices[0].terms if term.name == "optimizer_state")
    # `c_attn` alone, 4096 to 3 x 4096, in 32 layers: two moments of the model's 16 bits or of float32.
    elements = 32 * 8 * (4096 + 3 * 4096)
    assert states.bytes - states.bytes % 4096 in (2 * 2 * elements, 2 * 4 * elements)


def test_qwens_own_code_loads_half_and_compares_logits_as_they_are() -> None:
    run = resolve(
        TrainingSettings(versions={"transformers": "4.34.0"}, layout=LayoutSettings(data="zero3")),
        architecture("Qwen/Qwen-1_8B"),
    )
    assert run.settings.precision.weights == "bf16"
    assert run.habits.narrow_loss
    assert not run.settings.precision.autocast
    llama = resolve(TrainingSettings(versions={"transformers": "4.34.0"}), architecture())
    assert llama.settings.precision.weights == "fp32"
    assert llama.habits.upcasts_logits


@pytest.mark.parametrize(
    ("version", "compiles", "unkept"),
    [("9dec370", False, False), ("2025-03-01", False, False), ("0.1.0", True, True), ("0.2.1", True, False)],
)
def test_torchtitan_by_date(version: str, compiles: bool, unkept: bool) -> None:
    run = resolve(TrainingSettings(framework="torchtitan", version=version, compile=True), architecture())
    assert run.habits.compiles_loss is compiles
    assert run.habits.cudnn_unkept is unkept


def test_a_compiled_loss_keeps_logits_alone() -> None:
    settings = TrainingSettings(
        framework="torchtitan",
        seq_len=8192,
        compile=True,
        checkpointing=CheckpointingSettings("full"),
        layout=LayoutSettings(data="fsdp2"),
    )
    peaks = []
    for version in ("0.1.0", "2025-03-01"):
        found = estimate(
            find_subject("meta-llama/Meta-Llama-3-8B", offline=True)[0],
            machine_of("8x h100-sxm"),
            replace(settings, version=version),
        )
        instants = found.details["training"]["instants"]
        peaks.append(
            max(one["bytes"] for one in instants if one["name"].startswith("backward of head and loss"))
        )
    # 2 of the logits and 2 of their gradient, in place of 4 of logarithms, and twice 4 of gradients; then the product's
    # own gradients are most.
    assert 6 * 8192 * 128_256 < peaks[1] - peaks[0] <= 8 * 8192 * 128_256


def test_what_is_stepped_in_the_backward_pass_does_not_add_up() -> None:
    settings = TrainingSettings(
        gradient_accumulation=4, seq_len=64, optimizer=OptimizerSettings("adamw", in_backward=True)
    )
    found = estimate(
        find_subject("meta-llama/Meta-Llama-3-8B", offline=True)[0], machine_of("h100-sxm"), settings
    )
    assert all(one["gradient_bytes"] < 5e9 for one in found.details["training"]["instants"])


def test_foreach_steps_one_dtype_after_the_other() -> None:
    parameters = [Parameter("wide", (1000,), "mlp", "other"), Parameter("narrow", (3000,), "mlp", "other")]
    found = optimizer_memory(
        "adamw",
        parameters,
        lambda one: "fp32" if one.name == "wide" else "bf16",
        "foreach",
        versions={"torch": "2.4"},
    )
    # A list of 4000 B, which is dropped once the other one of 6000 B is there.
    assert found.step.bytes == 10_000


def test_no_more_is_shown_than_the_card_has() -> None:
    subject = find_subject("meta-llama/Meta-Llama-3-8B", offline=True)[0]
    machine = machine_of("rtx-4090")
    settings = TrainingSettings(
        precision=PrecisionSettings(recipe="pure-bf16"), seq_len=4096, adapter=AdapterSettings("lora", rank=8),
        checkpointing=CheckpointingSettings("full"),
    )  # fmt: skip
    found = estimate(subject, machine, settings)
    value, low, high = found.details["shown"]
    most = machine.devices[0].reported_bytes
    assert most is not None
    assert low <= value <= high <= most


def test_published_training_runs_keep_to_the_schema_of_a_case() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((CASES / "case.schema.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    for line in (CASES / "training.jsonl").read_text(encoding="utf-8").splitlines():
        validator.validate(json.loads(line))
