"""`lmdeploy serve api_server ...` read as LMDeploy itself would read it."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.engines.lmdeploy import Settings
from willfit.errors import BadInput
from willfit.launch.lmdeploy import parse, recognises
from willfit.launch.table import parse_command


def read(line):
    launch = parse_command(["lmdeploy", "serve", "api_server", "org/model", *line.split()])
    assert (launch.engine, launch.model) == ("lmdeploy", "org/model")
    return launch


def test_a_bare_command_leaves_everything_to_lmdeploy():
    launch = read("")
    assert launch.settings == Settings()
    assert (launch.revision, launch.format_name, launch.notes) == (None, None, ())


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("--tp 4", "tp", 4),
        ("--tp 4 --dp 2", "dp", 2),
        ("--dp 4 --ep 4", "ep", 4),
        ("--tp 4 --cp 2", "cp", 2),
        ("--speculative-algorithm deepseek_mtp --speculative-num-draft-tokens 3", "num_draft_tokens", 3),
        ("--cudagraph-capture-batch-sizes 1 8 64", "cudagraph_capture_batch_sizes", (1, 8, 64)),
        ("--tp=4", "tp", 4),
        ("--backend pytorch", "backend", "pytorch"),
        ("--backend turbomind", "backend", "turbomind"),
        ("--session-len 32768", "session_len", 32768),
        ("--session_len 32768", "session_len", 32768),
        ("--max-batch-size 16", "max_batch_size", 16),
        ("--cache-max-entry-count 0.2", "cache_max_entry_count", 0.2),
        ("--cache-max-entry-count=.5", "cache_max_entry_count", 0.5),
        ("--cache-max-entry-count 400", "cache_max_entry_count", 400.0),
        ("--cache-block-seq-len 128", "cache_block_seq_len", 128),
        ("--quant-policy 8", "quant_policy", 8),
        ("--quant-policy int4", "quant_policy", 4),
        ("--quant-policy FP8", "quant_policy", 16),
        ("--quant-policy turbo_quant", "quant_policy", 42),
        ("--quant-policy 0", "quant_policy", 0),
        ("--max-prefill-token-num 4096", "max_prefill_token_num", 4096),
        ("--num-gpu-blocks 500", "num_gpu_blocks", 500),
        ("--eager-mode", "eager_mode", True),
        ("--dtype float16", "dtype", "float16"),
        ("--language-model-only", "language_model_only", True),
    ],
)
def test_flags(line, field, value):
    assert getattr(read(line).settings, field) == value


def test_a_whole_command():
    launch = parse_command(
        [
            "lmdeploy",
            "serve",
            "api_server",
            "OpenGVLab/InternVL3-78B",
            "--chat-template",
            "internvl2_5",
            "--server-port",
            "23333",
            "--tp",
            "4",
        ],
        "0.7.3",
    )
    assert launch.model == "OpenGVLab/InternVL3-78B"
    assert launch.settings == Settings(version="0.7.3", tp=4)


def test_the_module_starts_it_too():
    words = ["python3", "-m", "lmdeploy", "serve", "api_server", "org/model", "--tp", "2"]
    assert recognises(words)
    assert parse(words).settings.tp == 2
    assert not recognises(["python3", "-m", "vllm.entrypoints.openai.api_server"])


def test_what_is_not_counted_is_said():
    assert "redundant experts (--enable-eplb)" in read("--enable-eplb").notes[0]
    assert read("--dp 1 --ep 1 --nnodes 1").notes == ()
    assert "adapters (--adapters)" in read("--adapters a=b c=d").notes[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--cache-max-entry-cont 0.5", "did you mean --cache-max-entry-count"),
        ("--tensor-parallel-size 2", "no flag --tensor-parallel-size"),
        ("--tp", "--tp needs a value"),
        ("--tp 0", "--tp is '0'"),
        ("--tp two", "--tp is 'two'"),
        ("--session-len 32k", "--session-len is '32k'"),
        ("--cache-max-entry-count 0", "expected a share above 0"),
        ("--cache-max-entry-count nan", "expected a share above 0"),
        ("--cache-max-entry-count half", "expected a number"),
        ("--quant-policy 5", "no --quant-policy 5"),
        ("--quant-policy int5", "no --quant-policy int5"),
        ("--backend vllm", "no --backend vllm"),
        ("--dtype float32", "no --dtype float32"),
        ("second", "'second' belongs to no flag"),
    ],
)
def test_mistakes_are_named(line, message):
    with pytest.raises(BadInput) as error:
        read(line)
    assert message in f"{error.value} {error.value.hint}"


@pytest.mark.parametrize("words", [["lmdeploy"], ["lmdeploy", "chat", "m"], ["lmdeploy", "serve", "proxy"]])
def test_other_commands_are_refused(words):
    with pytest.raises(BadInput, match="only 'lmdeploy serve api_server' starts a server"):
        parse_command(words)


def test_a_command_without_a_model():
    with pytest.raises(BadInput, match="no model is named"):
        parse_command(["lmdeploy", "serve", "api_server", "--tp", "2"])


@given(st.lists(st.text(min_size=1, max_size=12), max_size=6))
def test_any_words_are_read_or_refused_with_one_line(words):
    with suppress(BadInput):
        assert parse(["lmdeploy", "serve", "api_server", *words]).model in words


def test_where_the_model_comes_from_and_abbreviations():
    launch = parse_command(
        ["LMDEPLOY_USE_MODELSCOPE=True", "lmdeploy", "serve", "api_server", "a/b", "--session", "4096"]
    )
    assert launch.settings.session_len == 4096
    assert "ModelScope" in launch.notes[0]
