"""What frameworks do where nothing is said, by version, each as its own source has it."""

from dataclasses import replace

import pytest

from willfit.asking import find_subject
from willfit.training.frameworks.table import resolve
from willfit.training.settings import (
    AdapterSettings,
    CheckpointingSettings,
    LayoutSettings,
    PrecisionSettings,
    QuantizationSettings,
    TrainingSettings,
)

LLAMA = "meta-llama/Meta-Llama-3-8B"  # stored in bfloat16
WIDE = "google/flan-t5-xl"  # stored in float32
#: Names of queries, keys and values in the list of models of ms-swift before 3.0.
QKV = ("q_proj", "k_proj", "v_proj", "c_attn", "W_pack", "query_key_value", "Wqkv", "wqkv", "qkv_proj")
LORA, NF4 = AdapterSettings(), QuantizationSettings("nf4")
HALF = PrecisionSettings(compute="bf16")


def resolved(framework, version, model=LLAMA, **asked):
    settings = TrainingSettings(framework=framework, version=version, **asked)
    return resolve(settings, find_subject(model, offline=True)[0].architecture).settings


#: Framework, version, what is asked, and what it becomes.
TABLE = [
    # swift/llm/utils/argument.py: select_dtype, max_length; sft_type full stays in the dtype that was loaded.
    ("ms-swift", "1.7.3", {}, {"weights": "bf16", "trainable": "bf16", "states": "bf16", "autocast": True,
                               "checkpointing": "full", "seq_len": 2048, "implementation": "foreach"}),
    # lora_dtype fp32 of swift's own tuners; 2.0 leaves it to PEFT 0.10, which follows the model.
    ("ms-swift", "1.7.3", {"adapter": LORA}, {"adapter": (8, 32.0, 0.05, QKV, "fp32")}),
    ("ms-swift", "2.0.3", {"adapter": LORA}, {"adapter": (8, 32.0, 0.05, QKV, "bf16")}),
    # arguments/tuner_args.py: target_modules all-linear; PEFT from 0.12 on makes float32 ones.
    ("ms-swift", "3.0.0", {"adapter": LORA}, {"adapter": (8, 32.0, 0.05, ("all-linear",), "fp32"), "seq_len": 8192}),
    # transformers >= 4.54: adamw_torch_fused; quant_args.py: bnb_4bit_use_double_quant.
    ("ms-swift", "4.6.0", {"adapter": LORA, "quantization": NF4}, {"implementation": "fused", "double_quant": True,
                                                                     "upcast": "none", "reentrant": False}),
    # adapter.py: init_adapter casts to float32; --bf16 makes products run under autocast.
    ("llamafactory", "0.8.3", {"precision": HALF}, {"weights": "bf16", "trainable": "fp32", "states": "fp32",
                                                    "autocast": True, "seq_len": 1024, "reentrant": True}),
    ("llamafactory", "0.9.3", {"adapter": LORA, "precision": HALF},
     {"weights": "bf16", "adapter": (8, 16.0, 0.0, ("all-linear",), "fp32"), "seq_len": 2048, "checkpointing": "full"}),
    # patcher.py before 0.9.3: ZeRO-3 loads float32, which DeepSpeed casts; so it does with adapters.
    ("llamafactory", "0.9.2", {"adapter": LORA, "precision": HALF, "layout": LayoutSettings("zero2")},
     {"adapter": (8, 16.0, 0.0, ("all-linear",), "bf16"), "weights": "bf16", "master": "fp32"}),
    ("llamafactory", "0.9.3", {"quantization": NF4, "adapter": LORA, "precision": HALF},
     {"upcast": "none", "double_quant": True}),
    # checkpointing.py: FSDP2 turns use_reentrant_gc off.
    ("llamafactory", "0.9.5", {"precision": HALF, "layout": LayoutSettings("fsdp2")}, {"reentrant": False}),
    # schemas/training.py: optimizer; schemas/config.py: sequence_len; utils/config: use_reentrant.
    ("axolotl", "0.5.2", {}, {"implementation": "for-loop", "seq_len": 512, "checkpointing": "none",
                              "weights": "bf16", "reentrant": True}),
    ("axolotl", "0.19.0", {"checkpointing": CheckpointingSettings("full")},
     {"implementation": "fused", "states": "bf16", "reentrant": True}),
    # loaders/model.py: norms and embeddings are cast back after prepare_model_for_kbit_training.
    ("axolotl", "0.12.2", {"adapter": AdapterSettings(rank=32), "quantization": NF4},
     {"upcast": "none", "double_quant": True, "adapter": (32, None, 0.0, (), "fp32")}),
    # models/llama.py: get_peft_model; use_gradient_checkpointing="unsloth" offloads.
    ("unsloth", "2024.12.4", {"adapter": LORA, "quantization": NF4},
     {"offload": True, "upcast": "none", "loss": "cut", "seq_len": 2048, "rank": 16}),
    ("unsloth", "2024.8", {"adapter": LORA}, {"loss": "fused", "attention": "flash_attention_2"}),
    ("unsloth", "2024.12.4", {"adapter": LORA, "seq_len": 1024}, {"loss": "fused"}),
    # vision.py: float32_mixed_precision is off for a bfloat16 model that is trained whole.
    ("unsloth", "2026.1.1", {}, {"trainable": "bf16", "autocast": False, "loss": "liger"}),
    # train.py: main.
    ("fsdp_qlora", None, {"adapter": LORA, "quantization": NF4},
     {"weights": "bf16", "autocast": False, "data": "fsdp1", "reentrant": False, "double_quant": True,
      "adapter": (64, 16.0, 0.1, ("k_proj", "q_proj", "v_proj", "up_proj", "down_proj", "gate_proj"), "bf16")}),
    # training_args.py: default_optim since 4.54 with torch 2.8.
    ("transformers", "4.57.1", {}, {"implementation": "fused"}),
    ("transformers", "4.57.1", {"versions": {"torch": "2.7.1"}}, {"implementation": "foreach"}),
    ("transformers", "4.53.0", {}, {"implementation": "foreach"}),
    # accelerate prepare_model: shards of what is trained are float32 with mixed precision from 0.30 on.
    ("transformers", "4.45.0", {"precision": PrecisionSettings(weights="bf16", compute="bf16"),
                                "layout": LayoutSettings("fsdp1")}, {"weights": "fp32", "states": "fp32"}),
    ("transformers", "4.40.0", {"precision": PrecisionSettings(weights="bf16", compute="bf16"),
                                "layout": LayoutSettings("fsdp1")}, {"weights": "bf16", "states": "bf16"}),
    ("transformers", "4.45.0", {"precision": PrecisionSettings(weights="fp16"), "layout": LayoutSettings("fsdp1")},
     {"weights": "fp16", "states": "fp16"}),  # no mixed precision
    ("transformers", "4.45.0", {"precision": PrecisionSettings(weights="bf16", compute="bf16"), "adapter": LORA,
                                "layout": LayoutSettings("fsdp1")}, {"weights": "bf16"}),
    # utils/fsdp_utils.py: fsdp2_prepare_model casts all of it in 1.6, what is trained in 1.13.
    ("transformers", "4.57.1", {"precision": PrecisionSettings(weights="bf16", compute="bf16"), "adapter": LORA,
                                "layout": LayoutSettings("fsdp2")}, {"weights": "fp32"}),
    ("transformers", "5.4.0", {"precision": PrecisionSettings(weights="bf16", compute="bf16"), "adapter": LORA,
                               "layout": LayoutSettings("fsdp2")}, {"weights": "bf16"}),
]  # fmt: skip


def flat(settings):
    precision, adapter = settings.precision, settings.adapter
    quantization, checkpointing = settings.quantization, settings.checkpointing
    return {
        **{
            name: getattr(precision, name)
            for name in ("weights", "trainable", "states", "autocast", "master")
        },
        "checkpointing": checkpointing.kind,
        "reentrant": checkpointing.reentrant,
        "offload": checkpointing.offload,
        "implementation": settings.optimizer.implementation,
        "adapter": adapter and (adapter.rank, adapter.alpha, adapter.dropout, adapter.targets, adapter.dtype),
        "rank": adapter and adapter.rank,
        "double_quant": quantization and quantization.double_quant,
        "upcast": quantization and quantization.upcast,
        "seq_len": settings.seq_len,
        "loss": settings.loss.kind,
        "attention": settings.attention,
        "data": settings.layout.data,
    }


@pytest.mark.parametrize(("framework", "version", "asked", "becomes"), TABLE)
def test_what_is_not_said_is_as_the_framework_has_it(framework, version, asked, becomes):
    found = flat(resolved(framework, version, **asked))
    assert {name: found[name] for name in becomes} == becomes


def test_a_float32_checkpoint_is_loaded_as_each_version_does():
    """swift/llm/model/register.py: get_default_torch_dtype; LLaMA-Factory patcher.py: infer_optim_dtype."""
    found = {version: resolved("ms-swift", version, WIDE).precision for version in ("3.0.0", "3.4.0")}
    assert [(one.weights, one.compute) for one in found.values()] == [("bf16", "bf16"), ("fp32", "fp16")]
    lora = {"adapter": AdapterSettings(targets=("q", "v"))}
    assert resolved("llamafactory", "0.9.2", WIDE, **lora).precision.weights == "fp16"
    assert resolved("llamafactory", "0.9.3", WIDE, **lora).precision.weights == "fp32"


def test_what_is_said_stays():
    said = TrainingSettings(
        framework="unsloth",
        seq_len=4096,
        adapter=AdapterSettings(rank=4, alpha=8.0, dropout=0.2, targets=("q_proj",), dtype="bf16"),
        checkpointing=CheckpointingSettings("none"),
        precision=PrecisionSettings(weights="fp16", compute="fp16"),
        attention="sdpa",
        kernels=("rope",),
    )
    found = resolve(said, find_subject(LLAMA, offline=True)[0].architecture).settings
    assert found.adapter == said.adapter
    assert (found.checkpointing.kind, found.checkpointing.offload) == ("none", False)
    assert (found.precision.weights, found.attention, found.kernels) == ("fp16", "sdpa", ("rope",))


@pytest.mark.parametrize(
    ("framework", "version", "beside"),
    [("trl", "0.11.4", "4.44.0"), ("trl", "0.17.0", "4.50.0"), ("ms-swift", "2.0.3", "4.40.0"),
     ("llamafactory", "0.9.4", "4.57.1"), ("unsloth", "2025.3.19", "4.50.0")],
)  # fmt: skip
def test_a_framework_stands_on_the_transformers_of_its_time(framework, version, beside):
    assert resolved(framework, version).versions["transformers"] == beside
    given = resolved(framework, version, versions={"transformers": "4.55.0"})
    assert given.versions["transformers"] == "4.55.0"


def test_vision_towers_are_frozen_where_the_framework_does_so():
    """swift freeze_vit since 3.0 (2.6: off); LLaMA-Factory freeze_vision_tower since 0.8."""
    model = "Qwen/Qwen2.5-VL-7B-Instruct"
    for framework, version, frozen in (
        ("ms-swift", "2.6.0", False), ("ms-swift", "3.0.0", True), ("llamafactory", "0.7.1", False),
        ("llamafactory", "0.8.3", True),
    ):  # fmt: skip
        assert ("vision" in resolved(framework, version, model).frozen) is frozen, (framework, version)


def test_deepspeed_casts_what_was_loaded_in_float32():
    asked = PrecisionSettings(weights="fp32", compute="bf16")
    found = resolved("transformers", "4.45.0", precision=asked, layout=LayoutSettings("zero2")).precision
    assert (found.weights, found.gradients, found.master, found.autocast) == ("bf16", "bf16", "fp32", False)
    pure = replace(asked, recipe="fp32")
    assert (
        resolved("transformers", "4.45.0", precision=pure, layout=LayoutSettings("zero2")).precision.weights
        == "fp32"
    )
