"""What sharing, and frameworks around it, keep longer than the model needs it; against published runs and torch."""

import pytest

from willfit.asking import find_subject, machine_of
from willfit.estimate import Estimate
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

LLAMA, HIDDEN, LAYERS = "meta-llama/Meta-Llama-3-8B", 4096, 32


def ask(settings: TrainingSettings, gpus: str, model: str = LLAMA) -> Estimate:
    return estimate(find_subject(model, offline=True)[0], machine_of(gpus), settings)


def allocated(answer: Estimate) -> int:
    return max(one["bytes"] for one in answer.details["training"]["instants"])


def adapted(batch: int, sharing: str | None, reentrant: bool) -> TrainingSettings:
    return TrainingSettings(
        framework="trl",
        versions={"transformers": "4.45", "accelerate": "1.13.0"},
        micro_batch=batch,
        seq_len=4096,
        packed=True,
        attention="flash_attention_2",
        adapter=AdapterSettings("lora", 16, targets=("q_proj", "k_proj", "v_proj", "o_proj")),
        precision=PrecisionSettings(weights="bf16", compute="bf16"),
        checkpointing=CheckpointingSettings("full", reentrant=reentrant),
        loss=LossSettings("liger"),
        layout=LayoutSettings(data=sharing),
    )


def by_token(gpus: str, sharing: str | None, reentrant: bool = True) -> float:
    """Bytes that a token takes."""
    few, many = (allocated(ask(adapted(batch, sharing, reentrant), gpus)) for batch in (16, 32))
    return (many - few) / (16 * 4096)


def test_fsdp1_keeps_what_reentered_checkpoints_of_frozen_layers_were_given() -> None:
    """Published (fms-acceleration, a100_80gb_liger.csv): 774,432 B a token on 2 and 4 cards, 528,672 on one.

    At the first layer each of the others keeps input and its gradient, where the last has all inputs below it.
    """
    published = 774_432 - 528_672
    assert published == (LAYERS - 2) * 2 * HIDDEN
    assert by_token("2xa100-80g", "fsdp1") - by_token("a100-80g", None) == pytest.approx(published, abs=40)
    assert by_token("2xa100-80g", "fsdp1", reentrant=False) == pytest.approx(
        by_token("a100-80g", None, reentrant=False), abs=40
    )
    # Elsewhere a checkpoint that reenters holds the result of its second run, and no more.
    for gpus, sharing in (("a100-80g", None), ("2xa100-80g", "fsdp2")):
        assert by_token(gpus, sharing) - by_token(gpus, sharing, reentrant=False) == 2 * HIDDEN


def test_fsdp2_casts_adapters_itself() -> None:
    """Under autocast each of q, k, v and o keeps a copy of its input, cast to float32 and back. FSDP2's policy casts
    what is gathered: q, k and v keep one input of 2 B an element, and that of o is kept by attention already."""
    less = by_token("a100-80g", None, reentrant=False) - by_token("2xa100-80g", "fsdp2", reentrant=False)
    assert less == pytest.approx((4 - 1) * 2 * HIDDEN, abs=40)


def whole(framework: str, accumulation: int, sharing: str = "fsdp1") -> TrainingSettings:
    return TrainingSettings(
        framework=framework,
        micro_batch=1,
        seq_len=512,
        packed=True,
        gradient_accumulation=accumulation,
        attention="flash_attention_2",
        precision=PrecisionSettings(recipe="pure-bf16"),
        optimizer=OptimizerSettings("sgd"),
        checkpointing=CheckpointingSettings("full", reentrant=False),
        loss=LossSettings("liger" if framework == "transformers" else "chunked"),
        layout=LayoutSettings(data=sharing),
    )


@pytest.mark.parametrize(
    ("framework", "sharing"), [("transformers", "fsdp1"), ("transformers", "fsdp2"), ("litgpt", "fsdp1")]
)
def test_gradients_wait_whole_for_the_last_micro_batch(framework: str, sharing: str) -> None:
    """A rank of eight holds 2 B for each parameter, not a quarter, once there is more than one micro-batch."""
    parameters = 8_030_261_248
    once, often = (ask(whole(framework, count, sharing), "8xa100-80g") for count in (1, 4))
    gradients = max(one["gradient_bytes"] for one in often.details["training"]["instants"])
    assert gradients >= 2 * parameters
    assert allocated(often) - allocated(once) > 1.5 * parameters


def test_others_share_gradients_of_each_micro_batch() -> None:
    once, often = (ask(whole("torchtune", count, "fsdp2"), "8xa100-80g") for count in (1, 4))
    assert allocated(often) - allocated(once) < 2 * 8_030_261_248 / 8 + 2**28


def test_litgpt_makes_gradients_of_frozen_parameters_that_lie_with_adapters() -> None:
    """Published (LitGPT resource tables, Llama 2 7B on 2 A100): 20.66, 20.93 and 21.78 GiB for 1, 2 and 4 sequences."""
    for batch, measured in ((1, 20.6567), (2, 20.9268), (4, 21.7836)):
        settings = TrainingSettings(
            framework="litgpt",
            versions={"litgpt": "2023-10-20", "torch": "2.1.0"},
            micro_batch=batch,
            seq_len=1079,
            gradient_accumulation=64 // batch,
            adapter=AdapterSettings("lora", 8, dropout=0.05, targets=("qkv-fused:q,v",)),
            layout=LayoutSettings(data="fsdp1"),
        )
        answer = ask(settings, "2xa100-40g", "meta-llama/Llama-2-7b-hf")
        assert allocated(answer) / 2**30 == pytest.approx(measured, rel=0.08)


def test_swift_loads_in_sixteen_bits() -> None:
    """Published (ms-swift, full training of Qwen-7B on one A100): 73.5 GiB, 10 B a parameter; float32 would be 20."""
    settings = TrainingSettings(
        framework="ms-swift", versions={"transformers": "4.40.0"}, seq_len=2048,
        attention="flash_attention_2", checkpointing=CheckpointingSettings("full"),
    )  # fmt: skip
    answer = ask(settings, "a100-80g", "Qwen/Qwen-7B-Chat")
    assert allocated(answer) / 7_721_324_500 == pytest.approx(10, rel=0.01)


def test_torchtitan_goes_by_chunks_since_spring_2026() -> None:
    """Logits of 65,536 tokens in float32 are 31 GiB; eight chunks make that four."""
    before, after = (
        allocated(
            ask(
                TrainingSettings(framework="torchtitan", version=version, micro_batch=32, seq_len=2048),
                "4xb200",
            )
        )
        for version in ("2026-04-01", "2026-05-01")
    )
    assert before - after > 2 * 65536 * 128256 * 4


def test_layers_that_take_turns_have_the_gradients_of_those_alone() -> None:
    settings = TrainingSettings(
        seq_len=512, packed=True, attention="flash_attention_2", precision=PrecisionSettings(recipe="pure-bf16"),
        optimizer=OptimizerSettings("lisa", options={"lisa_activated_layers": 2}),
        checkpointing=CheckpointingSettings("full"), loss=LossSettings("liger"),
    )  # fmt: skip
    step = next(
        one
        for one in ask(settings, "a100-80g").details["training"]["instants"]
        if one["name"] == "optimizer step"
    )
    trained = 2 * 128256 * 4096 + 2 * 218_112_000
    assert step["gradient_bytes"] == pytest.approx(2 * trained, rel=0.01)


def test_transformers_tensor_parallel_ranks_see_the_whole_vocabulary() -> None:
    """By hand: 2,048 rows of float32 gradients of logits and of their logarithms; a 16-bit table of 128,256 rows."""
    rows, vocabulary = 2048, 128_256

    def passing(framework: str, version: str, part: str) -> int:
        settings = TrainingSettings(
            framework=framework, versions={"transformers": version}, seq_len=rows, attention="flash_attention_2",
            precision=PrecisionSettings(recipe="pure-bf16"), layout=LayoutSettings(tp=8),
        )  # fmt: skip
        instants = ask(settings, "8xa100-80g").details["training"]["instants"]
        return next(one["passing_bytes"] for one in instants if one["name"].startswith(f"backward of {part}"))

    assert (
        passing("transformers", "5.23.0", "head and loss, logits: log_softmax") == 2 * 4 * rows * vocabulary
    )
    assert passing("megatron", "5.23.0", "head and loss") < 4 * rows * vocabulary
    stream = 2 * rows * HIDDEN
    assert passing("transformers", "5.23.0", "embedding") == stream + 2 * vocabulary * HIDDEN
    assert passing("transformers", "5.20.0", "embedding") == stream
