"""Choices of `llama-quantize`, worked out by hand from its rules."""

from collections import Counter

import pytest

from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.conversion.mix import MixFacts, in_order, quantized
from willfit.conversion.predict import predict
from willfit.conversion.record import Entry
from willfit.errors import BadInput

LLAMA = MixFacts("llama", layers=32, experts=0, group=4, large=False)


def layer(index: int, width: int = 4096) -> list[Entry]:
    return [
        Entry(f"blk.{index}.attn_norm.weight", (width,), "F32"),
        Entry(f"blk.{index}.attn_q.weight", (width, width), "F16"),
        Entry(f"blk.{index}.attn_v.weight", (width, width // 4), "F16"),
        Entry(f"blk.{index}.attn_output.weight", (width, width), "F16"),
        Entry(f"blk.{index}.ffn_down.weight", (2 * width, width), "F16"),
        Entry(f"blk.{index}.ffn_up.weight", (width, 2 * width), "F16"),
    ]


def model(layers: int, width: int = 4096) -> list[Entry]:
    ends = [Entry(f"{name}.weight", (width, 32000), "F16") for name in ("token_embd", "output")]
    return [*ends, *(entry for index in range(layers) for entry in layer(index, width))]


def kinds(file_type: str, leaf: str, facts: MixFacts = LLAMA, **options) -> dict[str, list[int]]:
    """Which layers have which type of one tensor."""
    found: dict[str, list[int]] = {}
    for entry in quantized(model(facts.layers), facts, file_type, **options):
        if entry.name.endswith(f".{leaf}.weight"):
            found.setdefault(entry.type, []).append(int(entry.name.split(".")[1]))
    return found


#: Of 32 layers: the first and last four, and every third of those between.
MORE = [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]


def test_more_bits_at_both_ends_and_for_every_third_layer() -> None:
    assert kinds("Q4_K_M", "attn_v")["Q6_K"] == MORE
    assert kinds("Q4_K_M", "ffn_down")["Q6_K"] == MORE
    assert kinds("Q5_K_M", "ffn_down") == {
        "Q6_K": MORE,
        "Q5_K": [layer for layer in range(32) if layer not in MORE],
    }
    assert kinds("Q4_K_S", "ffn_down")["Q5_K"] == [0, 1, 2, 3]
    assert kinds("Q3_K_M", "ffn_down")["Q5_K"] == [0, 1]


def test_layers_count_in_the_order_of_the_file_and_not_of_their_names() -> None:
    names = [entry.name for entry in in_order(reversed(model(12)))]
    assert names[:2] == ["output.weight", "token_embd.weight"]
    assert names[2] == "blk.0.attn_norm.weight"
    assert [name.split(".")[1] for name in names if name.endswith("attn_q.weight")] == [
        str(index) for index in range(12)
    ]


def test_what_an_importance_matrix_changes() -> None:
    assert kinds("IQ4_XS", "ffn_down") == {"Q5_K": [0, 1, 2, 3], "IQ4_XS": list(range(4, 32))}
    assert kinds("IQ4_XS", "ffn_down", imatrix=True) == {"IQ4_XS": list(range(32))}
    assert "Q4_1" not in kinds("Q4_0", "ffn_down")
    assert kinds("Q4_0", "ffn_down", imatrix=True)["Q4_1"] == [0, 1, 2, 3]


def test_eight_experts_and_a_model_of_seventy_billion() -> None:
    eight = MixFacts("llama", layers=32, experts=8, group=4, large=False)
    assert kinds("Q4_K_M", "attn_v", eight) == {"Q8_0": list(range(32))}
    assert kinds("Q4_K_M", "attn_output", eight) == {"Q5_K": list(range(32))}
    large = MixFacts("llama", layers=80, experts=0, group=8, large=True)
    assert set(kinds("Q4_K_M", "attn_v", large)) == {"Q6_K", "Q5_K"}
    assert set(kinds("Q4_K_M", "attn_v")) == {"Q6_K", "Q4_K"}


def test_ends_of_a_file() -> None:
    def ends(file_type: str, entries: list[Entry], **options) -> dict[str, str]:
        made = quantized(entries, LLAMA, file_type, **options)
        return {entry.name: entry.type for entry in made if not entry.name.startswith("blk")}

    whole = model(2)
    assert ends("Q4_K_M", whole) == {"output.weight": "Q6_K", "token_embd.weight": "Q4_K"}
    assert ends("Q4_K_M", whole[:1]) == {"token_embd.weight": "Q6_K"}  # the table is the head, too
    assert ends("Q4_K_M", whole, outer="Q8_0") == dict.fromkeys(
        ("output.weight", "token_embd.weight"), "Q8_0"
    )
    assert ends("Q8_0", whole) == dict.fromkeys(("output.weight", "token_embd.weight"), "Q8_0")


def test_what_is_never_quantized() -> None:
    fixed = [
        Entry("blk.0.ffn_gate_inp.weight", (4096, 64), "F32"),
        Entry("blk.0.ssm_conv1d.weight", (4, 8192), "F32"),
        Entry("blk.0.attn_q.bias", (4096,), "F32"),
        Entry("blk.0.attn_q_norm.weight", (128, 32), "F16"),
        Entry("position_embd.weight", (768, 512), "F32"),
        Entry("blk.0.ffn_down_exps.weight", (2880, 2880, 32), "MXFP4"),
    ]
    assert sorted(quantized(fixed, LLAMA, "Q4_K_M")) == sorted(fixed)


def test_a_row_that_no_block_divides() -> None:
    def made(columns: int, file_type: str) -> str:
        entry = Entry("blk.0.ffn_up.weight", (columns, 4096), "F16")
        return quantized([entry], LLAMA, file_type)[0].type

    assert made(4096, "Q4_K_S") == "Q4_K"
    assert made(4096 + 32, "Q4_K_S") == "Q5_0"
    assert made(4096 + 32, "Q6_K") == "Q8_0"
    assert made(4096 + 32, "IQ3_S") == "IQ4_NL"
    assert made(4096 + 8, "Q4_K_S") == "F16"
    with pytest.raises(BadInput, match="cannot hold rows of 4128"):
        made(4096 + 32, "Q1_0")


def test_a_published_width_that_does_not_divide() -> None:
    # Qwen2.5-72B: 29568 inputs are no multiple of 256, so down_proj is Q5_0 or, with more bits, Q8_0.
    # Of 80 layers the first and last 10 and every third of the 60 between have more bits.
    entry = find("Qwen/Qwen2.5-72B-Instruct")
    assert entry is not None
    header = predict(Config({**entry.config, "intermediate_size": 29568}), "Q4_K_M").header
    down = Counter(tensor.type for tensor in header.tensors if "ffn_down" in tensor.name)
    assert down == {"Q8_0": 40, "Q5_0": 40}


def test_experts_in_four_bits_beside_all_else_in_eight() -> None:
    entry = find("Qwen/Qwen3-30B-A3B")
    assert entry is not None
    made = predict(Config(entry.config), "mxfp4")
    by_type = Counter(tensor.type for tensor in made.header.tensors if len(tensor.ne) > 1)
    # 48 layers of three stacked experts; q, k, v and output of each, the table and the head; routers are left alone
    assert by_type == {"MXFP4": 3 * 48, "Q8_0": 4 * 48 + 2, "F32": 48}


def test_experts_that_are_published_in_four_bits_stay_so() -> None:
    entry = find("openai/gpt-oss-20b")
    assert entry is not None
    sizes = {}
    for name in ("F16", "Q8_0", "Q4_K_M"):
        made = predict(Config(entry.config), name)
        kinds = {tensor.type for tensor in made.header.tensors if tensor.name.endswith("_exps.weight")}
        assert kinds == {"MXFP4"}
        assert "four or eight bits" in made.notes[0]
        sizes[name] = round(made.file_bytes[1] / 1e9, 1)
    # as published: 13.8, 12.1 and 11.6 GB
    assert sizes == {"F16": 13.8, "Q8_0": 12.1, "Q4_K_M": 11.6}


def test_a_checkpoint_in_nvfp4() -> None:
    entry = find("nvidia/Qwen3-8B-NVFP4")
    assert entry is not None
    made = predict(Config(entry.config), "BF16")
    kinds = Counter(tensor.type for tensor in made.header.tensors)
    # 36 layers of seven linears, each with a scale and one of its input beside four norms; one norm outside
    assert kinds == {"NVFP4": 36 * 7, "BF16": 2, "F32": 36 * (2 * 7 + 4) + 1}
    assert made.bytes[0] == made.bytes[1]
    # The same of the model's own checkpoint leaves open which linears are
    entry = find("Qwen/Qwen3-8B")
    assert entry is not None
    other = predict(Config(entry.config), "NVFP4")
    assert other.bytes[0] == made.bytes[0] < other.bytes[1]
