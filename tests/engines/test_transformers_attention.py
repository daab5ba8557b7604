"""Which attention runs unasked, against the sources of the installed package."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from willfit.architectures.build import FAMILIES, build
from willfit.checkpoints.config import Config
from willfit.engines.transformers.attention import default_attention
from willfit.engines.transformers.eras import NEWEST
from willfit.training.frameworks.hugging_face import resolve
from willfit.training.settings import TrainingSettings

#: What a class says of itself.
_SAYS = re.compile(r"^    _supports_sdpa(?:: bool)? = (True|False)", re.MULTILINE)


def test_what_the_installed_classes_say() -> None:
    """Every family that has a class: SDPA where a class of its module says so."""
    found = find_spec("transformers")
    if found is None or found.origin is None:
        pytest.skip("transformers is not installed")
    root = Path(found.origin).parent
    if f'"{NEWEST}"' not in (root / "__init__.py").read_text():
        pytest.skip(f"another version than {NEWEST}")
    seen = {"eager": 0, "sdpa": 0}
    for name in FAMILIES:
        module = name.replace("-", "_").removesuffix("_text")
        source = root / "models" / module / f"modeling_{module}.py"
        if not source.exists():
            continue
        said = "sdpa" if "True" in _SAYS.findall(source.read_text()) else "eager"
        assert default_attention(name, NEWEST) == said, name
        seen[said] += 1
    assert seen["eager"] > 10
    assert seen["sdpa"] > 80


@pytest.mark.parametrize(
    ("name", "version", "attention"),
    [
        ("llama", "4.35.2", "eager"), ("llama", "4.36.0", "sdpa"), ("mistral", "4.36.2", "eager"),
        ("mistral", "4.37.0", "sdpa"), ("gemma2", "4.44.2", "sdpa"), ("gemma2", "4.45.0", "eager"),
        ("gemma2", "4.48.0", "sdpa"), ("gemma2", "5.20.0", "sdpa"), ("gemma2", "5.21.0", "eager"),
        ("t5", "5.12.0", "eager"), ("t5", "5.13.0", "sdpa"), ("gpt_oss", "4.55.0", "eager"),
        ("its-own-code", "4.40.0", "sdpa"),
    ],
)  # fmt: skip
def test_when_models_got_sdpa_and_lost_it(name: str, version: str, attention: str) -> None:
    assert default_attention(name, version) == attention


@pytest.mark.parametrize(("version", "attention"), [("5.20.0", "sdpa"), ("5.21.0", "eager")])
def test_a_trainer_takes_what_the_model_takes(version: str, attention: str) -> None:
    gemma = build(
        Config(
            {
                "model_type": "gemma2", "hidden_size": 96, "intermediate_size": 200, "num_hidden_layers": 2,
                "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 331,
            }
        )
    )  # fmt: skip
    run = resolve(TrainingSettings(framework="transformers", version=version), gemma)
    assert run.settings.attention == attention
