"""Predicted GGUF files, loaded by llama.cpp itself and quantized by it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from willfit.checkpoints.catalogue import catalogue_ids, find
from willfit.checkpoints.config import Config
from willfit.conversion.classes import architecture_name
from willfit.conversion.predict import predict
from willfit.file_types import Quantization

from .live import Oracle, available

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not available(), reason="no .oracle-llama.cpp: `.ci/run oracle` makes it"),
    pytest.mark.skipif("PYTEST_XDIST_WORKER" in os.environ, reason="asks in one run only: `.ci/run oracle`"),
]

#: Architectures that the pinned library does not load as they are written here: it does not know the one, and hash
#: constants of the other are numbers of 64 bits.
NOT_LOADED = {"glm5-next", "qwen4exp"}
#: Its heads are wider than llama.cpp takes them to be.
REFUSED = {"nvidia/Minitron-8B-Base"}


def config_of(name: str) -> Config:
    entry = find(name)
    assert entry is not None
    return Config(entry.config, name)


def _one_for_each() -> dict[str, str]:
    """llama.cpp's architectures, each with a bundled model that becomes it."""
    found: dict[str, str] = {}
    for name in catalogue_ids():
        architecture = architecture_name(config_of(name))
        if architecture is not None and name not in REFUSED:
            found.setdefault(architecture, name)
    return found


MODELS = _one_for_each()


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with Oracle() as process:
        yield process


@pytest.mark.parametrize("architecture", sorted(MODELS.keys() - NOT_LOADED))
def test_it_is_loaded(oracle: Oracle, architecture: str) -> None:
    header = predict(config_of(MODELS[architecture]), "Q4_K_M").header
    answer = oracle.ask(header, {"n_ctx": 512}, log=True)
    assert answer.error is None, answer.settled.get("log", "")[-2000:]
    # what the loader takes is what the file holds, unless modules that draft are passed over
    if f"{architecture}.nextn_predict_layers" not in header.metadata:
        assert sum(answer.model.values()) >= sum(tensor.bytes for tensor in header.tensors)


#: Mixes that between them take every branch.
MIXES = (
    "Q2_K",
    "Q3_K_M",
    "Q4_0",
    "Q4_K_M",
    "Q5_K_S",
    "IQ1_M",
    "IQ2_S",
    "IQ3_XS",
    "IQ3_XXS",
    "IQ4_XS",
    "MXFP4_MOE",
)


@pytest.mark.parametrize("architecture", sorted(MODELS.keys() - NOT_LOADED)[::3])
@pytest.mark.parametrize("file_type", MIXES)
def test_types_of_tensors(oracle: Oracle, architecture: str, file_type: str) -> None:
    config = config_of(MODELS[architecture])
    theirs = oracle.types(predict(config, "F16", fresh=True).header, file_type)
    ours = predict(config, Quantization(file_type, file_type, imatrix=False), fresh=True).header
    assert {tensor.name: tensor.type for tensor in ours.tensors} == theirs
