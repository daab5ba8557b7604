"""The published worked examples of each rule, and the rules applied to models with known counts."""

import pytest

from willfit.architectures.build import build
from willfit.checkpoints.config import Config
from willfit.errors import BadInput
from willfit.quantities import GIB
from willfit.rules.hub_calculator import hub_calculator, printed
from willfit.rules.layer_by_layer import layer_by_layer
from willfit.rules.optimizer_bytes import optimizer_bytes
from willfit.rules.overhead import weights_and_a_fifth
from willfit.rules.parameter_bytes import parameter_bytes
from willfit.rules.peak_flops import peak_flops
from willfit.rules.result import RuleResult
from willfit.rules.sample_activations import largest_batch, sample_activations
from willfit.rules.shared_model import shared_model
from willfit.rules.table import rules_for
from willfit.rules.training_states import training_states

B = 10**9


def test_bytes_per_parameter() -> None:
    billion = parameter_bytes(1 * B, 32)
    assert billion.value == 4_000_000_000
    assert round(billion.value / GIB, 3) == 3.725
    assert round(parameter_bytes(7 * B, 32).value / GIB, 2) == 26.08
    assert parameter_bytes(7 * B, 4).value == 3_500_000_000
    assert billion.formula == "1000000000 parameters x 4 B"


def test_weights_and_a_fifth() -> None:
    assert weights_and_a_fifth(8 * B, 16).value == 19_200_000_000
    assert weights_and_a_fifth(70 * B, 16).value == 168 * B  # the publisher's own examples
    assert weights_and_a_fifth(70 * B, 4).value == 42 * B


def test_training_states() -> None:
    int8 = training_states(6 * B, 1)
    assert int8.parts == {
        "weights": 6 * B,
        "gradients": 6 * B,
        "optimizer_state": 12 * B,
        "kernels": 1_300_000_000,
    }
    assert int8.value == 25_300_000_000
    fp32 = training_states(6 * B, 4)
    assert [fp32.parts[name] for name in ("weights", "gradients", "optimizer_state")] == [
        24 * B,
        24 * B,
        48 * B,
    ]
    assert fp32.value == 97_300_000_000


def test_activations_and_the_batch_that_fits() -> None:
    # (4096 + 11008) * 2048 * 32 * 1 B
    sample = sample_activations(4096, 11008, 32, 2048, 1)
    assert sample.value == 989_855_744
    states = training_states(7 * B, 1, kernel_bytes=0)
    assert states.value == 28 * B
    fifty = sample_activations(4096, 11008, 32, 2048, 1, batch=50)
    assert int((states.value + fifty.value) / B) == 77  # 77.49 GB, printed as "about 77"
    batch = largest_batch(80 * B, 28 * B, 989_855_744)
    assert (batch.value, batch.unit) == (52, "samples")  # 52 / 0.9899 = 52.5
    assert largest_batch(24 * B, 28 * B, 989_855_744).value == 0
    with pytest.raises(BadInput):
        largest_batch(80 * B, 28 * B, 0)


def test_layer_by_layer() -> None:
    result = layer_by_layer(layers=12, hidden=768, vocabulary=30522, positions=512, tokens=512)
    assert result.parts["embeddings"] == 4 * 23_834_112
    assert result.parts["layers"] == 4 * 12 * 7_077_888
    assert (result.parts["embeddings"] + result.parts["layers"]) // 4 == 108_768_768
    assert round((result.parts["embeddings"] + result.parts["layers"]) / 10**6, 2) == 435.08
    assert round(result.parts["activations"] / 12 / 10**6, 2) == 1.57
    assert round(result.parts["kv_cache"] / 12 / 10**6, 2) == 3.15
    assert round(result.value / 10**6, 1) == 491.7
    # (30522 + 512) x 768 + 12 x 12 x 768^2 parameters; three rows of 512 x 768 a layer
    assert result.formula == "((30522 + 512) x 768 + 12 x 12 x 768^2) x 4 B + 12 x (1 + 2) x 512 x 768 x 4 B"


def test_optimizer_bytes() -> None:
    each = {
        name: optimizer_bytes(1, name).value for name in ("sgd", "adam", "mixed-precision adam", "8-bit adam")
    }
    assert each == {"sgd": 0, "adam": 8, "mixed-precision adam": 12, "8-bit adam": 6}
    assert optimizer_bytes(7 * B, "8-bit adam").parts == {
        "master weight": 28 * B,
        "first moment": 7 * B,
        "second moment": 7 * B,
    }
    with pytest.raises(BadInput, match="lion"):
        optimizer_bytes(1, "lion")


def test_peak_flops() -> None:
    assert peak_flops(1280, 1400, 2).value == 3_584_000_000_000


def test_threads_sharing_one_model() -> None:
    # 4 GiB loaded, 5 GiB at the peak of one thread: 4 + 1 x 8
    assert shared_model(4 * GIB, 5 * GIB, 8).value == 12 * GIB
    assert shared_model(4 * GIB, 5 * GIB, 1).value == 5 * GIB


def test_hub_calculator_prints_the_documented_table() -> None:
    # `accelerate estimate-memory bert-base-cased` in accelerate's documentation. 108310272 parameters and
    # 8192 B of buffers; the largest layer is the table of 28996 words.
    rows = hub_calculator(4 * 108_310_272 + 8192, 4 * 28_996 * 768)
    table = [
        [printed(row.parts["largest_layer"]), printed(row.value), printed(row.parts.get("training_adam", -1))]
        for row in rows
    ]
    assert table[0] == ["84.95 MB", "413.18 MB", "1.61 GB"]
    assert table[1] == ["42.47 MB", "206.59 MB", "826.36 MB"]
    assert [row[:2] for row in table[2:]] == [["21.24 MB", "103.29 MB"], ["10.62 MB", "51.65 MB"]]
    assert "training_adam" not in rows[2].parts
    assert rows[3].formula.endswith("training using Adam N/A")


QWEN3_8B = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "max_position_embeddings": 40960,
    "model_type": "qwen3",
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 151936,
}
MIXTRAL_8X7B = {
    "architectures": ["MixtralForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mixtral",
    "num_attention_heads": 32,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 32000,
}


def by_name(results: tuple[RuleResult, ...]) -> dict[str, RuleResult]:
    named = {result.name: result for result in results}
    assert len(named) == len(results)
    return named


def test_rules_for_a_dense_model() -> None:
    rules = by_name(rules_for(build(Config(QWEN3_8B)), tokens=2048, batch=3, card_bytes=80 * B))
    assert rules["bytes per parameter"].value == 8_190_735_360 * 2  # bf16 from the config
    assert rules["weights and 20 %"].value == 19_657_764_864  # 8190735360 x 2 x 1.2
    # (4096 + 12288) x 36 layers x 2048 tokens x 2 B, three samples
    sample = (4096 + 12288) * 36 * 2048 * 2
    assert rules["activations per sample"].value == 3 * sample
    # 4 x 16.38 GB of states leave room in 80 GB for (80 - 66.83) / 2.416 samples
    assert rules["largest batch"].value == 5
    assert rules["optimizer state, adam"].value == 8 * 8_190_735_360
    assert rules["layer by layer"].parts["embeddings"] == 151936 * 4096 * 2  # rotary: no table of positions
    # accelerate 1.15 on this config: 30273622528 B with 512 B of rotary buffers, largest layer `embed_tokens`
    assert rules["hub calculator, fp32"].value == 30_273_622_528 - 512
    assert rules["hub calculator, fp32"].parts["largest_layer"] == 2_489_319_424


def test_rules_for_experts() -> None:
    rules = by_name(rules_for(build(Config(MIXTRAL_8X7B)), bits=4, tokens=10**6))
    assert rules["bytes per parameter"].value == 46_702_792_704 // 2
    # a token uses two experts: (4096 + 2 x 14336) x 32 layers x 32768 tokens (the model's limit) x 1 B
    assert rules["activations per sample"].value == (4096 + 2 * 14336) * 32 * 32768
    assert "largest batch" not in rules
    # accelerate 1.15: 186286883328 B with 512 B of rotary buffers, largest layer a decoder layer
    assert rules["hub calculator, fp32"].value == 186_286_883_328 - 512
    assert rules["hub calculator, fp32"].parts["largest_layer"] == 5_805_080_576


def test_every_rule_explains_itself_in_one_sentence() -> None:
    others = (peak_flops(1, 1), shared_model(1, 2, 3))
    for rule in (*rules_for(build(Config(QWEN3_8B)), card_bytes=80 * B), *others):
        assert rule.why.endswith(".")
        assert rule.why.count(". ") == 0
        assert rule.formula
        assert rule.source
        assert rule.as_json()["value"] == rule.value
        if rule.parts and rule.name.split(",")[0] != "hub calculator":
            assert sum(rule.parts.values()) == rule.value
