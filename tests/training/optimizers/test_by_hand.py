"""Bytes counted by hand from the libraries' rules, names, pieces of parameters, and wrong input."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_model import ELEMENTS, SMALL, TENSORS, llama

from willfit.errors import BadInput
from willfit.formulas import read_formula
from willfit.training.optimizers import NAMES, default_optimizer, optimizer_memory
from willfit.training.parameters import Parameter

#: Elements of tensors of 4096 and more: embedding and head, and in each of two layers q, o, up, down.
WIDE = 2 * 97 * 64 + 2 * (2 * 64 * 64 + 2 * 160 * 64)
NARROW = ELEMENTS - WIDE


def kinds(found):
    total = {}
    for state in found.states:
        total[state.kind] = total.get(state.kind, 0) + state.bytes
    return total


def test_bitsandbytes_by_blocks():
    found = optimizer_memory("adamw_8bit", SMALL, "bf16")
    # 6208 elements are 25 blocks of 256, 4096 are 16, 10240 are 40; 2 x 25 + 2 x (2 x 16 + 2 x 40) = 274.
    assert kinds(found) == {
        "exp_avg": WIDE + 4 * NARROW, "exp_avg_sq": WIDE + 4 * NARROW, "absmax": 2 * 274 * 4, "maps": 2 * 1024,
    }  # fmt: skip
    assert found.worst.bytes == 0
    old = optimizer_memory("adamw_8bit", SMALL, "bf16", versions={"bitsandbytes": "0.43.3"})
    # 4, 2 and 5 blocks of 2048: 2 x 4 + 2 x (2 x 2 + 2 x 5) = 36.
    assert kinds(old)["absmax"] == 2 * 36 * 4


def test_the_trainer_keeps_embeddings_wide():
    trainer = optimizer_memory("adamw_8bit", SMALL, "bf16", versions={"transformers": "4.52.1"})
    assert kinds(trainer)["exp_avg"] == WIDE - 6208 + 4 * (NARROW + 6208)
    before = optimizer_memory("adamw_8bit", SMALL, "bf16", versions={"transformers": "4.51.3"})
    assert kinds(before)["exp_avg"] == WIDE + 4 * NARROW


def test_other_states_of_bitsandbytes():
    assert "exp_avg_sq" not in kinds(optimizer_memory("lion_8bit", SMALL, "bf16"))
    mixed = kinds(optimizer_memory("ademamix_8bit", SMALL, "bf16"))
    assert mixed["exp_avg"] == 2 * (WIDE + 4 * NARROW)
    assert mixed["absmax"] == 3 * 274 * 4


def test_paged_states_are_in_unified_memory():
    model = llama(512, 1376, 8)
    found = optimizer_memory("paged_adamw_32bit", model, "bf16")
    small = 17 * 512
    assert found.held("device") == small * 8
    assert found.held("managed") == (sum(one.elements for one in model) - small) * 8


def test_torchao():
    # 97 x 64 elements are no whole number of blocks, so embedding and head keep bf16 states.
    blocks = 2 * (2 * 64 * 64 + 2 * 160 * 64)
    plain = ELEMENTS - blocks
    eight = kinds(optimizer_memory("adamw_torch_8bit", SMALL, "bf16"))
    assert eight["exp_avg"] == blocks + 2 * plain
    assert eight["scale"] == 2 * blocks // 256 * 4
    assert eight["maps"] == 2 * 8 * 1024
    four = kinds(optimizer_memory("adamw_torch_4bit", SMALL, "bf16"))
    assert four["exp_avg codes"] == blocks // 2
    assert four["scale"] == 2 * blocks // 128 * 4
    assert four["maps"] == 2 * 8 * 64
    old = optimizer_memory("adamw_torch_8bit", SMALL, "bf16", versions={"torchao": "0.5.0"})
    assert kinds(old)["scale"] == 2 * blocks // 2048 * 4


def test_torchao_on_the_host():
    found = optimizer_memory("torchao_cpu_offload", SMALL, "bf16")
    assert found.held("host") == 4 * 2 * WIDE + 4 * 10
    assert found.held("device") == 2 * 2 * NARROW + 4 * (TENSORS - 10)


def test_fused_and_masters():
    """Megatron-LM and DeepSpeed keep 12 B of states and masters for a parameter, by different rules."""
    for name in ("fused_adam", "deepspeed_adam"):
        found = optimizer_memory(name, SMALL, "bf16", master="fp32")
        assert found.held() == 12 * ELEMENTS
        assert found.worst.bytes == 0
    assert optimizer_memory("fused_adam", SMALL, "bf16").held() == 8 * ELEMENTS
    assert optimizer_memory("deepspeed_adam", SMALL, "bf16").held() == 4 * ELEMENTS
    aware = optimizer_memory(
        "fused_adam", SMALL, "bf16",
        options={"exp_avg_dtype": "bf16", "exp_avg_sq_dtype": "bf16", "master_weights": True,
                 "store_param_remainders": True},
    )  # fmt: skip
    assert aware.held() == 6 * ELEMENTS
    on_host = optimizer_memory("deepspeed_cpu_adam", SMALL, "bf16", master="fp32", offload="host")
    assert (on_host.held("device"), on_host.held("host")) == (0, 12 * ELEMENTS)


def test_zero_paper():
    """ZeRO, table 1 of arXiv 1910.02054: 7.5B parameters over 64 devices, 12 B of states each: 90 GB, 1.4 a device."""
    model = [Parameter("weight", (7_500_000_000,), "mlp", "other")]
    whole = optimizer_memory("deepspeed_adam", model, "fp16", master="fp32")
    assert whole.held() == 90_000_000_000
    shared = optimizer_memory("deepspeed_adam", model, "fp16", master="fp32", sharding="zero1", ranks=64)
    assert shared.held() == pytest.approx(1.4e9, rel=0.01)


def test_pieces():
    flat = optimizer_memory("adamw", SMALL, "fp32", "fused", sharding="fsdp1", ranks=3)
    layer, root = 2 * 64 * 64 + 2 * 32 * 64 + 2 * 160 * 64 + 64, 2 * 97 * 64 + 64
    assert kinds(flat)["exp_avg"] == 4 * (2 * -(-layer // 3) + -(-root // 3))
    rows = optimizer_memory("adamw", SMALL, "fp32", sharding="fsdp2", ranks=3)
    # 97 rows in three are 33 at most, 64 are 22, 32 are 11, 160 are 54.
    assert kinds(rows)["exp_avg"] == 4 * (
        2 * 33 * 64 + 2 * ((22 + 11 + 11 + 22 + 54) * 64 + 22 * 160 + 22) + 22
    )
    assert rows.implementation == "for-loop"  # DTensors are no plain tensors
    zero = optimizer_memory("adamw", SMALL, "fp32", "fused", sharding="zero2", ranks=3)
    assert kinds(zero)["exp_avg"] == 4 * -(-ELEMENTS // 6) * 2
    megatron = optimizer_memory("fused_adam", SMALL, "bf16", sharding="distributed-optimizer", ranks=4)
    assert kinds(megatron)["exp_avg"] == 4 * -(-ELEMENTS // 128) * 32
    # Flat pieces have no rows and columns: the second moment stays whole.
    assert (
        kinds(optimizer_memory("adafactor", SMALL, "fp32", sharding="fsdp1", ranks=2))["exp_avg_sq"]
        == 2 * ELEMENTS
    )


def test_experts_are_shared_by_fewer():
    experts = Parameter("layers.{layer}.experts.{expert}.up", (64, 32), "experts", "linear", 16)
    dense = Parameter("layers.{layer}.up", (64, 32), "mlp", "linear", 2)
    found = optimizer_memory("adamw", [dense, experts], "fp32", sharding="zero1", ranks=8, expert_ranks=2)
    assert kinds(found)["exp_avg"] == 4 * (dense.elements // 8 + experts.elements // 2)


def test_lomo_and_blocks():
    lomo = optimizer_memory("lomo", SMALL, "bf16")
    assert (lomo.held(), lomo.worst.bytes, lomo.gradients) == (0, 2 * 4 * 160 * 64, "one parameter")
    adalomo = optimizer_memory("adalomo", SMALL, "bf16")
    sums = 2 * (97 + 64) + 2 * (4 * 64 + 2 * 32 + 2 * 64 + 2 * (160 + 64)) + 3 * 64
    assert adalomo.held() == 4 * sums
    badam = optimizer_memory("badam", SMALL, "bf16", "fused")
    layer = 2 * 64 * 64 + 2 * 32 * 64 + 2 * 160 * 64 + 64
    assert badam.held() == 12 * layer + 4 * 7  # counters of the fused step
    assert badam.worst.bytes == 2 * layer
    assert badam.trained == pytest.approx(layer / ELEMENTS)
    lisa = optimizer_memory("lisa", SMALL, "bf16", options={"lisa_activated_layers": 1})
    assert lisa.held() == 4 * (layer + 2 * 97 * 64 + 64)


def test_a_step_in_the_backward_pass():
    """Only one tensor's intermediates: of the largest."""
    found = optimizer_memory("adamw", SMALL, "fp32", "foreach", in_backward=True)
    assert (found.worst.bytes, found.gradients) == (4 * 160 * 64, "one parameter")


def test_shampoo_by_blocks():
    found = optimizer_memory("shampoo", [Parameter("w", (100, 250), "mlp", "linear")], "fp32",
                             options={"max_preconditioner_dim": 100})  # fmt: skip
    # Three blocks of 100 x 100, 100 x 100 and 100 x 50: sides 6 x 100, less one that is 50.
    assert kinds(found)["preconditioner"] == 4 * (5 * 100**2 + 50**2)
    assert found.update.low < found.update.bytes < found.update.high


def test_flashoptim():
    found = optimizer_memory("flash_adamw", SMALL, "bf16")
    assert found.held() == 2 * (ELEMENTS + 2 * ELEMENTS // 32) + ELEMENTS


def test_sinkgd_keeps_vectors():
    found = kinds(optimizer_memory("sinkgd", SMALL, "bf16"))
    assert found["norm's vector"] == 4 * 2 * (5 * 64 + 160)
    assert found["exp_avg"] == 2 * (2 * 97 * 64 + 3 * 64)


def test_quantized_projector():
    matrix = [Parameter("q_proj.weight", (512, 256), "attention", "linear")]
    found = kinds(optimizer_memory("q_galore", matrix, "bf16", options={"rank": 64}))
    assert found["projector"] == 64 * 256
    assert found["projector scale"] == 2 * 64 * 2
    assert found["exp_avg"] == 512 * 64


@pytest.mark.parametrize("name", sorted(NAMES))
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_every_formula_adds_up(name, dtype):
    found = optimizer_memory(name, SMALL, dtype)
    assert found.reference
    for state in found.states:
        assert read_formula(state.formula).value == state.bytes, state
    for transient in (found.step, found.worst):
        assert transient.low <= transient.bytes <= transient.high
        assert read_formula(transient.formula).value == transient.bytes


@pytest.mark.parametrize("name", sorted(NAMES))
def test_more_parameters_never_take_less(name):
    less = optimizer_memory(name, SMALL, "bf16")
    more = optimizer_memory(
        name, [*SMALL, Parameter("model.more.weight", (300, 200), "mlp", "linear")], "bf16"
    )
    assert sum(one.bytes for one in more.states) >= sum(one.bytes for one in less.states)
    assert more.worst.bytes >= less.worst.bytes


def test_every_name_of_the_trainer():
    from transformers.training_args import OptimizerNames

    assert {name.value for name in OptimizerNames} <= set(NAMES)


def test_defaults():
    assert default_optimizer("transformers", {"transformers": "4.31.0"})[0] == "adamw_hf"
    assert default_optimizer("trl", {"transformers": "4.53.3", "torch": "2.9"}) == ("adamw_torch", None)
    assert default_optimizer("trl", {"transformers": "4.54.0", "torch": "2.7"}) == ("adamw_torch", None)
    assert default_optimizer("llamafactory", {"transformers": "4.54.0", "torch": "2.8"})[1] == "fused"
    assert default_optimizer("torchtune", {}) == ("adamw", "fused")
    # Before 2.0 torch took the loop where nothing was said.
    assert optimizer_memory("adamw", SMALL, versions={"torch": "1.13.1"}).implementation == "for-loop"
    assert optimizer_memory("adamw", SMALL, versions={"torch": "2.0"}).implementation == "foreach"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "adamw_8bits"}, "adamw_8bit"),
        ({"name": "adamw", "dtype": "fp33"}, "fp33"),
        ({"name": "adamw", "implementation": "quick"}, "for-loop"),
        ({"name": "nadam", "implementation": "fused"}, "no fused kernel"),
        ({"name": "galore_adamw", "sharding": "fsdp1", "ranks": 2}, "whole matrices"),
        ({"name": "galore_adamw", "options": {"target_modules": ["nothing"]}}, "all-linear"),
        ({"name": "galore_adamw", "options": {"rank": "many"}}, "give a number"),
        ({"name": "muon", "options": {"variant": "shiny"}}, "moonlight"),
        ({"name": "adamw", "sharding": "zero9", "ranks": 2}, "zero3"),
    ],
)
def test_wrong_input(arguments, says):
    with pytest.raises(BadInput, match=says):
        optimizer_memory(parameters=SMALL, **arguments)


GIB = 2**30


@pytest.mark.parametrize(
    ("hidden", "width", "layers", "name", "options", "gib"),
    [
        # GaLore (arXiv 2403.03507), table 2: weights and states in bf16.
        (1024, 2736, 24, "adamw", {}, 2.06),
        (1024, 2736, 24, "galore_adamw", {"rank": 256}, 1.22),
        (2048, 5461, 24, "adamw", {}, 7.80),
        (2048, 5461, 24, "galore_adamw", {"rank": 512}, 4.38),
        # Table 3: 7B, 8-bit states.
        (4096, 11008, 32, "adamw_8bit", {}, 26),
        (4096, 11008, 32, "galore_adamw_8bit", {"rank": 1024}, 18),
    ],
)
def test_published_by_galore(hidden, width, layers, name, options, gib):
    model = llama(hidden, width, layers)
    weights = 2 * sum(one.elements for one in model)
    found = optimizer_memory(name, model, "bf16", options=options)
    assert (weights + found.held()) / GIB == pytest.approx(gib, rel=0.065)


def test_published_resident_and_peak():
    """Llama-3-8B in bf16 on an A100 (fms-acceleration's benches): 6.00 B a parameter stay, 10.00 at the peak, which is
    the step: weights, gradients, states and one more copy."""
    model = llama(4096, 14336, 32, 128_256, 1024)
    parameters = sum(one.elements for one in model)
    found = optimizer_memory("adamw_torch", model, "bf16")
    assert (2 * parameters + found.held()) / parameters == pytest.approx(6.00, abs=0.005)
    assert (4 * parameters + found.held() + found.worst.bytes) / parameters == pytest.approx(10.00, abs=0.005)
