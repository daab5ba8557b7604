"""Every term of every engine says how it comes about: a formula that gives its bytes, and where the rule is from."""

import re
import shlex
from dataclasses import fields
from functools import cache
from importlib import import_module
from itertools import product

import pytest

from willfit.asking import answer_about, answer_command, machine_of
from willfit.engines.base import Question
from willfit.engines.changes import changes_of
from willfit.engines.table import ENGINES
from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.formulas import read_formula, value_of

VERSIONS = {
    "vllm": ("0.5.4", "0.6.6", "0.8.5", "0.9.2", "0.11.0", "0.16.0", "0.19.1", "0.20.2", "0.33.0"),
    "sglang": ("0.4.4", "0.4.10", "0.5.6", "0.5.9", "0.5.12", "0.5.18", "0.5.23"),
    "tensorrt-llm": ("0.17.0", "1.0.0", "1.4.0"),
    "tgi": ("1.4.0", "2.0.0", "2.4.0", "3.0.0", "3.3.7"),
    "transformers": ("4.35.0", "4.41.0", "4.45.0", "4.56.0", "5.0.0", "5.23.0"),
    "lmdeploy": ("0.2.0", "0.6.0", "0.10.0", "0.13.0", "0.18.0"),
    "lightllm": ("1.0.0", "1.1.0", "1.2.0"),
    "llama.cpp": ("b2000", "b3000", "b4500", "b5500", "b6500", "b8000", "b9800", "b11312"),
    "ollama": ("0.1.48", "0.5.7", "0.9.6", "0.12.11", "0.24.0", "0.32.15"),
    "lmstudio": ("0.3.10", "0.3.32", "0.4.4", "0.4.25"),
    "mlx": ("0.24.1", "0.26.4", "0.28.4", "0.30.6", "0.32.2"),
    "exllamav2": ("0.0.8", "0.0.20", "0.1.9", "0.3.2"),
    "exllamav3": ("0.0.5", "0.0.43", "1.2.0", "1.4.0", "1.6.5"),
    "ktransformers": ("0.2.0", "0.2.1", "0.2.4", "0.3.2", "0.4.1", "0.5.2", "0.7.2"),
    "fastllm": ("0.1.4.8", "0.1.6.0", "0.1.6.4", "0.1.7.1", "1.9.0"),
    "mlc-llm": ("0.1", "0.17.1", "0.18.1", "0.20.0"),
    "minimum": (None,),
}
MODELS = (
    "Qwen/Qwen3-8B",
    "Qwen/Qwen3-8B-AWQ",
    "Qwen/Qwen3-30B-A3B",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "google/gemma-3-12b-it",
    "deepseek-ai/DeepSeek-V2-Lite",
    "Qwen/Qwen2.5-VL-7B-Instruct",
    "openai/whisper-large-v3",
    "google-t5/t5-base",
    "BAAI/bge-reranker-v2-m3",
)
MACHINES = ("h100", "4xl40s")
MACHINES_OF = {"mlx": ("m4 max 128g", "m4 24g"), "mlc-llm": ("h100", "4xl40s", "m4 24g")}
#: What else some engines are asked about, and the formats that are theirs.
MODELS_OF = {
    "exllamav2": ("meta-llama/Llama-3.1-8B-Instruct", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
    "exllamav3": ("google/gemma-4-26B-A4B-it",),
    "ktransformers": ("Qwen/Qwen2-57B-A14B-Instruct", "deepseek-ai/DeepSeek-V3"),
    "fastllm": ("meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3.5-27B", "deepseek-ai/DeepSeek-V4-Flash"),
    "mlc-llm": ("meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3.5-27B", "mistralai/Mistral-7B-Instruct-v0.1"),
}
FORMAT_OF = {"exllamav2": "exl2-4.0", "exllamav3": "exl3-4.0"}

#: An engine's file in a released version, or a constant with the number of measurements behind it.
SOURCE = re.compile(r"\S+ ((\d+\.)+\S+|b\d+) [\w./-]+|^(torch|accelerate) \S+\.(py|cpp)\b")
CONSTANT = re.compile(r"calibration\.json: [\w.]+ \(median of \d+ published measurements\)")


@cache
def answer(engine, version, model, machine):
    question, stored = Question(8192, 2, version=version), FORMAT_OF.get(engine)
    try:
        return answer_about(model, machine_of(machine), question, engine, stored, offline=True)
    except BadInput:
        return None  # what the engine allocates is not worked out for this model


def asked(engine):
    """The models and machines that an engine is asked about."""
    return product((*MODELS, *MODELS_OF.get(engine, ())), MACHINES_OF.get(engine, MACHINES))


#: Commands that switch on what no question asks for.
COMMANDS = (
    "vllm serve Qwen/Qwen3-8B --enable-lora --enable-sleep-mode --tensor-parallel-size 4",
    "vllm serve Qwen/Qwen3-8B --cpu-offload-gb 4 --kv-cache-memory-bytes 4G --max-model-len 8192",
    "vllm serve Qwen/Qwen3-8B --num-gpu-blocks-override 1000 --enforce-eager",
    "vllm serve Qwen/Qwen3-8B --kv-offloading-size 8 --enable-lora --max-loras 2 --max-cpu-loras 4",
    """vllm serve Qwen/Qwen3-8B --speculative-config '{"method": "eagle3", "model": "some/head"}'""",
    "vllm serve Qwen/Qwen3-30B-A3B -tp 2 -dp 2 --enable-expert-parallel --enable-eplb",
    "vllm serve google/gemma-3-12b-it -tp 2",
    "VLLM_USE_V1=0 vllm serve Qwen/Qwen3-8B --swap-space 8",
    "python -m sglang.launch_server --model Qwen/Qwen3-8B --enable-hierarchical-cache --cpu-offload-gb 4",
    "python -m sglang.launch_server --model Qwen/Qwen3-8B --enable-lora --max-lora-rank 32",
    "python -m sglang.launch_server --model deepseek-ai/DeepSeek-V3 --tp 4 --speculative-algorithm EAGLE",
    "python -m sglang.launch_server --model google/gemma-3-12b-it --max-total-tokens 40000",
    "lmdeploy serve api_server Qwen/Qwen3-8B --backend pytorch --quant-policy 8",
    "trtllm-serve Qwen/Qwen3-8B --tp_size 2",
    "ftllm serve Qwen/Qwen3-30B-A3B --device cudapp=2 --moe_device \"{'cuda':1,'numa':2,'disk':1}\" --dtype int4g128",
    "ftllm run Qwen/Qwen3-30B-A3B --device cpu --tokens 4096 --max_context_length 8192",
    "ftllm server Qwen/Qwen3-8B --tp 2 --tokens 65536 --kv_cache_dtype fp8_e4m3 --cuda_embedding",
    "mlc_llm serve HF://mlc-ai/Qwen3-8B-q4f16_1-MLC --mode server --overrides 'tensor_parallel_shards=2'",
    "mlc_llm serve m/Llama-3-8B-Instruct-q4f32_1-MLC --overrides 'max_total_seq_length=65536;max_num_sequence=9'",
    "mlc_llm chat HF://mlc-ai/Qwen3.5-4B-q0f16-MLC",
    "sglang serve Qwen/Qwen3-30B-A3B --kt-weight-path w --kt-method AMXINT8 --kt-num-gpu-experts 4 "
    "--kt-gpu-prefill-token-threshold 400",
    "sglang serve Qwen/Qwen3-30B-A3B --kt-weight-path w-Q4_K_M --kt-method LLAMAFILE --kt-num-gpu-experts 0",
    "ktransformers --model_path deepseek-ai/DeepSeek-V3 --gguf_path w-Q4_K_M --backend_type balance_serve",
    "ktransformers --model_path Qwen/Qwen3-30B-A3B --gguf_path w-bf16 --optimize_config_path Qwen3Moe-amx.yaml",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_terms_of_features_are_explained_as_well(command):
    version = "0.8.5" if "USE_V1" in command else None
    found = answer_command(shlex.split(command), machine_of("4xh100"), version=version, offline=True)
    terms = [term for place in (found.estimate.devices[0], found.estimate.host) for term in place.terms]
    for term in terms:
        if term.bytes:
            formula = read_formula(term.formula)
            assert formula is not None, term
            assert formula.value == pytest.approx(term.bytes, abs=1.5), term
            assert SOURCE.search(term.reference) or CONSTANT.search(term.reference), term


CASES = [(engine, version) for engine, versions in VERSIONS.items() for version in versions]


@pytest.mark.parametrize(("engine", "version"), CASES)
def test_a_formula_gives_the_bytes_of_its_term(engine, version):
    seen = 0
    for model, machine in asked(engine):
        found = answer(engine, version, model, machine)
        if found is None:
            continue
        for place in (*found.estimate.devices, found.estimate.host):
            for term in place.terms:
                if not term.bytes:
                    continue
                formula = read_formula(term.formula)
                assert formula is not None, (model, machine, term)
                assert formula.value == pytest.approx(term.bytes, abs=1.5), (model, machine, term)
                assert SOURCE.search(term.reference) or CONSTANT.search(term.reference), (model, term)
                seen += 1
    assert seen > 10


@pytest.mark.parametrize(("engine", "version"), CASES)
def test_a_budget_less_what_is_taken_is_the_cache(engine, version):
    """The first side of a cache's formula is what it was rounded down from: by less than a block, a page or 64 MiB."""
    for model in MODELS[:3]:
        found = answer(engine, version, model, MACHINES_OF.get(engine, MACHINES)[0])
        if found is None:
            continue
        for term in found.estimate.devices[0].terms:
            sides = read_formula(term.formula).sides if term.bytes else ()
            if term.name == "kv_cache" and len(sides) > 1:
                assert abs(value_of(sides[0]) - term.bytes) < 2**26, (model, term)


def test_versions_of_the_old_engine_cite_its_files():
    def cited(version, name):
        found = answer("vllm", version, MODELS[0], "h100").estimate
        return next(term for term in found.devices[0].terms if term.name == name).reference

    assert (
        cited("0.6.6", "kv_cache") == "vLLM 0.6.6.post1 vllm/worker/worker.py: determine_num_available_blocks"
    )
    assert (
        cited("0.8.5", "kv_cache")
        == "vLLM 0.8.5.post1 vllm/v1/worker/gpu_worker.py: determine_available_memory"
    )
    assert cited("0.33.0", "activations").startswith(
        "vLLM 0.33.0 vllm/v1/worker/gpu_model_runner.py: profile_run;"
    )
    assert "vllm/worker/model_runner.py: capture_model" in cited("0.5.4", "cuda_graphs")


#: The engines with eras.
PACKAGES = [
    name for name in ENGINES.values() if hasattr(import_module(f"willfit.engines.{name}"), "__path__")
]


#: Those whose terms are other engines', with their rules: llama.cpp's and MLX's.
BORROWING = ("lmstudio",)


@pytest.mark.parametrize("name", [name for name in PACKAGES if name not in BORROWING])
def test_a_rule_is_cited_where_it_was_read(name):
    """Whatever the version asked for: the newest read that has the rule, else the oldest."""
    sources = import_module(f"willfit.engines.{name}.sources").SOURCES
    assert list(sources.read) == sorted(sources.read, key=parse_version)
    for rule, places in sources.places.items():
        assert [since for since, _ in places] == sorted(since for since, _ in places)
        for version in ("0.0.1", *sources.read, "99.0"):
            engine, cited, place = sources.cite(rule, version).split(" ", 2)
            assert (engine, place) == (sources.engine, sources.path(rule, cited))
            newest = max(parse_version(version), parse_version(sources.read[0]))
            if sources.path(rule, version) and version in sources.read:
                assert cited == version
            elif any(sources.path(rule, known) for known in sources.read if parse_version(known) <= newest):
                assert parse_version(cited) <= newest


@pytest.mark.parametrize("name", PACKAGES)
def test_every_value_that_an_era_ever_had_has_words(name):
    eras = import_module(f"willfit.engines.{name}.eras")
    words = import_module(f"willfit.engines.{name}.changes").WORDS
    assert set(words) == {field.name for field in fields(eras.Era)} - {"since"}
    for one, other in zip(eras.ERAS, eras.ERAS[1:], strict=False):
        found = changes_of(one, other)
        assert found
        assert changes_of(other, one) == found
        since = "since " + ".".join(map(str, other.since))
        assert all(change.words.startswith(f"{since} ") for change in found)


@pytest.mark.parametrize("name", PACKAGES)
def test_words_enter_terms_and_numbers_that_there_are(name):
    """A number that no formula has would never be explained by it."""
    engine = next(engine for engine, package in ENGINES.items() if package == name)
    terms, numbers = set(), set()
    for version, (model, machine) in product(VERSIONS[engine], asked(engine)):
        found = answer(engine, version, model, machine)
        places = (found.estimate.devices[0], found.estimate.host) if found else ()
        for term in (term for place in places for term in place.terms):
            terms.add(term.name)
            formula = read_formula(term.formula)
            for side in formula.sides if formula else ():
                numbers |= {f"{term.name}: {key}" for part in side for key in part.key}
    rare = {
        "activations: decays",
        "draft_weights",
        "kv_cache: draft_weights",
        "needed",
        "reported",
        "kv_cache: context",
        "rounding",
        "prefill_experts",
    }
    if name in BORROWING:
        rare.add("activations")  # MLX's, which runs other files than those that are asked about here
    for words in import_module(f"willfit.engines.{name}.changes").WORDS.values():
        for entered in words.enters:
            assert entered in terms | numbers | rare, entered
