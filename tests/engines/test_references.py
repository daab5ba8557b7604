"""Terms say in which file a rule stands and since which version."""

import pytest

from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.engines import lightllm, lmdeploy, tensorrt_llm, tgi
from willfit.engines.base import Machine
from willfit.engines.references import dated
from willfit.engines.subject import subject_from_config
from willfit.estimate import exact
from willfit.hardware.table import find_device


def test_only_the_engine_s_own_files_are_dated():
    terms = (exact("a", 1, "", "engine/x.py; interval: y"), exact("b", 1, "", "calibration.json: c"))
    found = dated(terms, "Engine", "engine/", (1, 2))
    assert [term.reference for term in found] == [
        "engine/x.py (Engine, since 1.2); interval: y",
        "calibration.json: c",
    ]
    assert "(Engine, oldest rules)" in dated(terms, "Engine", "engine/", (0, 0))[0].reference


@pytest.mark.parametrize(
    ("engine", "version", "words"),
    [
        (lightllm, "1.1.0", "LightLLM, since 1.1)"),
        (lmdeploy, "0.9.2", "LMDeploy, since 0.9.2)"),
        (tgi, "2.4.0", "TGI, since 2.4)"),
        (tensorrt_llm, "1.2.0", "TensorRT-LLM, since 1.0)"),
    ],
)
def test_the_cache_names_file_and_version(engine, version, words):
    entry = find("meta-llama/Llama-3.1-8B")
    assert entry is not None
    subject = subject_from_config("m", Config(entry.config, "m"))
    found = engine.estimate(subject, Machine((find_device("l40s"),)), engine.Settings(version=version))
    cache = next(term for term in found.devices[0].terms if term.name == "kv_cache")
    assert cache.reference.endswith(words)
    assert ".py: " in cache.reference or ".cc: " in cache.reference
