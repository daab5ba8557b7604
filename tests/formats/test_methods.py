"""The table of methods agrees with the formats that there are, and with peft and transformers as they are installed."""

import ast
import re
from collections import Counter
from pathlib import Path

import peft
import pytest
import transformers

from willfit.errors import BadInput
from willfit.file_types import named_file_type
from willfit.formats.methods import METHODS
from willfit.formats.recognise import METHODS as RECIPES
from willfit.formats.recognise import recipe_named

NAMES = [variant.name for method in METHODS for variant in method.variants if variant.name is not None]
TUNERS = Path(peft.__file__).parent / "tuners"
QUANTIZERS = Path(transformers.__file__).parent / "quantizers"


def test_names_are_those_of_formats_and_occur_once():
    assert [name for name, times in Counter(NAMES).items() if times > 1] == []
    for name in NAMES:
        assert named_file_type(name) is not None or recipe_named(name, "bf16").rule is not None
    listed = Counter(recipe for method in METHODS for recipe in method.recipes if recipe)
    assert set(listed) <= set(RECIPES)
    assert max(listed.values()) == 1
    with pytest.raises(BadInput):
        recipe_named("no-format", "bf16")


def test_every_row_says_where_it_was_read_and_when_to_take_it():
    for method in METHODS:
        assert method.source
        assert method.variants or method.made == "in training"
        for variant in method.variants:
            assert 20 < len(variant.when) < 100
            assert not variant.when.endswith(".")


@pytest.mark.parametrize(
    ("title", "module"),
    [
        ("LLM.int8()", "bnb"), ("bitsandbytes, 4 bits", "bnb"), ("GPTQ", "gptq"), ("AWQ", "awq"), ("HQQ", "hqq"),
        ("EETQ", "eetq"), ("AQLM", "aqlm"), ("torchao, 8 bits", "torchao"),
    ],
)  # fmt: skip
def test_adapters_are_those_that_peft_has_layers_for(title, module):
    method = next(one for one in METHODS if one.title == title)
    assert {name.lower() for name in method.trained} == {
        path.parent.name for path in TUNERS.glob(f"*/{module}.py")
    }


def test_what_transformers_does_not_train_is_not_trained():
    for method in METHODS:
        for name in re.findall(r"quantizer_(\w+)\.py: is_trainable", method.source):
            tree = ast.parse((QUANTIZERS / f"quantizer_{name}.py").read_text())
            function = next(
                node
                for node in ast.walk(tree)
                if isinstance(node, ast.FunctionDef) and node.name == "is_trainable"
            )
            returned = [
                ast.unparse(node.value) for node in ast.walk(function) if isinstance(node, ast.Return)
            ]
            if returned == ["False"]:
                assert method.trained == (), method.title


def test_peft_replaces_no_4_bits_of_torchao():
    source = (TUNERS / "lora" / "torchao.py").read_text()
    assert "Int4Tensor" in source
    assert next(one for one in METHODS if one.title == "torchao, 4 bits").trained == ()
