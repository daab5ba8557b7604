"""Ollama: what it estimates, where it puts layers, what it starts llama.cpp with, what its own engine keeps.

Expected values are those of Ollama's own tests (`llm/server_test.go: TestLLMServerFitGPU`, `llm/memory_test.go:
TestEstimateGPULayers`), of logs, or counted by hand from the model's config.
"""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.asking import answer_command, find_subject, machine_of
from willfit.engines.base import Machine
from willfit.engines.ollama import NEWEST, Settings, estimate
from willfit.engines.ollama.changes import WORDS
from willfit.engines.ollama.eras import ERAS, Era, era_for
from willfit.engines.ollama.estimate import read
from willfit.engines.ollama.facts import Facts
from willfit.engines.ollama.graph import Asked, graph_of
from willfit.engines.ollama.habits import CACHE_RULES, GRAPH_RULES, OWN_ENGINE, holds, who_knows
from willfit.engines.ollama.library import known
from willfit.engines.ollama.placement import Load, Room, lay_out, place_each
from willfit.engines.ollama.settings import resolve
from willfit.engines.ollama.starting import served, server
from willfit.errors import BadInput
from willfit.formulas import read_formula
from willfit.hardware.device import Device
from willfit.quantities import GIB, MIB

_VERSIONS = (
    "0.1.33",
    "0.1.48",
    "0.3.14",
    "0.5.7",
    "0.6.8",
    "0.9.6",
    "0.11.10",
    "0.12.10",
    "0.13.5",
    "0.24.0",
)


def subject(model, quant="Q4_K_M"):
    return find_subject(f"{model}:{quant}", offline=True)[0]


def in_library(name):
    found = known(name)
    settings = {"stored": found.stored, "encoder": found.encoder}
    return find_subject(found.file, offline=True)[0], settings


def card(free, vendor="NVIDIA", capability="8.9"):
    return Device("a card", vendor, compute_capability=capability, usable_bytes=int(free))


@pytest.mark.parametrize(
    ("free", "layers", "requested", "expected"),
    [
        ((256,), [50] * 3, -1, {0: (0, 1, 2)}),
        ((256,), [100] * 4, -1, {0: (1, 2)}),
        ((256,), [50] * 3, 1, {0: (1,)}),
        ((256,), [50] * 3, 0, {}),
        ((256,), [100] * 4, 999, {0: (0, 1, 2, 3)}),
        ((128, 256), [50] * 3, -1, {1: (0, 1, 2)}),
        ((128, 256), [256, 50, 50], -1, {1: (0,), 0: (1, 2)}),
        ((128, 256), [256, 256, 50], -1, {1: (1,)}),
        ((128, 256), [50] * 3, 1, {1: (1,)}),
        ((128, 256), [256, 50, 50], 2, {1: (0,), 0: (1,)}),
        ((128, 256), [256, 256, 50], 999, {1: (0, 1), 0: (2,)}),
    ],
)
def test_layers_are_laid_out_as_ollamas_own_test_has_it(free, layers, requested, expected):
    order = sorted(range(len(free)), key=lambda index: -free[index])
    rooms = [Room(index, free[index] * MIB, 0) for index in order]
    found = lay_out([size * MIB for size in layers], rooms, [0] * len(rooms), requested)
    assert {rooms[place].index: one for place, one in enumerate(found) if one} == expected


#: The model of Ollama's own test: five layers of 4 B, one word, heads that are not grouped.
_TINY = Facts("llama", (4,) * 5, 4, 4, 0, 24, 4096, 1, heads=(32,) * 5, kv_heads=(32,) * 5, context=32)
_GRAPH = graph_of(_TINY, Asked(2048, 512), era_for("0.5.7"), "0.5.7")
_LAYER = 33554436


def test_the_graph_is_that_of_ollamas_own_test():
    assert (_GRAPH.full, _GRAPH.partial) == (171968512, 202377216)
    assert _GRAPH.cache == (_LAYER - 4,) * 5


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ((1, 1), (1, 1)), ((2, 1), (2, 1)), ((2, 2), (2, 2)), ((1, 2), (1, 2)), ((3, 3), (3, 3)), ((4, 4), (3, 3)),
        ((6, 6), (3, 3)), ((0, 3), (0, 3)),
    ],
)  # fmt: skip
def test_layers_are_placed_in_turn_as_ollamas_own_test_has_it(layers, expected):
    graph = max(_GRAPH.full, _GRAPH.partial)
    free = [2048 + _LAYER + count * _LAYER + 1 + graph for count in layers]
    # The output is 4 B, and goes to the device whose turn it is.
    free[0 if layers[0] else 1] += 4
    load = Load((_LAYER,) * 5, 4, _GRAPH.full, _GRAPH.partial, buffer=_LAYER)
    placed = place_each(load, [Room(0, free[0], 2048), Room(1, free[1], 2048)], 0, from_last=False)
    assert placed.counts == expected
    assert placed.full >= placed.partial


@given(
    layers=st.lists(st.integers(1, 500), min_size=2, max_size=40),
    free=st.lists(st.integers(0, 4000), min_size=1, max_size=4),
    reserved=st.integers(0, 600),
)
def test_what_is_laid_out_fits(layers, free, reserved):
    rooms = [Room(index, size, 0) for index, size in enumerate(sorted(free, reverse=True))]
    found = lay_out(layers, rooms, [reserved] * len(rooms))
    for room, one in zip(rooms, found, strict=True):
        assert sum(layers[index] for index in one) <= max(0, room.bytes - reserved)
    inside = [index for one in found for index in one]
    assert inside == sorted(inside)
    # Layers come from the back; the output is the first to stay out.
    last = len(layers) - 1
    assert inside == list(range(len(layers) - len(inside), len(layers))) or inside == list(
        range(last - len(inside), last)
    )


@pytest.mark.parametrize("version", _VERSIONS)
def test_more_memory_never_takes_fewer_layers(version):
    model = subject("Qwen/Qwen2.5-14B-Instruct")
    settings = Settings(version=version, num_ctx=4096, num_parallel=1)
    counts = []
    for gib in (2, 4, 6, 8, 10, 12, 16):
        made = estimate(model, Machine((card(gib * GIB),), 64 * GIB), settings)
        counts.append(made.details["n_gpu_layers"])
    assert counts == sorted(counts)
    assert counts[0] < 49 == counts[-1]


def test_gguf_weights_and_cache_counted_by_hand():
    """Llama-3.1-8B: 32 layers, 8 KV heads of 128, 128,256 words; 4 sequences of 2,048 tokens."""
    made = estimate(
        subject("meta-llama/Llama-3.1-8B-Instruct"),
        Machine((card(23 * GIB),), 64 * GIB),
        Settings(version="0.5.7"),
    )
    kv = 4 * 2048 * 32 * 2 * 8 * 128 * 2
    assert made.details["num_parallel"] == 4
    assert made.details["required"]["kv"] == kv == made.details["buffers"]["kv"]["CUDA0"]
    # The llama.cpp of that version logs the same buffers (public log 48629668660).
    assert made.details["buffers"]["model"]["CUDA0"] == pytest.approx(4403.49 * MIB, abs=0.005 * MIB)
    assert made.details["buffers"]["compute"]["CUDA0"] == pytest.approx(560.0 * MIB, abs=0.005 * MIB)
    # Attention scores of 512 tokens over 8,192 cells, 32 heads, and what the rule adds.
    scores = 4 * 512 * (1 + 4 * 4096 + 8192 * (1 + 32))
    assert made.details["required"]["graph_full"] == scores


def test_its_own_engine_keeps_windows_and_all_else():
    """Gemma 3 1B: 26 layers, every sixth sees all; one KV head of 256; windows of 512 tokens and a batch of 512."""
    made = estimate(
        subject("google/gemma-3-1b-it"), Machine((card(5 * GIB),), 16 * GIB), Settings(version="0.12.11")
    )
    assert made.details["runner"] == "ollama-engine"
    sliding, full = 22 * (512 + 512), 4 * 4096
    assert made.details["buffers"]["kv"]["CUDA0"] == (sliding + full) * 2 * 256 * 2 == 38 * MIB
    older = estimate(
        subject("google/gemma-3-1b-it"), Machine((card(5 * GIB),), 16 * GIB), Settings(version="0.6.1")
    )
    assert older.details["buffers"]["kv"]["CUDA0"] == 26 * 4 * 2048 * 2 * 256 * 2


def test_its_own_engine_keeps_earlier_recurrent_states():
    """Qwen3-Coder-Next in q8_0: 955.2 MiB on the device and 1.3 GiB on the host (public log 55579426224)."""
    model, stored = in_library("qwen3-coder-next")
    settings = Settings(
        version="0.20.4", num_ctx=32768, num_batch=1024, num_gpu=20, kv_cache_type="q8_0",
        flash_attention=True, **stored,
    )  # fmt: skip
    made = estimate(model, Machine((card(100 * GIB),), 100 * GIB), settings)
    states = (32 * 128 * 128 + 8192 * 3) * 4 * 25
    keys_and_values = 32768 * 2 * 2 * 256 * 34 // 32
    kv = made.details["buffers"]["kv"]
    assert kv["CUDA0"] == 15 * states + 5 * keys_and_values
    assert kv["CUDA0"] == pytest.approx(955.2 * MIB, abs=0.05 * MIB)
    assert kv["CPU"] == 21 * states + 7 * keys_and_values


def test_llama_server_gets_what_ollama_passes_on():
    model = subject("Qwen/Qwen3-14B")
    machine = Machine((card(11.6 * GIB), card(23 * GIB)), 64 * GIB)
    settings = Settings(version=NEWEST, num_ctx=8192, num_parallel=2, kv_cache_type="q8_0", num_gpu=30)
    subject_, facts = read(model, settings)
    resolved = resolve(facts, machine, settings)
    started = server(facts, settings, resolved, served(facts, settings, resolved, machine), machine)
    assert (started.n_ctx, started.n_parallel, started.n_gpu_layers) == (16384, 2, 30)
    assert (started.cache_type_k, started.flash_attn, started.version) == ("q8_0", "auto", "b10488")
    # It fits on the larger device alone; 9 GiB and a cache of 2.5 leave room for batches of 1,024 tokens.
    assert (started.devices, started.n_batch, started.n_ubatch) == ((1,), 1024, 1024)
    spread = replace(settings, sched_spread=True)
    assert served(facts, spread, resolve(facts, machine, spread), machine).rooms[-1].index == 1
    assert subject_.gguf is not None


@pytest.mark.parametrize(
    ("free", "context", "flash", "batch"),
    [
        (24, 4096, None, 512),
        (24, 8192, None, 1024),
        (24, 40960, None, 2048),
        # 10.3 GiB are predicted: more than 60 % of 16 GiB, and more than 75 % of 13.
        (20, 40960, None, 2048),
        (16, 40960, None, 1024),
        (13, 40960, None, 512),
        (7, 8192, False, 256),
        (12, 8192, False, 512),
    ],
)
def test_batches_grow_with_contexts_where_there_is_room(free, context, flash, batch):
    model = subject("Qwen/Qwen3-8B")
    machine = Machine((card(free * GIB),), 64 * GIB)
    settings = Settings(num_ctx=context, flash_attention=flash)
    _, facts = read(model, settings)
    assert served(facts, settings, resolve(facts, machine, settings), machine).batch == batch


@pytest.mark.parametrize(
    ("version", "gib", "context", "parallel"),
    [
        ("0.1.48", 24, 2048, 1),
        ("0.5.7", 24, 2048, 4),
        ("0.5.7", 6, 2048, 1),  # four do not fit
        ("0.9.6", 24, 4096, 2),
        ("0.13.5", 24, 4096, 1),
        ("0.15.5", 8, 4096, 1),
        ("0.15.5", 24, 32768, 1),
        ("0.32.15", 48, 131072, 1),  # 262,144, cut back to what the model was trained for
    ],
)
def test_defaults_by_version(version, gib, context, parallel):
    machine = Machine((card(gib * GIB),), 64 * GIB)
    made = estimate(subject("meta-llama/Llama-3.1-8B-Instruct"), machine, Settings(version=version))
    assert (made.details["context"], made.details["num_parallel"]) == (context, parallel)
    assert any(f"{context:,} tokens" in note for note in made.notes)


def test_a_quantized_cache_needs_flash_attention():
    machine = Machine((card(23 * GIB),), 64 * GIB)
    model = subject("meta-llama/Llama-3.1-8B-Instruct")
    plain = Settings(version="0.9.6", num_ctx=8192, num_parallel=1, kv_cache_type="q8_0")
    made = estimate(model, machine, plain)
    assert made.details["required"]["kv"] == 8192 * 32 * 2 * 8 * 128 * 2
    assert any("the cache stays f16" in note for note in made.notes)
    made = estimate(model, machine, replace(plain, flash_attention=True))
    assert made.details["required"]["kv"] == 8192 * 32 * 2 * 8 * 128
    assert made.details["buffers"]["kv"]["CUDA0"] == 8192 * 32 * 2 * 8 * 128 * 34 // 32


def test_when_a_model_is_unloaded_is_said():
    machine = Machine((card(23 * GIB),), 64 * GIB)
    model = subject("meta-llama/Llama-3.2-1B-Instruct")
    said = {keep: estimate(model, machine, Settings(keep_alive=keep)) for keep in (None, 0.0, -1.0, 600.0)}
    assert all(one.details["idle_bytes"] == 0 for one in said.values())
    assert "unloaded 300 s after its last answer" in said[None].notes[-1]
    assert "unloaded after each answer" in said[0.0].notes[-1]
    assert "stays loaded until Ollama ends" in said[-1.0].notes[-1]
    assert "600 s" in said[600.0].notes[-1]


def test_more_users_than_are_answered_at_once_wait():
    machine = Machine((card(23 * GIB),), 64 * GIB)
    model = subject("meta-llama/Llama-3.2-1B-Instruct")
    made = estimate(model, machine, Settings(version="0.13.5"), users=3)
    assert any("answers 1 at once" in note for note in made.notes)


def test_what_would_be_in_ram_must_be_free_there():
    model = subject("meta-llama/Llama-3.1-70B-Instruct")
    small = Machine((card(8 * GIB),), 16 * GIB)
    for version, refused in (("0.1.48", False), ("0.9.6", True), (NEWEST, False)):
        made = estimate(model, small, Settings(version=version, num_ctx=2048))
        assert ("more system memory" in made.refusal) is refused
    apple = Machine((replace(card(8 * GIB, "Apple", ""), unified_memory=True),), 16 * GIB)
    assert not estimate(model, apple, Settings(version="0.9.6", num_ctx=2048)).refusal


def test_its_own_engine_loads_no_adapters():
    machine = Machine((card(23 * GIB),), 64 * GIB)
    settings = Settings(version="0.13.5", adapters=("a.gguf",))
    assert "LoRA" in estimate(subject("Qwen/Qwen3-8B"), machine, settings).refusal
    assert not estimate(subject("Qwen/Qwen2.5-7B-Instruct"), machine, settings).refusal


def test_idle_devices_are_listed_and_hold_nothing():
    machine = Machine((card(8 * GIB), card(24 * GIB)), 64 * GIB)
    for version in ("0.9.6", "0.13.5", NEWEST):
        made = estimate(subject("Qwen/Qwen3-14B"), machine, Settings(version=version, num_ctx=4096))
        assert [device.index for device in made.devices] == [0, 1]
        assert not made.devices[0].terms
        assert made.devices[1].peak_bytes > 8 * GIB


@pytest.mark.parametrize("version", [*_VERSIONS, NEWEST])
@pytest.mark.parametrize("model", ["Qwen/Qwen3-8B", "google/gemma-3-12b-it", "openai/gpt-oss-20b"])
def test_every_term_says_how_it_comes_about(version, model):
    quant = "BF16" if "gpt-oss" in model else "Q4_K_M"
    for machine in (
        Machine((card(6 * GIB),), 64 * GIB),
        Machine((card(40 * GIB),), 64 * GIB),
        Machine((), 64 * GIB),
    ):
        made = estimate(subject(model, quant), machine, Settings(version=version, num_ctx=4096))
        for term in (term for place in (*made.devices, made.host) for term in place.terms):
            formula = read_formula(term.formula)
            assert formula is not None, term
            assert formula.value == pytest.approx(term.bytes, abs=1.5), term
            assert term.reference


def test_rules_that_are_named_are_there():
    asked = Asked(4096, 512, 1)
    for table in (GRAPH_RULES, CACHE_RULES):
        for architecture, rules in table.items():
            for since, _ in rules:
                version = ".".join(map(str, since)) if len(since) > 1 and since != (0, 0) else "0.1.33"
                facts = replace(_TINY, architecture=architecture, window=1024, qkv_bias=8)
                made = graph_of(facts, asked, era_for(version), version)
                assert min(made.full, made.partial) > 0
                for formula, size in ((made.full_formula, made.full), (made.partial_formula, made.partial)):
                    assert int(read_formula(formula).value) == size


def test_habits_that_begin_end_and_begin_again():
    versions = ("0.11.11", "0.12.0", "0.12.4", "0.12.5", "0.12.6", "0.24.0")
    assert [holds(OWN_ENGINE, "qwen3", version) for version in versions] == [
        False,
        True,
        True,
        False,
        True,
        True,
    ]


def test_eras_are_in_order_and_every_field_is_in_words():
    assert all(one.since < other.since for one, other in pairwise(ERAS))
    names = set(Era.__slots__) - {"since"}
    assert names == set(WORDS)
    for era in ERAS:
        for name, words in WORDS.items():
            assert words.of(getattr(era, name))


@pytest.mark.parametrize(
    ("name", "file", "gigabytes"),
    [
        # The sizes are those that the library's pages state.
        ("llama3.2", "meta-llama/Llama-3.2-3B-Instruct:Q4_K_M", 2.0),
        ("llama3.2:1b", "meta-llama/Llama-3.2-1B-Instruct:Q8_0", 1.3),
        ("qwen3:0.6b", "Qwen/Qwen3-0.6B:Q4_K_M", 0.523),
        ("qwen3:1.7b", "Qwen/Qwen3-1.7B:Q4_K_M", 1.4),
        ("qwen3:14b", "Qwen/Qwen3-14B:Q4_K_M", 9.3),
        ("qwen3:32b", "Qwen/Qwen3-32B:Q4_K_M", 20.0),
        ("gemma3:12b", "google/gemma-3-12b-it:Q4_K_M", 8.1),
        ("gemma3:27b-it-qat", "google/gemma-3-27b-it:Q4_0", 18.0),
        ("gemma4:e4b", "google/gemma-4-E4B-it:Q4_K_M", 9.6),
        ("gpt-oss:120b", "openai/gpt-oss-120b:BF16", 65.0),
        ("deepseek-r1:671b", "deepseek-ai/DeepSeek-R1:Q4_K_M", 404.0),
        ("deepseek-r1", "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B:Q4_K_M", 5.2),
        ("phi4-reasoning", "microsoft/Phi-4-reasoning:Q4_K_M", 11.0),
        ("llama3.1:8b-instruct-q8_0", "meta-llama/Llama-3.1-8B-Instruct:Q8_0", 8.5),
        ("llama2:70b-chat", "meta-llama/Llama-2-70b-chat-hf:Q4_0", 39.0),
        ("mistral-small3.2", "mistralai/Mistral-Small-3.2-24B-Instruct-2506:Q4_K_M", 15.0),
        ("llama3.2-vision", "meta-llama/Llama-3.2-11B-Vision-Instruct:Q4_K_M", 7.8),
        ("qwen3.5:9b", "Qwen/Qwen3.5-9B:Q4_K_M", 6.6),
    ],
)
def test_what_names_of_the_library_stand_for(name, file, gigabytes):
    found = known(name)
    assert found.file == file
    settings = Settings(stored=found.stored, encoder=found.encoder)
    stored, facts = read(find_subject(file, offline=True)[0], settings)
    size = sum(tensor.bytes for tensor in stored.gguf.tensors) + (facts.vision.total if facts.vision else 0)
    assert size == pytest.approx(gigabytes * 1e9, rel=0.04)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("qwen33:8b", "do you mean qwen3"),
        ("qwen3:9b", "known: 0.6b"),
        ("gpt-oss:120b-cloud", "Ollama's own servers"),
        ("someone/model", "which model of Ollama's library"),
        ("", "which model"),
    ],
)
def test_names_that_stand_for_nothing(name, message):
    with pytest.raises(BadInput) as caught:
        known(name)
    assert message in f"{caught.value} {caught.value.hint}"


def test_every_model_of_the_library_is_bundled():
    from willfit.checkpoints.catalogue import find
    from willfit.engines.ollama.library import _library

    lines = [line for lines in _library().values() for line in lines]
    assert len(lines) > 200
    for line in lines:
        assert find(line.model) is not None, line.model
    for name, of_name in _library().items():
        tags = [tag for line in of_name for tag in line.tags]
        assert len(tags) == len(set(tags)), name


def test_no_gguf_file():
    plain = find_subject("Qwen/Qwen3-8B", offline=True)[0]
    with pytest.raises(BadInput, match="GGUF"):
        estimate(plain, machine_of("rtx4090"), Settings())


@pytest.mark.parametrize(
    ("architecture", "version", "other"),
    [
        ("gemma4", "0.5.7", "0.20"),
        ("gemma4", "0.20.0", ""),
        ("gemma2", "0.1.46", "0.1.47"),
        ("mistral3", "0.6.5", ""),  # by llama.cpp
        ("mistral3", "0.9.0", ""),  # by its own engine
        ("persimmon", "0.1.39", "0.30"),
        ("something-new", "0.24.0", "0.30"),
        ("something-new", "0.32.15", ""),
        ("mllama", "0.24.0", ""),
        ("mllama", "0.30.0", "0.24"),
    ],
)
def test_which_version_knows_an_architecture(architecture, version, other):
    assert who_knows(architecture, version) == other


def test_a_version_that_does_not_know_the_model_is_said():
    words = ["ollama", "run", "qwen3:8b"]
    old = answer_command(words, machine_of("rtx4090"), version="0.5.7", offline=True).estimate
    assert old.refusal == "Ollama 0.5.7 does not know qwen3; 0.6.6 does"
    new = answer_command(words, machine_of("rtx4090"), version="0.6.6", offline=True).estimate
    assert not new.refusal


def test_wide_heads_without_a_kernel_are_attended_on_the_processor():
    words = ["env", "OLLAMA_FLASH_ATTENTION=1", "OLLAMA_CONTEXT_LENGTH=32768", "ollama", "run", "gemma4:26b"]
    hosts = {}
    for version in ("0.20.3", "0.20.4"):
        answer = answer_command(words, machine_of("rtx3090"), version=version, offline=True).estimate
        hosts[version] = answer.details["buffers"]["compute"]["CPU"]
    # Keys and values of a layer, 32,768 cells of 2 heads of 512 elements in F16, are copied to the host.
    assert hosts["0.20.3"] > 2 * 32768 * 2 * 512 * 2
    assert hosts["0.20.4"] == 512 * 2816 * 4
