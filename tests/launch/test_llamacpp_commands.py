"""`llama-server ...` and the other programs of llama.cpp and its fork, read as the programs read them."""

import re

import pytest

from willfit.engines.llama_cpp.settings import Drafting, Settings
from willfit.errors import BadInput
from willfit.launch.flags import flag_table
from willfit.launch.llama_settings import tensor_bytes
from willfit.launch.table import is_program, parse_command, starts
from willfit.surfaces.cli.words import arranged


def read(line, version=None):
    launch = parse_command(line.split(), version)
    assert launch.engine == "llama.cpp"
    return launch


def settings(line, version=None):
    return read(line, version).settings


def test_a_bare_command_leaves_everything_to_the_program():
    launch = read("llama-server -m a.gguf")
    assert (launch.model, launch.settings, launch.draft, launch.notes) == ("a.gguf", Settings(), None, ())


@pytest.mark.parametrize(
    ("flags", "variable", "fields"),
    [
        ("-c 32768", "LLAMA_ARG_CTX_SIZE=32768", {"n_ctx": 32768}),
        ("--ctx-size 0", "LLAMA_ARG_CTX_SIZE=0", {"n_ctx": 0}),
        ("--ctx_size 8192", None, {"n_ctx": 8192}),
        ("-b 64", "LLAMA_ARG_BATCH=64", {"n_batch": 64}),
        ("-ub 128", "LLAMA_ARG_UBATCH=128", {"n_ubatch": 128}),
        ("-b 64 -ub 0", None, {"n_batch": 64, "n_ubatch": 64}),
        ("-np 4", "LLAMA_ARG_N_PARALLEL=4", {"n_parallel": 4}),
        ("-np -1", None, {"n_parallel": -1}),
        ("-kvu", "LLAMA_ARG_KV_UNIFIED=1", {"kv_unified": True}),
        ("-no-kvu", "LLAMA_ARG_NO_KV_UNIFIED=1", {"kv_unified": False}),
        ("--kv-unified-per-slot 1000", None, {"n_ctx": 4000}),
        ("--kv-unified-per-slot 1000 -np 2", None, {"n_ctx": 2000, "n_parallel": 2}),
        ("--kv-unified-per-slot 1000 -c 500", None, {"n_ctx": 500}),
        ("-ngl 20", "LLAMA_ARG_N_GPU_LAYERS=20", {"n_gpu_layers": 20}),
        ("-ngl auto", None, {"n_gpu_layers": "auto"}),
        ("-ngl -1", None, {"n_gpu_layers": "auto"}),
        ("--gpu-layers all", None, {"n_gpu_layers": "all"}),
        ("-ngl -2", None, {"n_gpu_layers": "all"}),
        ("-fa on", "LLAMA_ARG_FLASH_ATTN=on", {"flash_attn": "on"}),
        ("-fa 0", "LLAMA_ARG_FLASH_ATTN=0", {"flash_attn": "off"}),
        ("-fa auto", "LLAMA_ARG_FLASH_ATTN=auto", {"flash_attn": "auto"}),
        ("-ctk q8_0 -ctv q4_1", None, {"cache_type_k": "q8_0", "cache_type_v": "q4_1"}),
        ("-sm row -mg 1", None, {"split_mode": "row", "main_gpu": 1}),
        ("-ts 3,1", "LLAMA_ARG_TENSOR_SPLIT=3,1", {"tensor_split": (3.0, 1.0)}),
        ("-ts 3/1", None, {"tensor_split": (3.0, 1.0)}),
        ("-dev CUDA1,cuda0", None, {"devices": (1, 0), "backend": "cuda"}),
        ("-dev Vulkan0", "LLAMA_ARG_DEVICE=Vulkan0", {"devices": (0,), "backend": "vulkan"}),
        ("-dev none", None, {"devices": ()}),
        ("-cmoe", "LLAMA_ARG_CPU_MOE=1", {"cpu_moe": True}),
        ("-ncmoe 12", "LLAMA_ARG_N_CPU_MOE=12", {"n_cpu_moe": 12}),
        (
            "-ncffn 2",
            None,
            {
                "override_tensor": (
                    (r"blk\.0\.ffn_(up|down|gate)\.", "CPU"),
                    (r"blk\.1\.ffn_(up|down|gate)\.", "CPU"),
                )
            },
        ),
        (
            "-ot exps=CPU,attn=CUDA0 -ot norm=CUDA1",
            None,
            {"override_tensor": (("exps", "CPU"), ("attn", "CUDA0"), ("norm", "CUDA1"))},
        ),
        ("-nkvo", "LLAMA_ARG_NO_KV_OFFLOAD=1", {"kv_offload": False}),
        ("-kvo", "LLAMA_ARG_KV_OFFLOAD=1", {}),
        ("-nkvo -kvo", None, {}),
        ("--no-op-offload", None, {"op_offload": False}),
        ("-nr", "LLAMA_ARG_REPACK=0", {"repack": False}),
        ("--no-host", None, {"no_host": True}),
        ("--swa-full", None, {"swa_full": True}),
        ("--load-mode none", None, {"mmap": False}),
        ("-lm mlock", None, {"mmap": False, "mlock": True}),
        ("-lm mmap+mlock", None, {"mmap": True, "mlock": True}),
        ("-lm dio", None, {"mmap": False, "direct_io": True}),
        ("-fit off", "LLAMA_ARG_FIT=off", {"fit": False}),
        ("-fitt 512,1024 -fitc 8192", None, {"fit_target_mib": (512, 1024), "fit_ctx": 8192}),
        ("--embeddings", "LLAMA_ARG_EMBEDDINGS=1", {"embeddings": True}),
        ("--embeddings --pooling rank", None, {"embeddings": True, "reranking": True}),
        ("--pooling rank", None, {}),
        ("--reranking", None, {"embeddings": True, "reranking": True}),
        ("-ctxcp 4 -cram 0", None, {"ctx_checkpoints": 4, "cache_ram_mib": 0}),
        ("--no-mmproj-offload --image-max-tokens 99", None, {"mmproj_offload": False, "image_tokens": 99}),
        ("--rpc a:1,b:2", "LLAMA_ARG_RPC=a:1,b:2", {"rpc_servers": ("a:1", "b:2")}),
        ("-t 8 -tb 16", None, {"n_threads": 16}),
        ("-t -1", None, {}),
    ],
)
def test_a_flag_and_its_variable_say_the_same(flags, variable, fields):
    expected = Settings(**fields)
    assert settings(f"llama-server -m a.gguf {flags}") == expected
    if variable is not None:
        assert settings(f"{variable} llama-server -m a.gguf") == expected


def test_a_flag_wins_over_its_variable():
    assert settings("LLAMA_ARG_CTX_SIZE=4096 llama-server -m a.gguf -c 8192").n_ctx == 8192
    assert settings("LLAMA_ARG_NO_KV_OFFLOAD=1 llama-server -m a.gguf -kvo").kv_offload
    assert read("LLAMA_ARG_MODEL=b.gguf llama-server").model == "b.gguf"
    # Pairs are gathered: those of the variable stand first.
    both = settings("LLAMA_ARG_OVERRIDE_TENSOR=a=CPU llama-server -m a.gguf -ot b=CUDA0")
    assert both.override_tensor == (("a", "CPU"), ("b", "CUDA0"))
    notes = read("LLAMA_ARG_CONTEXT=4096 llama-server -m a.gguf").notes
    assert notes == ("llama-server reads no variable LLAMA_ARG_CONTEXT",)


@pytest.mark.parametrize(
    ("line", "model"),
    [
        ("llama-server -hf org/name-GGUF:Q8_0", "org/name-GGUF:Q8_0"),
        ("llama-cli -hf org/name-GGUF", "org/name-GGUF:latest"),
        ("llama-server --hf-repo org/name-GGUF:Q8_0 --hf-file x.Q4_K.gguf", "org/name-GGUF:x.Q4_K.gguf"),
        ("llama-server -mu https://huggingface.co/a/b/resolve/main/c.gguf", "https://huggingface.co/a/b/resolve/main/c.gguf"),
        ("llama-server -m x.gguf -hf org/name-GGUF:Q8_0", "org/name-GGUF:Q8_0"),
        ("./Some-Model-8B.Q6_K.llamafile -ngl 9", "Some-Model-8B.Q6_K.gguf"),
        ("llamafile -m x.gguf -p hello", "x.gguf"),
        ("llama-run hf://org/name/x.gguf hello", "org/name:x.gguf"),
        ("llama-run file://x.gguf", "x.gguf"),
        ("llama-run --ngl 99 some-file.gguf Hello", "some-file.gguf"),
    ],
)  # fmt: skip
def test_how_a_model_is_named(line, model):
    assert read(line).model == model


@pytest.mark.parametrize(
    ("line", "program"),
    [
        ("llama-server -m a.gguf", "server"),
        ("llama serve -m a.gguf", "server"),
        ("/opt/llama.cpp/build/bin/llama-server.exe -m a.gguf", "server"),
        ("./server -m a.gguf", "server"),
        ("llama-cli -m a.gguf", "cli"),
        ("./main -m a.gguf", "cli"),
        ("main -m a.gguf", "cli"),
        ("llama-completion -m a.gguf", "api"),
        ("llama-mtmd-cli -m a.gguf --mmproj b.gguf", "api"),
        ("llama-speculative -m a.gguf -md b.gguf", "cli"),
        ("nohup numactl -m 0 llama-server -m a.gguf", "server"),
        ("sudo -E llama-server -m a.gguf", "server"),
    ],
)
def test_programs_by_their_names(line, program):
    assert settings(line).program == program


def test_words_that_start_a_program():
    words = ["--gpu", "rtx3090", "llama-server", "-m", "qwen3-14b-q4_k_m.gguf", "-c", "32768", "-ngl", "30"]
    assert arranged(words, ("inspect",)).launch == words[2:]
    assert settings(" ".join(words[2:])) == Settings(n_ctx=32768, n_gpu_layers=30)
    assert not is_program("main")
    assert is_program("./main")
    assert is_program("model.llamafile")
    assert starts(["./build/bin/llama-bench", "-m", "a.gguf"])
    assert not starts(["server", "--port", "80"])
    old = read("./main -m a.gguf").notes
    assert old == ("programs are called as main until June 2024; the newest build is assumed all the same",)
    assert read("./main -m a.gguf", "b1500").notes == ()


# What builds have


@pytest.mark.parametrize(
    ("flags", "version", "note"),
    [
        ("--no-mmap", None, "llama.cpp b11549 has no --no-mmap (until b10454)"),
        ("--no-mmap", "b6000", None),
        ("--no-mmap", "0.3.0", None),  # b10621, between two builds that were looked into
        ("--no-mmap", "0.5.0", "llama.cpp b11312 has no --no-mmap (until b10454)"),
        ("-ncmoe 4", "b5500", "llama.cpp b5500 has no -ncmoe (since b6100)"),
        ("-cram 0", "b6500", "llama.cpp b6500 has no -cram (since b6800)"),
        ("-fa", None, "-fa takes on, off or auto since b6325; it is read as on"),
        ("-fa", "b6000", None),
    ],
)
def test_flags_that_a_build_does_not_have(flags, version, note):
    assert read(f"llama-server -m a.gguf {flags}", version).notes == ((note,) if note else ())


def test_what_a_value_means_hangs_on_the_build():
    assert settings("llama-server -m a.gguf -ngl -1", "b6000").n_gpu_layers is None
    assert settings("llama-server -m a.gguf -ngl -1", "b8000").n_gpu_layers == "auto"
    assert settings("./main -m a.gguf --memory-f32", "b1200").cache_type_k == "f32"
    one = settings("llama-server -m a.gguf --lora-scaled b.gguf 0.5 --lora c.gguf", "b6000")
    other = settings("llama-server -m a.gguf --lora-scaled b.gguf:0.5 --lora c.gguf")
    assert one.lora == other.lora == ("c.gguf", "b.gguf")


def test_numbers_are_read_up_to_the_first_letter():
    launch = read("llama-server -m a.gguf -c 32k")
    assert launch.settings.n_ctx == 32
    assert launch.notes == ("--ctx-size 32k is read as 32: llama.cpp stops at the first letter",)


# Drafts, adapters, projectors


def test_a_draft_model():
    line = "llama-server -m a.gguf -md b.gguf -ngld 10 --draft-max 8 -cd 4096 -devd CUDA1 -ctkd q8_0"
    launch = read(line, "b8000")
    assert launch.settings.drafting == Drafting(
        n_max=8, n_ctx=4096, n_gpu_layers=10, cache_type_k="q8_0", devices=(1,)
    )
    assert (launch.draft.model, launch.draft.method) == ("b.gguf", "draft")
    assert launch.notes == ()
    assert read("llama-server -m a.gguf -hfd org/small-GGUF").draft.model == "org/small-GGUF:latest"
    assert (
        read("llama-server -m a.gguf -hfd org/small-GGUF -md x.gguf").draft.model == "org/small-GGUF:x.gguf"
    )


def test_heads_that_draft():
    launch = read("llama-server -m a.gguf --spec-type draft-mtp,ngram-mod --spec-draft-n-max 3")
    assert launch.settings.drafting == Drafting(kind="mtp", n_max=3)
    assert launch.draft is None
    launch = read("llama-server -m a.gguf -md head.gguf --spec-type draft-eagle3")
    assert (launch.settings.drafting.kind, launch.draft.method) == ("eagle3", "eagle3")
    assert read("llama-server -m a.gguf --spec-type ngram-simple").settings.drafting is None
    notes = read("llama-server -m a.gguf --spec-type draft-dflash").notes
    assert notes == ("--spec-type dflash: the draft model is not named and is not counted",)


def test_files_beside_the_model_are_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("willfit.launch.llama_settings.tensor_bytes", {"l.gguf": 70, "p.gguf": 900}.get)
    launch = read("llama-server -m a.gguf --lora l.gguf,m.gguf --mmproj p.gguf")
    assert (launch.settings.lora, launch.settings.lora_bytes) == (("l.gguf", "m.gguf"), 70)
    assert launch.settings.mmproj_bytes == 900
    assert launch.notes == ("adapters that are not here are not counted: m.gguf",)


def test_tensor_bytes_of_a_file(tmp_path):
    assert tensor_bytes(str(tmp_path / "none.gguf")) is None
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    assert tensor_bytes(str(broken)) is None


def test_a_projector_of_a_repository_is_said():
    note = "if the repository has a projector (mmproj), it is loaded too and is not counted; --no-mmproj leaves it out"
    assert note in read("llama-server -hf org/a:Q8_0").notes
    assert read("llama-server -hf org/a:Q8_0 --no-mmproj").notes == ()
    assert note not in read("llama-server -m a.gguf").notes


# Presets


def test_flags_that_stand_for_a_model():
    launch = read("llama-server --gpt-oss-20b-default -c 8192")
    assert launch.model == "ggml-org/gpt-oss-20b-GGUF:gpt-oss-20b-mxfp4.gguf"
    assert launch.settings == Settings(n_ctx=8192, n_parallel=2, n_batch=32768, n_ubatch=2048)
    launch = read("llama-server --fim-qwen-7b-spec")
    assert launch.settings == Settings(n_ctx=0, n_batch=1024, n_ubatch=1024, drafting=Drafting())
    assert launch.draft.model == "ggml-org/Qwen2.5-Coder-0.5B-Q8_0-GGUF:qwen2.5-coder-0.5b-q8_0.gguf"


PRESET = """
version = 1
[*]
c = 8192   ; for all
n-gpu-layers = 8
jinja = true
[mine]
model = /models/a.gguf
mmap = 0
no-kv-offload = true
LLAMA_ARG_CACHE_RAM = 0
c = 4096 # its own
"""


def test_presets_of_a_router(tmp_path):
    file = tmp_path / "models.ini"
    file.write_text(PRESET)
    launch = read(f"llama-server --models-preset {file} -ngl 99", "b9000")
    assert launch.model == "/models/a.gguf"
    assert launch.settings == Settings(
        version="b9000", n_ctx=4096, n_gpu_layers=99, mmap=False, kv_offload=False, cache_ram_mib=0
    )
    file.write_text(PRESET + "[other]\nhf = a/b\n")
    with pytest.raises(BadInput, match=re.escape("presets are of 2 models (mine, other)")):
        read(f"llama-server --models-preset {file}")
    file.write_text("[a]\nmodel = b\nctx-sice = 4\n")
    with pytest.raises(BadInput, match=re.escape("did you mean --ctx-size?")):
        read(f"llama-server --models-preset {file}")


# Programs with rules of their own


def test_perplexity_takes_as_many_chunks_as_fit():
    assert settings("llama-perplexity -m a.gguf -f x") == Settings(
        program="api", n_ctx=2048, n_parallel=4, n_batch=2048
    )
    assert settings("llama-perplexity -m a.gguf -f x -c 4096") == Settings(
        program="api", n_ctx=4096, n_parallel=1, n_batch=2048
    )
    one = settings("llama-perplexity -m a.gguf --hellaswag -c 512")
    assert (one.n_ctx, one.n_parallel, one.kv_unified) == (2048, 4, True)


def test_embedding_takes_whole_texts_at_once():
    one = settings("llama-embedding -m a.gguf -c 4096")
    assert (one.n_batch, one.n_ubatch, one.n_parallel, one.kv_unified) == (4096, 4096, 256, True)
    assert one.embeddings
    assert settings("llama-embedding -m a.gguf -c 4096", "b6000").n_parallel is None
    assert settings("llama-embedding -m a.gguf --attention causal").n_ubatch is None


def test_batched_bench_has_its_longest_list():
    assert settings("llama-batched-bench -m a.gguf -c 8192 -npp 128 -ntg 64 -npl 1,8,4").n_parallel == 8


# ik_llama.cpp


def test_the_fork_shows_by_its_flags_or_its_path():
    line = "-m a.gguf -mla 3 -fa -amb 512 -fmoe -rtr -ctk q8_KV -ot exps=CPU"
    one = settings(f"llama-server {line}")
    assert one == Settings(
        fork="ik_llama.cpp", flash_attn="on", cache_type_k="q8_kv", override_tensor=(("exps", "CPU"),), mla=3,
        fused_moe=True, max_attention_mib=512, run_time_repack=True,
    )  # fmt: skip
    assert settings("./ik_llama.cpp/build/bin/llama-server -m a.gguf").fork == "ik_llama.cpp"
    assert settings("llama-sweep-bench -m a.gguf").fork == "ik_llama.cpp"
    assert settings("llama-server -m a.gguf -no-fmoe").fused_moe is False
    assert settings("llama-server -m a.gguf").fork == "llama.cpp"
    with pytest.raises(BadInput, match="has no flag --fit-target"):
        read("./ik_llama.cpp/llama-server -m a.gguf --fit-target 4")


# Everything that is not counted


def test_what_is_not_counted_is_said():
    line = (
        "--control-vector v.gguf --override-kv a=int:1 --mtmd-batch-max-tokens 99 --temp 1 --port 80 --jinja"
    )
    assert read(f"llama-server -m a.gguf {line}").notes == (
        "control vectors (--control-vector) are not counted",
        "overridden metadata (--override-kv) are not counted",
        "batches of images (--mtmd-batch-max-tokens) are not counted",
    )
    notes = read("GGML_CUDA_ENABLE_UNIFIED_MEMORY=1 llama-server -m a.gguf -dev CUDA0,RPC0").notes
    assert [note.split()[0] for note in notes] == ["the", "memory"]


def test_devices_that_variables_hide():
    assert read("CUDA_VISIBLE_DEVICES=0,1 llama-server -m a.gguf").devices == 2
    assert read("GGML_VK_VISIBLE_DEVICES=0 llama-server -m a.gguf").devices == 1
    assert settings("CUDA_VISIBLE_DEVICES=-1 llama-server -m a.gguf").devices == ()
    assert parse_command(["CUDA_VISIBLE_DEVICES=", "llama-server", "-m", "a.gguf"]).settings.devices == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("llama-server", "it starts as a router"),
        ("llama-cli -ngl 4", "no model is named"),
        ("llama-server -dr gemma3", "models of Docker Hub are not read (gemma3)"),
        ("llama-server --help", "nothing is loaded"),
        ("llama-server -m a.gguf --ctx-sice 4", "has no flag --ctx-sice (did you mean --ctx-size?)"),
        ("llama-server -m a.gguf --ctx-size=4", "has no flag --ctx-size=4"),
        ("llama-server -m a.gguf -c4096", "has no flag -c4096"),
        ("llama-server -m a.gguf extra", "'extra' belongs to no flag"),
        ("llama-server -m a.gguf -c", "--ctx-size needs a value"),
        ("llama-server -m a.gguf -c long", "--ctx-size is 'long', expected a whole number"),
        ("llama-server -m a.gguf -c -5", "--ctx-size is -5, expected at least 0"),
        ("llama-server -m a.gguf -c 9999999999", "expected a whole number"),
        ("llama-server -m a.gguf -np 0", "--parallel is 0"),
        ("llama-server -m a.gguf -ctk Q8_0", "there is no --cache-type-k Q8_0"),
        ("llama-server -m a.gguf -ctk q6_0", "there is no --cache-type-k q6_0"),
        ("llama-server -m a.gguf -fa maybe", "--flash-attn is 'maybe'"),
        ("llama-server -m a.gguf -sm graph", "there is no --split-mode graph"),
        ("llama-server -m a.gguf -ts a,b", "--tensor-split is 'a,b'"),
        ("llama-server -m a.gguf -dev GPU0", "--device names no device GPU0"),
        ("llama-server -m a.gguf -ot exps", "is no PATTERN=BUFFER"),
        ("llama-server -m a.gguf -ot exps=cpu", "names no buffer cpu"),
        ("llama-server -m a.gguf -fit maybe", "--fit is 'maybe'"),
        ("llama-server -m a.gguf -lm fast", "there is no --load-mode fast"),
        ("llama-server -m a.gguf --spec-type magic", "there is no --spec-type magic"),
        ("LLAMA_ARG_CTX_SIZE=long llama-server -m a.gguf", "LLAMA_ARG_CTX_SIZE is 'long'"),
        ("LLAMA_ARG_KV_UNIFIED=maybe llama-server -m a.gguf", "LLAMA_ARG_KV_UNIFIED is 'maybe'"),
        ("llama-cli -m a.gguf --slots", "has no flag --slots"),
        ("llama-run smollm:135m", "models of ollama are not read"),
        ("llama-server --models-preset /nowhere.ini", "cannot read the presets"),
    ],
)  # fmt: skip
def test_what_the_programs_would_refuse(line, message):
    with pytest.raises(BadInput) as caught:
        read(line)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "name", ["llamacpp", "llamabench", "ik_llama", "ik_llamabench", "llama_cpp_python", "koboldcpp"]
)
def test_tables_are_whole(name):
    table = flag_table(f"{name}_flags.txt")
    for flag in {*table.flags.values(), *table.negatives.values()}:
        assert flag.takes in ("switch", "toggle", "value", "each", "pair", "values", "any", "optional")
        assert {flag.since, flag.until} <= {"", *table.versions}
        assert (flag.kind == "-") == (flag.takes == "switch")
        assert not (flag.quiet and flag.about)
    assert not table.flags.keys() & table.negatives.keys()
