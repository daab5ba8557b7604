"""Options as published commands and configurations have them: counted, or named."""

import pytest

from willfit.architectures.build import build
from willfit.asking import find_subject
from willfit.checkpoints import catalogue
from willfit.checkpoints.config import Config
from willfit.engines.base import Machine
from willfit.hardware.table import find_device
from willfit.launch.table import parse_command
from willfit.training.adapters.matching import select
from willfit.training.adapters.modules import find_modules
from willfit.training.estimate import accounts_of, estimate, prepared
from willfit.training.settings import (
    AdapterSettings,
    CheckpointingSettings,
    OptimizerSettings,
    TrainingSettings,
)

LLAMA = "meta-llama/Llama-3.2-1B"
_LAYERS = "model.language_model.layers"


def machine(gpu="h100", count=1):
    return Machine((find_device(gpu),) * count)


def ask(command, gpu="h100"):
    launch = parse_command(command.split())
    subject = find_subject(launch.model, offline=True)[0]
    return launch, estimate(subject, machine(gpu, launch.devices or 1), launch.settings)


def account(settings, model=LLAMA):
    subject = find_subject(model, offline=True)[0]
    run, ranks = prepared(subject, machine(), settings)
    return accounts_of(run, subject, machine(), ranks)[0]


def terms(answer):
    return {term.name: term.bytes for term in answer.devices[0].terms}


def test_llama_pro_trains_copies_of_layers():
    command = "swift sft --model Qwen/Qwen2.5-7B-Instruct --tuner_type llamapro --llamapro_num_new_blocks 4 --dataset a"
    _, answer = ask(command)
    # A layer of Qwen2.5-7B has 233,057,792 parameters in bf16, of which four are new; states are 16-bit as well.
    layer, model = 233_057_792, 7_615_616_512
    assert terms(answer)["weights"] == 2 * (model + 4 * layer)
    assert terms(answer)["optimizer_state"] == pytest.approx(2 * 2 * 4 * layer, rel=1e-3)


def test_houlsbys_adapters_stand_behind_each_feed_forward_part():
    found = account(
        TrainingSettings(
            "ms-swift",
            seq_len=1024,
            adapter=AdapterSettings("adapter", options={"adapter_length": 64}),
            checkpointing=CheckpointingSettings("none"),
        )
    )
    bare = account(
        TrainingSettings(
            "ms-swift",
            seq_len=1024,
            adapter=AdapterSettings("ia3", targets=("down_proj",)),
            checkpointing=CheckpointingSettings("none"),
        )
    )
    # 16 layers of 2048: two matrices of 64 rows with biases, in float32.
    assert found.weights - bare.weights == 4 * (16 * (2 * 64 * 2048 + 64 + 2048) - 16 * 8192)
    # Of the second layer on: the output in float32, and what stands before and behind the activation.
    layer = next(piece for piece in found.pieces if piece.name == "layer 5")
    assert layer.replay.kept_by_module["mlp"] > 1024 * 4 * (2048 + 2 * 64)


def test_lora_fa_keeps_no_input_and_half_of_the_states():
    def asked(name):
        adapter = AdapterSettings(rank=8, targets=("q_proj",))
        optimizer = OptimizerSettings(name)
        return account(
            TrainingSettings(
                seq_len=1024,
                adapter=adapter,
                optimizer=optimizer,
                checkpointing=CheckpointingSettings("none"),
            )
        )

    both, one = asked("adamw"), asked("lora_fa")
    assert both.optimizer.held() + both.optimizer.held("host") > one.optimizer.held()
    assert one.optimizer.held() == 2 * 4 * 16 * 8 * 2048
    kept = [
        next(piece for piece in found.pieces if piece.name == "layer 5").replay.kept for found in (both, one)
    ]
    # The float32 copy of the input, which the gradient of A alone needs.
    assert kept[0] - kept[1] == 4 * 1024 * 2048


def test_trained_rows_of_a_shared_table_are_put_into_copies():
    plain = AdapterSettings("ia3", targets=("down_proj",))
    rows = AdapterSettings("trainable_tokens", targets=("embed_tokens",), options={"token_indices": [1, 2]})
    found, bare = (
        account(TrainingSettings(seq_len=1024, adapter=one, checkpointing=CheckpointingSettings("none")))
        for one in (rows, plain)
    )
    # The head, which is tied to the embedding, keeps a copy of the table: 128,256 x 2048 in bf16.
    table = 2 * 128_256 * 2048
    head = next(piece for piece in found.pieces if piece.name == "head and loss")
    assert head.replay.kept - bare.pieces[-1].replay.kept >= table


def test_a_prompt_beside_attention_keeps_its_scores():
    prompt = AdapterSettings(
        "adaption_prompt", targets=("self_attn",), options={"adapter_len": 10, "adapter_layers": 4}
    )
    found = account(
        TrainingSettings(seq_len=1024, adapter=prompt, checkpointing=CheckpointingSettings("none"))
    )
    layers = {piece.name: piece.replay for piece in found.pieces}
    assert layers["layer 11"].kept == 0
    # Softmax in float32, and twice in bf16 (before and behind the gate), of 32 heads: and queries and values anew.
    scores = 32 * 1024 * 10 * (4 + 2 + 2)
    assert layers["layer 13"].kept > layers["layer 12"].kept - 1 >= scores


@pytest.mark.parametrize(
    ("model", "pattern", "count"),
    [
        ("google/gemma-3-4b-it", rf"{_LAYERS}.[\d]+.(mlp|cross_attn|self_attn).(up|down|gate|q|k|v|o)_proj", 7),
        ("google/gemma-3-4b-it", rf"{_LAYERS}.[0-3].self_attn.q_proj", 1),
        (LLAMA, r".*\.vision.*", 0),
    ],
)  # fmt: skip
def test_patterns_of_models_that_see_mean_their_language_model(model, pattern, count):
    architecture = build(Config(dict(catalogue.find(model).config)))
    found = select(find_modules(architecture, False), (pattern,))
    assert len({module.leaf for module in found}) == count
    assert all(module.part in ("attention", "mlp") for module in found)


def test_a_tower_without_layers_is_held():
    fields = dict(catalogue.find("google/gemma-3n-E2B-it").config)
    architecture = build(Config(fields))
    answer = account(
        TrainingSettings(seq_len=512, adapter=AdapterSettings(targets=("q_proj",))), "google/gemma-3n-E2B-it"
    )
    whole = sum(tensor.elements for _, tensor in architecture.tensors(mtp=False) if tensor.kind != "buffer")
    assert answer.weights >= 2 * whole


@pytest.mark.parametrize(
    ("command", "targets"),
    [
        ("swift sft --model Qwen/Qwen2.5-7B-Instruct --dataset a", ("all-linear",)),
        ("swift sft --model_id_or_path qwen/Qwen-7B-Chat --sft_type lora --dataset a", ("qkv",)),
        (
            "megatron sft --model Qwen/Qwen2.5-7B-Instruct --train_type lora --target_modules linear_qkv linear_fc2",
            ("q_proj", "k_proj", "v_proj", "qkv_proj", "query_key_value", "down_proj"),
        ),
    ],
)
def test_what_ms_swift_adapts(command, targets):
    assert parse_command(command.split()).settings.adapter.targets == targets


def test_a_remedy_that_a_run_does_not_allow_is_not_proposed():
    # LoRA has no matrix of its own that GaLore could project: the run itself is answered all the same.
    settings = TrainingSettings(
        optimizer=OptimizerSettings("galore_adamw", options={"target_modules": ["q_proj"]})
    )
    answer = estimate(find_subject("meta-llama/Llama-3.1-8B", offline=True)[0], machine("rtx-4090"), settings)
    assert answer.verdict == "does_not_fit"
    assert answer.remedies


def test_images_of_a_sequence_pass_through_the_tower():
    def kept(**images):
        settings = TrainingSettings(
            seq_len=4096, checkpointing=CheckpointingSettings("none"), attention="flash_attention_2", **images
        )
        pieces = account(settings, "Qwen/Qwen2-VL-2B-Instruct").pieces
        return next((p.replay.kept for p in pieces if p.name == "vision layer 3"), 0)

    one = kept(image_tokens=256)
    assert one > 0 == kept(images=0)
    assert kept(images=4, image_tokens=256) == pytest.approx(4 * one, rel=1e-3)
    assert kept(image_tokens=1024) == pytest.approx(4 * one, rel=1e-3)
    # No more than the sequence has room for.
    assert kept(images=4, image_tokens=4096) == pytest.approx(16 * one, rel=1e-3)


@pytest.mark.parametrize(
    ("framework", "trained", "sees"),
    [("trl", (), True), ("ms-swift", (), False), ("llamafactory", (), False), ("ms-swift", ("*",), True)],
)
def test_towers_are_frozen_where_the_framework_does_so(framework, trained, sees):
    found = account(TrainingSettings(framework, seq_len=1024, trained=trained), "Qwen/Qwen2-VL-2B-Instruct")
    tower = [piece.unit.trained for piece in found.pieces if piece.name.startswith("vision")]
    assert any(tower) is sees
    assert any(piece.unit.trained for piece in found.pieces if piece.name == "layer 3")


def test_what_is_usual_is_assumed_and_said():
    mamba = find_subject("mistralai/Mamba-Codestral-7B-v0.1", offline=True)[0]

    def run(**asked):
        return prepared(mamba, machine(), TrainingSettings(seq_len=512, **asked))[0]

    usual = run()
    assert {"mamba_ssm", "causal_conv1d", "fla"} <= set(usual.settings.kernels)
    assert any("--kernels torch" in line for line in usual.assumed)
    assert run(kernels=("torch",)).settings.kernels == ()
    llama = find_subject(LLAMA, offline=True)[0]
    old = prepared(llama, machine(), TrainingSettings("trl", version="0.15.2"))[0]
    assert old.settings.versions["transformers"] == "4.48.0"
    said = TrainingSettings("trl", version="0.15.2", versions={"transformers": "4.51.0"})
    assert prepared(llama, machine(), said)[0].settings.versions["transformers"] == "4.51.0"


def test_fused_lora_keeps_inputs_once_and_in_16_bits():
    adapter = AdapterSettings(rank=16, targets=("all-linear",))
    kernels = ("rms_norm", "rope", "swiglu")

    def kept(*more):
        settings = TrainingSettings(
            seq_len=1024, adapter=adapter, kernels=(*kernels, *more), attention="flash_attention_2",
            checkpointing=CheckpointingSettings("none"),
        )  # fmt: skip
        return next(piece for piece in account(settings).pieces if piece.name == "layer 5").replay.kept

    # PEFT keeps a float32 copy of each module's input, and what A makes of it: Llama-3.2-1B is 2048 and 8192 wide.
    copies = 4 * 1024 * (6 * 2048 + 8192 + 7 * 16)
    # Unsloth keeps two normed inputs; attention's output is kept anyway.
    assert kept("lora") == kept() - copies + 2 * 1024 * 2 * 2048
