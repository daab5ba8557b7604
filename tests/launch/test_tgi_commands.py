"""`text-generation-launcher ...` and the variables in front of it, read as the launcher reads them."""

import pytest

from willfit.engines.tgi import Settings
from willfit.errors import BadInput
from willfit.launch.table import parse_command
from willfit.surfaces.cli.words import arranged


def read(line):
    launch = parse_command(line.split())
    assert launch.engine == "tgi"
    return launch


def test_a_bare_command_leaves_everything_to_it():
    launch = read("text-generation-launcher --model-id org/model")
    assert (launch.model, launch.settings, launch.format_name) == ("org/model", Settings(), None)
    assert launch.notes == ("one shard is assumed (--num-shard)",)


@pytest.mark.parametrize(
    ("flags", "variables", "field", "value"),
    [
        ("--num-shard 4", "NUM_SHARD=4", "num_shard", 4),
        ("--max-total-tokens 4096", "MAX_TOTAL_TOKENS=4096", "max_total_tokens", 4096),
        ("--max-input-tokens 4000", "MAX_INPUT_TOKENS=4000", "max_input_tokens", 4000),
        ("--max-input-length=4000", "MAX_INPUT_LENGTH=4000", "max_input_tokens", 4000),
        ("--max-batch-prefill-tokens 9", "MAX_BATCH_PREFILL_TOKENS=9", "max_batch_prefill_tokens", 9),
        ("--cuda-memory-fraction 0.5", "CUDA_MEMORY_FRACTION=0.5", "cuda_memory_fraction", 0.5),
        ("--cuda-graphs 1,2", "CUDA_GRAPHS=1,2", "cuda_graphs", (1, 2)),
        ("--cuda-graphs 0", "CUDA_GRAPHS=0", "cuda_graphs", ()),
        ("--kv-cache-dtype fp8_e5m2", "KV_CACHE_DTYPE=fp8_e5m2", "kv_cache_dtype", "fp8_e5m2"),
        ("--speculate 3", "SPECULATE=3", "speculate", 3),
        ("--quantize awq", "QUANTIZE=awq", "quantize", "awq"),
        (None, "ATTENTION=paged", "attention", "paged"),
        (None, "TGI_WIGGLE_ROOM=0.8", "wiggle_room", 0.8),
        (None, "CUDA_VISIBLE_DEVICES=0,1", "num_shard", 2),
    ],
)
def test_a_flag_and_its_variable_say_the_same(flags, variables, field, value):
    expected = Settings(**{field: value})
    assert expected != Settings()
    assert read(f"{variables} text-generation-launcher --model-id m").settings == expected
    if flags is not None:
        assert read(f"text-generation-launcher --model-id m {flags}").settings == expected


def test_a_flag_wins_over_a_variable():
    launch = read("MODEL_ID=a NUM_SHARD=2 text-generation-launcher --model-id b --num-shard 4")
    assert (launch.model, launch.settings.num_shard) == ("b", 4)
    assert read("MODEL_ID=a text-generation-launcher").model == "a"


def test_quantizing_while_loading():
    assert read("text-generation-launcher --model-id m --quantize bitsandbytes-nf4").format_name == "nf4"
    assert read("text-generation-launcher --model-id m --quantize eetq").format_name == "eetq"
    assert read("text-generation-launcher --model-id m --quantize gptq").format_name is None


def test_what_is_not_counted_is_said():
    line = "--lora-adapters a,b --max-batch-total-tokens 9000 --num-shard 1 --env -p 80 --sharded false"
    notes = read(f"text-generation-launcher --model-id m {line}").notes
    assert [note.split()[0] for note in notes] == ["adapters", "--max-batch-total-tokens"]


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("--model-id m --num-shards 2", "no flag --num-shards", "--num-shard"),
        ("--model-id m --gpu-memory-utilization 1", "no flag --gpu-memory-utilization", ""),
        ("--model-id m --quantize int4", "no --quantize int4", "awq"),
        ("--model-id m --kv-cache-dtype int8", "no --kv-cache-dtype int8", "fp8_e4m3fn"),
        ("--model-id m --max-input-tokens 5 --max-total-tokens 5", "must be less", ""),
        ("--model-id m --max-input-tokens 5 --max-input-length 5", "are the same", ""),
        ("--model-id m --cuda-memory-fraction 1.5", "share above 0", ""),
        ("--model-id m --cuda-graphs 1,x", "--cuda-graphs is 'x'", ""),
        ("--model-id m --sharded maybe", "no --sharded maybe", ""),
        ("--model-id m --sharded true --num-shard 1", "more than one shard", ""),
        ("m", "'m' belongs to no flag", "--model-id"),
        ("", "no model", "--model-id"),
    ],
)
def test_mistakes_are_named(line, message, hint):
    with pytest.raises(BadInput) as caught:
        parse_command(["text-generation-launcher", *line.split()])
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_variables_belong_to_the_command_behind_them():
    words = ["--gpu", "l4", "NUM_SHARD=1", "text-generation-launcher", "--model-id", "m"]
    assert arranged(words, ("inspect",)).launch == words[2:]
    assert parse_command(["CUDA_VISIBLE_DEVICES=0", "vllm", "serve", "m"]).engine == "vllm"
    assert not arranged(["NUM_SHARD=1", "org/model"], ()).launch
    with pytest.raises(BadInput):
        parse_command(["NUM_SHARD=1"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("TRUST_REMOTE_CODE=1 text-generation-launcher --model-id m", "TRUST_REMOTE_CODE is '1'"),
        ("QUANTIZE=int4 text-generation-launcher --model-id m", "no QUANTIZE int4"),
        ("text-generation-launcher --model-id m --model-id n", "--model-id may stand once"),
        ("text-generation-launcher --model m", "no flag --model"),  # clap takes no abbreviations
    ],
)
def test_what_clap_would_refuse(line, message):
    with pytest.raises(BadInput, match=message):
        read(line)


def test_switches_in_variables():
    notes = read(
        "ENABLE_PREFILL_LOGPROBS=true text-generation-launcher --model-id m -p8080 --num-shard 1"
    ).notes
    assert len(notes) == 1
    assert "--enable-prefill-logprobs" in notes[0]
    assert not read("ENABLE_PREFILL_LOGPROBS=false text-generation-launcher --model-id m --num-shard 1").notes
