"""Embedding, reranking and encoder models, encoder-decoders and vision-language models on every engine."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from functools import cache

import pytest

from willfit.asking import answer_about, find_subject
from willfit.checkpoints.config import Config
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.spans import Spans
from willfit.engines.subject import subject_from_config
from willfit.engines.support import TITLES, others
from willfit.engines.table import ENGINES, ask, engine_module
from willfit.engines.vllm import Settings
from willfit.engines.vllm import models as vllm_models
from willfit.engines.vllm.features.tasks import settled
from willfit.engines.vllm.sizing import Sizing, size_up
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.hardware.table import find_device
from willfit.launch.table import parse_command

H100 = Machine((find_device("H100"),))

#: A model of each kind.
ENCODERS = ("BAAI/bge-base-en-v1.5", "BAAI/bge-reranker-v2-m3", "answerdotai/ModernBERT-base")
EMBEDDERS = ("Qwen/Qwen3-Embedding-0.6B", "intfloat/e5-mistral-7b-instruct")
SEQ2SEQ = ("google-t5/t5-base", "openai/whisper-large-v3")
MULTIMODAL = (
    "Qwen/Qwen2.5-VL-7B-Instruct", "google/gemma-3-4b-it", "OpenGVLab/InternVL2_5-8B",
    "meta-llama/Llama-3.2-11B-Vision-Instruct", "mistralai/Voxtral-Mini-3B-2507", "llava-hf/llava-1.5-7b-hf",
)  # fmt: skip
KINDS = ENCODERS + EMBEDDERS + SEQ2SEQ + MULTIMODAL


@cache
def subject(model: str, engine: str | None = None) -> Subject:
    return find_subject(model, offline=True, engine=engine)[0]


def made(**fields: object) -> Subject:
    return subject_from_config("a model", Config(fields, "a model"))


def terms(estimate: Estimate) -> dict[str, int]:
    return {term.name: term.bytes for term in estimate.devices[0].terms}


def sized(model: str, version: str = "0.16.0", gpu: str = "H100", **settings: object) -> Sizing:
    asked = Settings(version=version, **settings)  # type: ignore[arg-type]
    return size_up(subject(model), Machine((find_device(gpu),) * asked.tensor_parallel), asked)


def activations(sizing: Sizing) -> str:
    return next(term.formula for term in sizing.inside if term.name == "activations")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model", KINDS)
def test_every_engine_answers_or_names_one_that_does(model: str, engine: str) -> None:
    asked = subject(model, engine)
    architecture = asked.architecture
    beside = architecture.encoder or architecture.encoder_only
    if (engine in ("tgi", "tensorrt-llm") and beside) or (
        engine == "tgi" and architecture.family == "mllama"
    ):
        # What these keep for encoders and cross-attention is not worked out.
        with contextlib.suppress(BadInput):
            assert ask(engine, asked, H100, Question()).refusal
        return
    found = ask(engine, asked, H100, Question())
    if not found.refusal:
        assert found.verdict == "fits"
        places = (*found.devices, found.host)
        held = [
            term for place in places for term in (*place.terms, *place.page_cache) if "weights" in term.name
        ]
        assert sum(term.bytes for term in held) > 0.45 * asked.weight_bytes
        return
    assert "\n" not in found.refusal
    older = re.search(r"; (\d[\d.]+) does", found.refusal)
    if older is not None:
        assert not ask(engine, asked, H100, Question(version=older[1])).refusal
        return
    named = re.search(r"; ([\w-]+) does", found.refusal)
    assert named is not None, found.refusal
    other = next(name for name, title in TITLES.items() if title == named[1]).replace("_", "-")
    assert not ask(other, asked, H100, Question()).refusal


@pytest.mark.parametrize("model", ENCODERS)
@pytest.mark.parametrize("engine", ["vllm", "transformers", "minimum"])
def test_encoders_keep_no_cache(model: str, engine: str) -> None:
    found = ask(engine, subject(model), H100, Question())
    assert "kv_cache" not in terms(found)
    assert found.capacity is None or found.capacity.kv_cache_tokens == 0


def test_sglang_gives_encoders_slots_all_the_same() -> None:
    """12 layers x 2 x 12 heads x 64 x 2 B a token; no graphs, which are of decoding steps."""
    found = ask("sglang", subject("BAAI/bge-base-en-v1.5"), H100, Question())
    tokens = found.details["max_total_num_tokens"]
    assert terms(found)["kv_cache"] == pytest.approx(tokens * 12 * 2 * 12 * 64 * 2, rel=1e-4)
    assert "cuda_graphs" not in terms(found)


@pytest.mark.parametrize(
    ("model", "loads"), [("google-t5/t5-base", False), ("openai/whisper-large-v3", True)]
)
def test_who_answers_by_default(model: str, loads: bool) -> None:
    for machine in (Machine((find_device("M3 Max 64GB"),)), Machine((find_device("cpu"),), 64 * 2**30)):
        answer = answer_about(model, machine, Question(), offline=True).estimate
        assert (answer.engine, answer.verdict) == ("transformers", "fits")
    answer = answer_about(model, H100, Question(), offline=True).estimate
    assert answer.engine == ("vllm" if loads else "transformers")


def test_a_model_that_vllm_dropped_goes_to_another_engine() -> None:
    answer = answer_about("meta-llama/Llama-3.2-11B-Vision-Instruct", H100, Question(), offline=True).estimate
    assert answer.engine == "transformers"
    assert any("0.10.2 was the last that did); SGLang does" in note for note in answer.notes)


# Which version runs what.


@pytest.mark.parametrize(
    ("name", "kind", "runs"),
    [
        ("WhisperForConditionalGeneration", "whisper", {"0.6.3": False, "0.7.3": True, "0.33.0": True}),
        ("BartForConditionalGeneration", "bart", {"0.5.4": False, "0.10.2": True, "0.11.0": False}),
        ("Qwen3VLForConditionalGeneration", "qwen3_vl", {"0.10.2": None, "0.11.0": True}),
        ("ModernBertModel", "modernbert", {"0.8.5.post1": False, "0.9.0": True}),
    ],
)
def test_versions_of_vllm(name: str, kind: str, runs: dict[str, bool | None]) -> None:
    model = {
        "whisper": "openai/whisper-base", "bart": "openai/whisper-base", "qwen3_vl": "Qwen/Qwen3-VL-2B-Instruct",
        "modernbert": "answerdotai/ModernBERT-base",
    }[kind]  # fmt: skip
    architecture = _named(subject(model), name, kind)
    for version, expected in runs.items():
        assert vllm_models.support(architecture.architecture, version).runs is expected, version


def _named(one: Subject, name: str, kind: str) -> Subject:
    return replace(one, architecture=replace(one.architecture, class_names=(name,), model_type=kind))


def test_what_vllm_lacks_runs_through_transformers_where_that_hands_over_attention() -> None:
    # DistilBERT has no class in vLLM; T5 has no attention that vLLM could take over.
    distilbert = vllm_models.support(subject("distilbert/distilbert-base-uncased").architecture, "0.33.0")
    assert distilbert.runs
    assert distilbert.through
    assert vllm_models.support(subject("google-t5/t5-base").architecture, "0.33.0").runs is False
    assert others(subject("google-t5/t5-base").architecture, "vllm") == "transformers does"


def test_classes_for_other_tasks_are_converted() -> None:
    ranker = _named(subject("Qwen/Qwen3-0.6B"), "Qwen3ForSequenceClassification", "qwen3").architecture
    assert vllm_models.support(ranker, "0.33.0").runs
    # Before the ends of names were converted some classes were, too.
    jamba = replace(ranker, model_type="unknown", class_names=("NemotronForSequenceClassification",))
    assert vllm_models.support(jamba, "0.9.2").runs is None


def test_versions_between_those_that_were_read_are_not_guessed() -> None:
    table = Spans(["1.0", "2.0", "4.0"], {("1.0", "2.0"): "gone", ("4.0", ""): "came", ("1.0", ""): "both"})
    versions = ("0.5", "1.0", "3.0", "4.0", "5.0")
    assert [table.has("gone", version) for version in versions] == [True, True, None, False, False]
    assert [table.has("came", version) for version in versions] == [None, False, None, True, True]
    assert all(table.has("both", version) for version in versions)
    assert [table.has("never", version) for version in versions] == [None, False, False, False, None]


def test_engines_that_others_name_say_what_they_support() -> None:
    for name in TITLES:
        assert engine_module(name.replace("_", "-")).NEWEST


# Vectors and scores.


@pytest.mark.parametrize(
    ("model", "version", "runner", "generation"),
    [
        ("Qwen/Qwen3-Embedding-0.6B", "0.9.1", "pooling", "v0"),
        ("Qwen/Qwen3-Embedding-0.6B", "0.9.2", "pooling", None),
        ("BAAI/bge-base-en-v1.5", "0.10.0", "pooling", "v0"),
        ("BAAI/bge-base-en-v1.5", "0.33.0", "pooling", None),
        ("intfloat/e5-mistral-7b-instruct", "0.33.0", "pooling", None),
        ("openai/whisper-base", "0.10.0", "generate", "v0"),
        ("openai/whisper-base", "0.33.0", "generate", None),
        ("Qwen/Qwen3-8B", "0.33.0", "generate", None),
    ],
)
def test_what_a_model_is_for(model: str, version: str, runner: str, generation: str | None) -> None:
    found = settled(subject(model), Settings(version=version))
    assert (found.runner, found.generation) == (runner, generation)


def test_embedders_drop_the_head_and_keep_the_cache() -> None:
    generating = sized("Qwen/Qwen3-8B", max_model_len=8192)
    embedding = sized("Qwen/Qwen3-Embedding-8B", max_model_len=8192)
    assert embedding.plan.bytes_per_block == generating.plan.bytes_per_block == 16 * 36 * 2 * 8 * 128 * 2
    assert "0 rows" in activations(embedding)


def test_v0_gave_encoders_a_cache() -> None:
    """16 tokens x 12 layers x 2 x 12 heads x 64 x 2 B."""
    assert sized("BAAI/bge-base-en-v1.5", "0.8.5").plan.bytes_per_block == 16 * 12 * 2 * 12 * 64 * 2
    assert not sized("BAAI/bge-base-en-v1.5", "0.16.0").plan.groups


def test_the_head_of_a_reranker() -> None:
    """bge-reranker-v2-m3: a dense layer and one score, in fp32 for vLLM; an embedder of its shape has neither."""
    dense, score = 1024 * 1024 + 1024, 1024 + 1
    ranking, plain = (
        next(term.bytes for term in sized(model).inside if term.name == "weights")
        for model in ("BAAI/bge-reranker-v2-m3", "BAAI/bge-m3")
    )
    # bge-m3 is stored with the pooler that a bare class has, which vLLM leaves out.
    assert ranking - plain == pytest.approx((dense + score) * 4, rel=0.05)


def test_decoders_that_classify_have_a_score_for_each_label() -> None:
    shape = {
        "model_type": "qwen3", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 1000,
        "max_position_embeddings": 512,
    }  # fmt: skip
    generating = made(**shape, architectures=["Qwen3ForCausalLM"]).architecture
    ranking = made(**shape, architectures=["Qwen3ForSequenceClassification"], num_labels=3).architecture
    assert generating.parameters - ranking.parameters == 1000 * 64 - 3 * 64
    assert ranking.logits_per_row == 0
    reward = made(**shape, architectures=["Qwen3ForRewardModel"]).architecture
    assert generating.parameters - reward.parameters == 1000 * 64 - (64 * 64 + 64 + 64 + 1)


def test_decoders_that_look_both_ways_are_encoders() -> None:
    shape = {
        "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000, "max_position_embeddings": 512,
    }  # fmt: skip
    ways = ({"is_causal": False}, {"architectures": ["Qwen2BidirectionalModel"]})
    for way in ways:
        found = size_up(made(**shape, **way), H100, Settings())
        assert found.resolved.max_num_batched_tokens >= 512
        assert not found.plan.groups
    assert size_up(made(**shape, architectures=["Qwen2Model"]), H100, Settings()).plan.groups


def test_encoders_that_no_family_reads_keep_no_cache() -> None:
    shape = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
        "vocab_size": 1000, "max_position_embeddings": 512, "hidden_act": "gelu",
    }  # fmt: skip
    names = {"mpnet": "MPNetModel", "nomic_bert": "NomicBertModel", "strange": "StrangeForMaskedLM"}
    for model_type, name in names.items():
        found = made(**shape, model_type=model_type, architectures=[name])
        assert "kv_cache" not in terms(ask("minimum", found, H100, Question()))
        assert "no cache" in " ".join(found.architecture.notes)
    decoder = made(**shape, model_type="strange", architectures=["StrangeForCausalLM"])
    assert "kv_cache" in terms(ask("minimum", decoder, H100, Question()))


@pytest.mark.parametrize("engine", ["vllm", "sglang", "transformers", "minimum"])
def test_learned_positions_end(engine: str) -> None:
    found = ask(engine, subject("BAAI/bge-base-en-v1.5"), H100, Question(context=32768))
    assert found.refusal == "the model has 512 positions, 32,768 are asked for; no engine can go beyond"
    # RoBERTa's table has two rows more than there are positions.
    assert not ask(engine, subject("FacebookAI/roberta-base"), H100, Question(context=512)).refusal
    assert ask(engine, subject("FacebookAI/roberta-base"), H100, Question(context=513)).refusal
    # Rotary positions can be stretched, if need be by a setting.
    assert "no engine" not in ask(engine, subject("Qwen/Qwen3-0.6B"), H100, Question(context=65536)).refusal


# Encoders and decoders in one.


def test_whispers_caches_in_vllm() -> None:
    """32 layers of 2 x 20 heads x 64 x 2 B for own tokens, as many for 1,500 source positions.

    448 tokens are 28 blocks of 16, 1,500 positions 94. Since 0.13 as many positions are planned as a batch has tokens.
    """
    plan = sized("openai/whisper-large-v3", "0.12.0").plan
    assert plan.bytes_per_block == 32 * 16 * 2 * 20 * 64 * 2
    assert plan.blocks_per_request(448) == plan.planned_blocks(448) == 28 + 94
    later = sized("openai/whisper-large-v3", "0.16.0").plan
    assert later.blocks_per_request(448) == 28 + 94
    assert later.planned_blocks(448) == 28 + 8192 // 16
    assert later.bytes_for(448, 10) == 10 * (28 + 94) * later.bytes_per_block


def test_whispers_encoder_runs_in_the_profile() -> None:
    """8,192 tokens of budget hold five sounds of 1,500 positions: (2 x 1280 + 2 x 5120 + 2 x 128 mels) x 2 B each."""
    found = sized("openai/whisper-large-v3", "0.16.0")
    running = 5 * 1500 * (2 * 1280 + 2 * 5120 + 2 * 128) * 2
    assert (
        f"5 sound(s) of 1500 tokens x 1500 positions x {2 * 1280 + 2 * 5120 + 2 * 128} elements x 2 B = {running}"
        in (activations(found))
    )


def test_whispers_slots_in_sglang() -> None:
    """Slots for 32 encoder and twice 32 decoder layers, 2 x 20 heads x 64 x 2 B each."""
    found = ask("sglang", subject("openai/whisper-large-v3"), H100, Question())
    tokens = found.details["max_total_num_tokens"]
    assert terms(found)["kv_cache"] == pytest.approx(tokens * 96 * 2 * 20 * 64 * 2, rel=1e-4)


def test_t5_in_transformers() -> None:
    """t5-base, 512 tokens: 12 decoder layers hold own and cross keys and values, 2 x 12 heads x 64 x 4 B a position.

    The encoder, with its biases for each pair of positions, is done before there is a cache; what it gave stays.
    """
    asked = subject("google-t5/t5-base")
    short, long = (
        ask("transformers", asked, H100, Question(context=length, version="5.23.0")) for length in (256, 512)
    )
    each = 12 * 2 * 12 * 64 * DTYPE
    # A prompt is all source; the decoder holds one token.
    assert terms(long)["kv_cache"] - terms(short)["kv_cache"] == pytest.approx(256 * each, rel=0.01)
    given = 511 * 768 * DTYPE
    assert given <= terms(long)["activations"] < 1.5 * given


#: T5's checkpoints are fp32.
DTYPE = 4


# Images and sounds.


@pytest.mark.parametrize(
    ("model", "settings", "expected"),
    [
        # The budget is the batch, or one item: 8192 // 256 images of 64 x 64 patches.
        ("google/gemma-3-4b-it", {"max_model_len": 8192}, "32 image(s) of 256 tokens x 4096 positions"),
        # A sequence of 32,768 tokens holds two pairs of frames of 16,384 tokens.
        ("Qwen/Qwen2.5-VL-7B-Instruct", {"max_model_len": 32768}, "1 video(s) of 32768 tokens x 131072 positions"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", {"max_model_len": 128000}, "1 video(s) of 114688 tokens"),
        (
            "Qwen/Qwen2.5-VL-7B-Instruct",
            {"max_model_len": 128000, "mm_limits": (("video", 0),)},
            "1 image(s) of 16384 tokens",
        ),
        # 1,003,520 pixels are 1,280 squares of 28 x 28; six of them are within the budget.
        (
            "Qwen/Qwen2.5-VL-7B-Instruct",
            {"max_model_len": 1024, "max_pixels": 1003520, "mm_limits": (("video", 0),)},
            "6 image(s) of 1280 tokens x 5120 positions",
        ),
        # 12 tiles and the whole, each 32 x 32 patches and a class token, 256 tokens.
        ("OpenGVLab/InternVL2_5-8B", {}, "2 image(s) of 3328 tokens x 13325 positions"),
        ("llava-hf/llava-1.5-7b-hf", {}, "14 image(s) of 576 tokens"),
        # 32 frames of 70 tokens and their marks; nine patches for each token.
        ("google/gemma-4-26B-A4B-it", {"max_model_len": 8192}, "3 video(s) of 2496 tokens x 20160 positions"),
        # As long as the context: 22 windows of 375 tokens, 1,500 positions each.
        ("mistralai/Voxtral-Mini-3B-2507", {"max_model_len": 8192}, "1 sound(s) of 8192 tokens x 33000 positions"),
    ],
)  # fmt: skip
def test_what_the_profile_encodes(model: str, settings: dict[str, object], expected: str) -> None:
    version = "0.20.0" if "gemma-4" in model else "0.16.0"
    assert expected in activations(sized(model, version, **settings))


def test_vectors_stay_while_the_language_model_runs() -> None:
    """Qwen2.5-VL-7B: 16,384 vectors of 3,584, and in the V1 runner 65,536 patches of 3 x 2 x 14 x 14 as well."""
    asked = {"max_model_len": 8192, "max_num_seqs": 8}
    vectors, pixels = 16384 * 3584 * 2, 65536 * 3 * 2 * 14 * 14 * 2
    first = activations(sized("Qwen/Qwen2.5-VL-7B-Instruct", "0.16.0", **asked))
    second = activations(sized("Qwen/Qwen2.5-VL-7B-Instruct", "0.33.0", **asked))
    assert f"+ {vectors + pixels} B of encoder outputs" in first
    assert f"+ {vectors} B of encoder outputs" in second


def test_without_images_there_is_neither_encoder_nor_profile() -> None:
    model = "Qwen/Qwen2.5-VL-7B-Instruct"
    whole = sized(model, max_model_len=8192)
    text = sized(model, max_model_len=8192, mm_limits=(("image", 0), ("video", 0)))
    unprofiled = sized(model, max_model_len=8192, skip_mm_profiling=True)
    weights = [
        next(term.bytes for term in one.inside if term.name == "weights") for one in (whole, text, unprofiled)
    ]
    tower = sum(line.bytes for line in subject(model).lines if line.tensor.part == "vision")
    assert weights[0] - weights[1] == pytest.approx(tower, rel=0.01)
    assert weights[2] == weights[0]
    assert "image" not in activations(text)
    assert "video" not in activations(unprofiled)
    assert whole.pool_bytes < unprofiled.pool_bytes < text.pool_bytes


def test_longer_contexts_never_encode_less() -> None:
    found = [
        next(term.bytes for term in sized("Qwen/Qwen2.5-VL-7B-Instruct", max_model_len=length).inside
             if term.name == "activations")
        for length in (4096, 16384, 32768, 65536, 128000)
    ]  # fmt: skip
    assert found == sorted(found)


def test_flags_of_images() -> None:
    words = ["vllm", "serve", "Qwen/Qwen2.5-VL-7B-Instruct"]
    limits = ["--limit-mm-per-prompt", '{"image": 2, "video": {"count": 0, "num_frames": 8}}']
    found = parse_command(
        [*words, *limits, "--mm-processor-kwargs", '{"max_pixels": 1003520}', "--skip-mm-profiling"]
    )
    assert found.settings.mm_limits == (("image", 2), ("video", 0))
    assert (found.settings.limit("video"), found.settings.limit("audio")) == (0, 999)
    assert found.settings.max_pixels == 1003520
    assert found.settings.skip_mm_profiling
    older = parse_command([*words, "--limit-mm-per-prompt", "image=4,video=0"])
    assert older.settings.mm_limits == (("image", 4), ("video", 0))
    with pytest.raises(BadInput, match="whole number"):
        parse_command([*words, "--limit-mm-per-prompt", '{"image": -1}'])
    assert parse_command([*words, "--task", "embed"]).settings.runner == "pooling"
    assert parse_command([*words, "--convert", "classify"]).settings.runner == "pooling"
    assert parse_command(words).settings.runner == "auto"
