"""Reading Ollama's commands, Modelfiles and variables."""

import contextlib
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.errors import BadInput
from willfit.launch.base import OnlyServes
from willfit.launch.modelfile import parse_modelfile
from willfit.launch.table import parse_command


def read(line, version=None):
    return parse_command(shlex.split(line), version)


@pytest.mark.parametrize(
    ("line", "settings"),
    [
        ("ollama run llama3.2", {}),
        ("ollama run llama3.2 why is the sky blue --verbose", {}),
        ("ollama run llama3.2 --keepalive 1h30m", {"keep_alive": 5400.0}),
        ("ollama run llama3.2 --keepalive=0", {"keep_alive": 0.0}),
        ("ollama run llama3.2 --keepalive -1s", {"keep_alive": -1.0}),
        ("ollama run --think=high llama3.2", {}),
        ("OLLAMA_KEEP_ALIVE=300 ollama run llama3.2", {"keep_alive": 300.0}),
        ("OLLAMA_NUM_PARALLEL=0 ollama run llama3.2", {"num_parallel": None}),
        ("OLLAMA_GPU_OVERHEAD=1073741824 ollama run llama3.2", {"gpu_overhead": 2**30}),
        (
            "OLLAMA_SCHED_SPREAD=1 OLLAMA_NEW_ENGINE=t ollama run llama3.2",
            {"sched_spread": True, "new_engine": True},
        ),
        ("OLLAMA_FLASH_ATTENTION=false ollama run llama3.2", {"flash_attention": False}),
        ("OLLAMA_LLM_LIBRARY=cpu_avx2 ollama run llama3.2", {"llm_library": "cpu_avx2"}),
        (
            "LLAMA_ARG_FIT=off LLAMA_ARG_FIT_TARGET=512 ollama run llama3.2",
            {"fit": False, "fit_target_mib": 512},
        ),
        ("bash -c 'OLLAMA_NUM_PARALLEL=2 ollama serve & sleep 5; ollama run llama3.2'", {"num_parallel": 2}),
        (
            "bash -c 'export OLLAMA_KV_CACHE_TYPE=q8_0; ollama serve & ollama run llama3.2'",
            {"kv_cache_type": "q8_0"},
        ),
        (
            "bash -c 'docker run -d --gpus all -e OLLAMA_FLASH_ATTENTION=1 --name o ollama/ollama:0.13.5 "
            "&& docker exec -it o ollama run llama3.2'",
            {"flash_attention": True, "version": "0.13.5"},
        ),
    ],
)
def test_settings(line, settings):
    launch = read(line)
    assert (launch.engine, launch.model) == ("ollama", "meta-llama/Llama-3.2-3B-Instruct:Q4_K_M")
    for name, value in settings.items():
        assert getattr(launch.settings, name) == value, name
    assert "llama3.2 is taken for" in launch.notes[0]


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("OLLAMA_GPU_OVERHEAD=8G ollama run llama3.2", "OLLAMA_GPU_OVERHEAD=8G is no whole number"),
        ("OLLAMA_FLASH_ATTENTION=yes ollama run llama3.2", "is taken for true"),
        ("OLLAMA_KEEP_ALIVE=long ollama run llama3.2", "is no duration"),
    ],
)
def test_variables_that_ollama_does_not_understand(line, note):
    assert any(note in one for one in read(line).notes)


def test_flags_of_other_versions_are_named():
    assert any(
        "Ollama 0.2.0 has no --think" in note for note in read("ollama run llama3.2 --think", "0.2.0").notes
    )


def test_a_server_alone_loads_nothing():
    for line in (
        "OLLAMA_NUM_PARALLEL=4 ollama serve",
        "docker run -d --gpus=all -v ollama:/root/.ollama -p 11434:11434 --name ollama ollama/ollama",
        "bash -c 'ollama serve'",
    ):
        with pytest.raises(OnlyServes, match="loads no model until it is asked for one"):
            read(line)
    with pytest.raises(OnlyServes) as caught:
        read("docker run -e OLLAMA_NUM_PARALLEL=4 ollama/ollama:0.9.6-rocm")
    assert (caught.value.variables, caught.value.version) == ({"OLLAMA_NUM_PARALLEL": "4"}, "0.9.6")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ollama", "nothing is loaded"),
        ("ollama pull llama3.2", "ollama pull: nothing is loaded"),
        ("ollama rum llama3.2", "did you mean run"),
        ("ollama run", "no model is named"),
        ("ollama run llama3.2 --ctx 8192", "has no flag --ctx"),
        ("ollama run llama3.2 --keepalive soon", "expected a duration"),
        ("ollama create mine -f /nowhere/Modelfile", "cannot read the Modelfile"),
    ],
)
def test_refusals(line, message):
    with pytest.raises(BadInput) as caught:
        read(line)
    assert message in str(caught.value)


def test_models_that_are_made_of_others(tmp_path):
    file = tmp_path / "Modelfile"
    file.write_text(
        "FROM qwen3:14b\n# a comment\nPARAMETER num_ctx 16384\nPARAMETER num_gpu 30\nparameter use_mmap false\n"
        'PARAMETER stop "<|im_end|>"\nTEMPLATE """{{ .Prompt }}\nFROM nothing\n"""\nSYSTEM You are brief.\n'
        "ADAPTER ./adapter.gguf\nDRAFT ./draft.gguf\n"
    )
    launch = read(f"OLLAMA_NUM_PARALLEL=2 ollama create mine -f {file}")
    settings = launch.settings
    assert launch.model == "Qwen/Qwen3-14B:Q4_K_M"
    assert (settings.num_ctx, settings.num_gpu, settings.use_mmap) == (16384, 30, False)
    assert settings.num_parallel == 2
    assert settings.adapters == (str(tmp_path / "adapter.gguf"),)
    assert any("DRAFT" in note for note in launch.notes)
    assert read(f"ollama create mine -f {file} -q q8_0").model == "Qwen/Qwen3-14B:Q8_0"
    file.write_text("FROM ./model.gguf")
    assert read(f"ollama create mine --file {file}").model == str(tmp_path / "model.gguf")
    file.write_text("FROM ./folder")
    assert read(f"ollama create mine -f {file} --quantize q4_K_M").model == f"{tmp_path}/folder:Q4_K_M"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("PARAMETER num_ctx 10", "no model is named"),
        ("FRM qwen3", "line 1: 'FRM' is no command"),
        ("FROM qwen3\nPARAMETER num_ctx many", "num_ctx is 'many'"),
        ("FROM qwen3\nPARAMETER num_ctxx 10", "there is no such parameter (did you mean num_ctx?)"),
        ("FROM qwen3\nPARAMETER num_gpu all", "num_gpu is 'all'"),
        ("FROM qwen3\nPARAMETER use_mmap maybe", "use_mmap is 'maybe'"),
        ("FROM nothing-like-it", "which model of Ollama's library"),
    ],
)
def test_modelfiles_that_are_refused(text, message, tmp_path):
    (tmp_path / "Modelfile").write_text(text)
    with pytest.raises(BadInput) as caught:
        read(f"ollama create mine -f {tmp_path}/Modelfile")
    assert message in str(caught.value)


@given(st.text(max_size=200))
def test_any_modelfile_is_read_or_refused(text):
    with contextlib.suppress(BadInput):
        assert parse_modelfile(text).model


def test_variables_that_ollama_does_not_have_are_named():
    line = "OLLAMA_NUM_PARALEL=4 OLLAMA_DEBUG=1 OLLAMA_MODELS=/x OLLAMA_KEEP_ALIVE=1h ollama run llama3.1:8b"
    notes = parse_command(shlex.split(line)).notes
    named = [note for note in notes if "has no variable" in note]
    assert named == [
        "Ollama has no variable OLLAMA_NUM_PARALEL: it has no effect (do you mean OLLAMA_NUM_PARALLEL?)"
    ]
