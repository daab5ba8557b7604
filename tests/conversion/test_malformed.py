"""Configs with a field that is missing or wrong: an answer or one clear line, never a crash."""

import copy
import random
from typing import Any

import pytest

from willfit.architectures.build import build
from willfit.checkpoints.catalogue import catalogue_ids, find
from willfit.checkpoints.config import Config
from willfit.conversion.classes import architecture_name
from willfit.conversion.predict import predict
from willfit.errors import BadInput

JUNK = [None, 0, -1, 1, 3, 1.5, "x", [], {}, [1, 2], ["a"], True, 10**9, {"a": 1}]


def one_for_each_architecture() -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in catalogue_ids():
        entry = find(name)
        assert entry is not None
        found.setdefault(architecture_name(Config(entry.config)) or name, entry.config)
    return list(found.values())


CONFIGS = one_for_each_architecture()


def broken(config: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    fields = copy.deepcopy(config)
    sections = [value for value in fields.values() if isinstance(value, dict) and value]
    place = rng.choice(sections) if sections and rng.random() < 0.5 else fields
    key = rng.choice(sorted(place))
    if rng.random() < 0.2:
        del place[key]
    else:
        place[key] = rng.choice(JUNK)
    return fields


@pytest.mark.parametrize("seed", range(4))
def test_wrong_fields(seed: int) -> None:
    rng = random.Random(seed)
    answers = 0
    for _ in range(400):
        config = Config(broken(rng.choice(CONFIGS), rng), "a config")
        try:
            architecture = build(config)
        except BadInput:
            continue
        try:
            made = predict(config, rng.choice(["Q4_K_M", "F16", "IQ2_XS", "MXFP4"]), architecture)
        except BadInput:
            continue
        assert made.bytes[0] <= sum(tensor.bytes for tensor in made.header.tensors) <= made.bytes[1]
        answers += 1
    assert answers > 100
