"""Training runs as users ask for them: answers that add up, names that are checked, none counted as another."""

import json
import shlex
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from willfit.asking import answer_command, find_subject, machine_of
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.formulas import read_formula
from willfit.training.adapters.adapt import methods
from willfit.training.estimate import estimate
from willfit.training.settings import (
    AdapterSettings,
    CheckpointingSettings,
    LayoutSettings,
    LossSettings,
    OptimizerSettings,
    PrecisionSettings,
    TrainingSettings,
)

PUBLISHED = Path(__file__).parents[1] / "launch" / "data" / "training"
LLAMA = "meta-llama/Meta-Llama-3-8B"
PARAMETERS = 8_030_261_248
WORKSPACE = 2 * (2 * 4096 * 1024 + 8 * 16 * 1024)
PURE = PrecisionSettings(recipe="pure-bf16")
FLASH = TrainingSettings(
    versions={"transformers": "4.45.2"},
    attention="flash_attention_2",
    seq_len=4096,
    packed=True,
    precision=PURE,
    checkpointing=CheckpointingSettings("full"),
)


def ask(settings: TrainingSettings, model: str = LLAMA, gpus: str = "a100-80g") -> Estimate:
    return estimate(find_subject(model, offline=True)[0], machine_of(gpus), settings)


def allocated(answer: Estimate) -> int:
    instants = answer.details["training"]["instants"]
    return max(one["bytes"] for one in instants)


def terms(answer: Estimate) -> dict[str, int]:
    return {term.name: term.bytes for term in answer.devices[0].terms}


def asked(**changes: object) -> TrainingSettings:
    return replace(FLASH, **changes)


def test_sixteen_bit_training_peaks_at_ten_bytes_a_parameter() -> None:
    """2 of weights, 2 of gradients, 4 of moments, and 2 of what foreach AdamW makes of them (measured: 10.00)."""
    answer = ask(asked(loss=LossSettings("liger"), optimizer=OptimizerSettings("adamw", "foreach")))
    assert answer.details["training"]["instant"] == "optimizer step"
    # 291 tensors have a step counter of 4 B for each; nothing else is there.
    assert abs(allocated(answer) - WORKSPACE - 10 * PARAMETERS) < 10_000


def test_fused_adam_needs_no_copy() -> None:
    answer = ask(asked(loss=LossSettings("liger"), optimizer=OptimizerSettings("adamw", "fused")))
    assert max(
        one["bytes"] for one in answer.details["training"]["instants"] if one["name"] == "optimizer step"
    ) < (8 * PARAMETERS + WORKSPACE + 10_000)


@pytest.mark.parametrize("ranks", [2, 4])
def test_sharded_float32_training_steps_at_twenty_bytes_a_parameter(ranks: int) -> None:
    """16 of weights, gradients and moments and 4 of foreach, over the ranks (measured: 20.0 / N)."""
    settings = asked(
        precision=PrecisionSettings(recipe="fsdp-mixed"),
        layout=LayoutSettings(data="fsdp1"),
        loss=LossSettings("liger"),
        optimizer=OptimizerSettings("adamw", "foreach"),
    )
    instants = ask(settings, gpus=f"{ranks}xa100-80g").details["training"]["instants"]
    step = next(one["bytes"] for one in instants if one["name"] == "optimizer step")
    assert (step - WORKSPACE) * ranks / PARAMETERS == pytest.approx(20, rel=1e-4)


def test_a_token_costs_its_checkpoints_and_twelve_bytes_a_logit() -> None:
    """Mistral-7B, LoRA: 32 checkpoints of 4096 in 16 bits, 12 B x 32000, and a little more (measured: 670,760)."""
    adapter = AdapterSettings(rank=16, targets=("q_proj", "k_proj", "v_proj", "o_proj"))
    peaks = [
        allocated(ask(asked(adapter=adapter, micro_batch=batch), "mistralai/Mistral-7B-v0.1"))
        for batch in (4, 8)
    ]
    slope = (peaks[1] - peaks[0]) / (4 * 4096)
    assert 32 * 4096 * 2 + 12 * 32000 < slope < 1.05 * (32 * 4096 * 2 + 12 * 32000)
    assert slope == pytest.approx(670_760, rel=0.02)


@pytest.mark.parametrize(
    ("stage", "ranks", "gigabytes"),
    [("zero1", 1, 120), ("zero1", 64, 31.4), ("zero2", 64, 16.6), ("zero3", 64, 1.9)],
)
def test_zero_keeps_what_its_paper_says(stage: str, ranks: int, gigabytes: float) -> None:
    """Rajbhandari et al. 2020, figure 1: 7.5 B parameters on 64 devices; 16 B a parameter without sharing."""
    from willfit.training.settings import OffloadSettings
    from willfit.training.sharding.base import Unit
    from willfit.training.sharding.zero import zero

    count = 7_500_000_000
    unit = Unit(2 * count, 2 * count, count, 2 * count)
    precision = PrecisionSettings(weights="bf16", compute="bf16", gradients="bf16")
    shared = zero([unit], LayoutSettings(), precision, OffloadSettings(), ranks, int(stage[-1]), 4096)
    held = shared.weights + shared.gradients + shared.master + 8 * shared.state_elements
    assert held / 1e9 == pytest.approx(gigabytes, abs=0.05)


def test_each_adapter_adds_something_and_trains_through_the_layers() -> None:
    answered = 0
    for kind in sorted(methods()):
        try:
            answer = ask(
                asked(adapter=AdapterSettings(kind=kind), checkpointing=CheckpointingSettings("none"))
            )
        except BadInput:
            continue  # it needs options of its own, or has no usual modules for Llama
        answered += 1
        found = terms(answer)
        assert found["optimizer_state"] > 0, kind
        # Gradients must pass all layers, so each keeps activations.
        assert found["activations"] > 32 * 4096 * 4096 * 2, kind
    assert answered > 30


@pytest.mark.parametrize(
    ("words", "trained"),
    [(("layers.0-15",), 16), (("layers.-2:",), 2), (("layers.3",), 1), (("layers.:4.mlp",), 4)],
)
def test_layers_are_trained_by_number(words: tuple[str, ...], trained: int) -> None:
    """Llama-3-8B: a layer has 218,112,000 parameters, of which its MLP 176,160,768; two 16-bit moments for each."""
    each = 176_160_768 if "mlp" in words[0] else 218_112_000
    states = terms(ask(asked(trained=words)))["optimizer_state"]
    assert states == pytest.approx(4 * each * trained, rel=1e-4)
    rest = terms(ask(asked(frozen=words)))["optimizer_state"]
    assert states + rest == pytest.approx(4 * PARAMETERS, rel=1e-4)


def test_optimizers_differ() -> None:
    states = {
        name: terms(ask(asked(optimizer=OptimizerSettings(name)))).get("optimizer_state", 0)
        for name in ("sgd", "adamw", "adamw_8bit", "adafactor", "paged_adamw_32bit")
    }
    assert states["sgd"] == 0
    assert states["adamw"] == pytest.approx(4 * PARAMETERS, rel=1e-4)
    assert states["adafactor"] < states["adamw_8bit"] < states["adamw"]
    assert states["paged_adamw_32bit"] < states["adafactor"]


def test_paged_states_take_what_room_is_left_and_fail_no_run() -> None:
    paged = asked(optimizer=OptimizerSettings("paged_adamw_32bit"))
    roomy = ask(paged, gpus="b200")
    states = terms(roomy)["paged_states"]
    assert states == pytest.approx(8 * PARAMETERS, rel=1e-3)
    peak, (_, most) = roomy.devices[0].peak_bytes - states, roomy.devices[0].interval_bytes
    narrow = machine_of("b200")
    device = replace(narrow.devices[0], usable_bytes=most - states + PARAMETERS)
    answer = estimate(find_subject(LLAMA, offline=True)[0], replace(narrow, devices=(device,)), paged)
    assert answer.verdict == "fits"
    assert terms(answer)["paged_states"] == pytest.approx(PARAMETERS, rel=1e-6)
    assert answer.devices[0].peak_bytes == peak + terms(answer)["paged_states"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"checkpointing": CheckpointingSettings("ful")}, "no checkpointing 'ful'"),
        ({"loss": LossSettings("ligre")}, "no loss 'ligre'"),
        ({"attention": "flash"}, "no attention 'flash'"),
        ({"kernels": ("ligr",)}, "no kernel 'ligr'"),
        ({"optimizer": OptimizerSettings("adamv")}, "unknown optimizer 'adamv'"),
        ({"adapter": AdapterSettings(kind="lore")}, "'lore' is not known"),
        ({"adapter": AdapterSettings(targets=("nothing",))}, "no module of llama is named nothing"),
        ({"framework": "torchtoon"}, "no training framework 'torchtoon'"),
        ({"precision": PrecisionSettings(recipe="bf8")}, "no precision recipe 'bf8'"),
        ({"frozen": ("embeding",)}, "'embeding' is no part, layer or tensor of llama"),
        ({"trained": ("layers.30-40",)}, "has layers 0 to 31"),
        ({"layout": LayoutSettings(tp=3)}, "cannot be divided"),
        ({"layout": LayoutSettings(pp=64)}, "pp 64"),
    ],
)
def test_what_is_not_known_is_refused(changes: dict[str, object], says: str) -> None:
    gpus = "64xh100" if "pp" in says else "a100-80g"
    with pytest.raises(BadInput, match=says):
        ask(asked(**changes), gpus=gpus)


@pytest.mark.parametrize("length", [256, 1024, 4096])
def test_more_tokens_never_take_less(length: int) -> None:
    for kind in ("none", "full", "selective-op", "selective-core-attn"):
        checkpointing = CheckpointingSettings(kind)
        short, long = (
            allocated(ask(asked(seq_len=tokens, checkpointing=checkpointing)))
            for tokens in (length, 2 * length)
        )
        assert short <= long


def test_each_term_is_explained() -> None:
    for model, gpus in (
        (LLAMA, "8xh100"),
        ("Qwen/Qwen3-30B-A3B", "h100"),
        ("deepseek-ai/DeepSeek-V4-Flash", "h100"),
    ):
        answer = ask(replace(FLASH, layout=LayoutSettings(data="fsdp2"), versions={}), model, gpus)
        for term in (*answer.devices[0].terms, *answer.host.terms):
            formula = read_formula(term.formula)
            assert formula is not None, f"{term.name}: {term.formula!r}"
            assert formula.value == pytest.approx(term.bytes, abs=1), f"{term.name}: {term.formula!r}"
            assert term.reference


def _published() -> list[list[str]]:
    found = []
    for name in ("commands.jsonl", "hugging_face.jsonl"):
        for line in (PUBLISHED / name).read_text().splitlines():
            command = json.loads(line)["command"]
            found.append(shlex.split(command) if isinstance(command, str) else command)
    return found


def test_published_commands_are_answered_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PUBLISHED)
    machine, answered = machine_of("64xh100"), 0
    for words in _published():
        with suppress(BadInput):  # a model that is not bundled, or a layout for another number of devices
            answer_command(words, machine, offline=True)
            answered += 1
    assert answered > 70


@pytest.mark.parametrize(
    ("framework", "checkpoints"),
    [("llamafactory", True), ("ms-swift", True), ("trl", True), ("transformers", False)],
)
def test_programs_that_checkpoint_unless_told_otherwise(framework: str, checkpoints: bool) -> None:
    settings = TrainingSettings(framework=framework, adapter=AdapterSettings(), seq_len=2048)
    told = replace(settings, checkpointing=CheckpointingSettings("full"))
    assert (allocated(ask(settings)) == allocated(ask(told))) is checkpoints


def test_a_quantized_checkpoint_is_converted_where_the_model_itself_is_trained() -> None:
    model, settings = "openai/gpt-oss-20b", TrainingSettings(seq_len=1024, precision=PURE)
    whole, adapted = (
        ask(settings, model),
        ask(replace(settings, adapter=AdapterSettings(targets=("q_proj",))), model),
    )
    assert terms(whole)["optimizer_state"] == pytest.approx(2 * terms(whole)["weights"], rel=1e-3)
    assert terms(adapted)["weights"] < 0.4 * terms(whole)["weights"]
    assert any("mxfp4 numbers cannot be trained" in note for note in whole.notes)
    assert not any("cannot be trained" in note for note in adapted.notes)
