"""Skip lists in the dialects that quantization configs are written in."""

import pytest

from willfit.errors import BadInput
from willfit.formats.recipes.patterns import Patterns


@pytest.mark.parametrize(
    ("entry", "name", "meant"),
    [
        # whole names, and everything below them
        ("model.layers.0.mlp.gate", "model.layers.0.mlp.gate.weight", True),
        ("model.layers.0.mlp.gate", "model.layers.0.mlp.gate_proj.weight", False),
        ("model.layers.1.self_attn", "model.layers.1.self_attn.q_proj.weight", True),
        ("model.layers.1", "model.layers.11.self_attn.q_proj.weight", False),
        # parts of names, at module borders
        ("lm_head", "lm_head.weight", True),
        ("gate", "model.layers.3.block_sparse_moe.gate.weight", True),
        ("gate", "model.layers.3.mlp.gate_proj.weight", False),
        ("mlp.gate", "model.layers.3.mlp.gate.weight", True),
        ("visual", "visual.blocks.0.attn.qkv.weight", True),
        # the same module under the names of different libraries
        ("language_model.model.layers.4.self_attn", "model.layers.4.self_attn.k_proj.weight", True),
        ("model.layers.2.mlp", "model.vision_tower.layers.2.mlp.fc1.weight", False),
        # wildcards
        ("model.layers.0.self_attn*", "model.layers.0.self_attn.o_proj.weight", True),
        ("model.layers.0*", "model.layers.0.mlp.up_proj.weight", True),
        ("model.layers.1.*", "model.layers.10.mlp.up_proj.weight", False),
        ("model.layers.*.self_attn", "model.layers.7.self_attn.q_proj.weight", True),
        ("*.mlp.shared_expert.*", "model.layers.7.mlp.shared_expert.up_proj.weight", True),
        ("*.mlp.shared_expert.*", "model.layers.7.mlp.shared_expert_gate.weight", False),
        ("mtp*", "mtp.layers.0.mlp.up_proj.weight", True),
        # regular expressions, matched from the start
        ("re:.*mlp.gate$", "model.layers.7.mlp.gate.weight", True),
        ("re:.*mlp.gate$", "model.layers.7.mlp.gate_proj.weight", False),
        (r"re:.*mlp\.(gate|up)_proj.*", "model.layers.0.mlp.up_proj.weight", True),
        ("re:self_attn.*", "model.layers.0.self_attn.q_proj.weight", False),
        # one expert stands for all
        ("model.layers.3.mlp.experts.0.up_proj", "model.layers.3.mlp.experts.{expert}.up_proj.weight", True),
        # encoders, with and without the prefix of the whole model
        ("model.vision_tower", "vision_tower.transformer.layers.0.mlp.fc1.weight", True),
        ("model.visual*", "model.visual.blocks.3.attn.qkv.weight", True),
    ],
)
def test_what_an_entry_means(entry: str, name: str, meant: bool) -> None:
    assert Patterns([entry]).match(name) is meant


def test_entries_with_indices_tell_layers_apart() -> None:
    assert Patterns(["model.layers.0.mlp"]).by_layer
    assert Patterns([r"re:model\.layers\.\d+\.mlp"]).by_layer
    assert not Patterns(["lm_head", r"re:.*mlp\.(gate|up)_proj.*", "*.self_attn*"]).by_layer


def test_a_broken_expression_is_named() -> None:
    with pytest.raises(BadInput, match=r"re:\*oops"):
        Patterns(["re:*oops"])
