"""`llama-bench ...`: several tests in one command, of which the largest is estimated."""

import pytest

from willfit.engines.llama_cpp.settings import Settings
from willfit.errors import BadInput
from willfit.launch.table import parse_command


def read(line, version=None):
    launch = parse_command(line.split(), version)
    assert (launch.engine, launch.settings.program) == ("llama.cpp", "bench")
    return launch


def test_a_bare_command():
    launch = read("llama-bench -m a.gguf")
    # The prompt of 512 tokens is the longest test.
    assert launch.settings == Settings(
        program="bench", n_ctx=512, n_batch=2048, n_gpu_layers="all", fit=False
    )
    assert (launch.model, launch.notes) == ("a.gguf", ())


@pytest.mark.parametrize(
    ("flags", "tokens"),
    [
        ("-p 512 -n 128", 512),
        ("-p 0 -n 64", 64),
        ("-p 512,4096 -n 0", 4096),
        ("-p 512 -p 1024", 1024),
        ("-p 128 -pg 4096,1024 -pg 64,64", 5120),
        ("-p 512 -d 0,8192", 8704),
        ("-p 0 -n 16 -d 0-4096+1024", 4112),
        ("-n 0 -p 128-2048*2", 2048),
        ("-n 0 -p 128-2000*2", 1024),
    ],
)
def test_the_longest_test_sizes_the_context(flags, tokens):
    assert read(f"llama-bench -m a.gguf {flags}").settings.n_ctx == tokens


@pytest.mark.parametrize(
    ("flags", "fields"),
    [
        ("-b 64,4096", {"n_batch": 4096}),
        ("-ub 128,512,256", {"n_ubatch": 512}),
        ("-ngl 20,40,10", {"n_gpu_layers": 40}),
        ("-ngl -1,20", {"n_gpu_layers": "all"}),
        ("-ncmoe 4-12+4", {"n_cpu_moe": 4}),
        ("-ctk q4_0,f16,q8_0 -ctv q8_0", {"cache_type_k": "f16", "cache_type_v": "q8_0"}),
        ("-fa 0,1", {"flash_attn": "off"}),
        ("-fa 1", {"flash_attn": "on"}),
        ("-fa auto", {"flash_attn": "auto"}),
        ("-nkvo 0,1", {}),
        ("-nkvo 1", {"kv_offload": False}),
        ("-mmp 0", {"mmap": False}),
        ("-lm none", {"mmap": False}),
        ("-embd 1", {"embeddings": True}),
        ("-sm row,layer", {"split_mode": "row"}),
        ("-ts 3;1", {"tensor_split": (3.0, 1.0)}),
        ("-ts 1/1,3/1", {"tensor_split": (1.0, 1.0)}),
        ("-dev CUDA0/CUDA1", {"devices": (0, 1), "backend": "cuda"}),
        ("-ot a=CPU;b=CUDA0", {"override_tensor": (("a", "CPU"), ("b", "CUDA0"))}),
        ("-t 4,8", {"n_threads": 8}),
        ("-fitt 512", {"fit": True, "n_gpu_layers": "auto", "fit_target_mib": (512,)}),
    ],
)
def test_of_several_values_the_one_that_takes_most(flags, fields):
    usual = {"program": "bench", "n_ctx": 512, "n_batch": 2048, "n_gpu_layers": "all", "fit": False}
    assert read(f"llama-bench -m a.gguf {flags}").settings == Settings(**(usual | fields))


def test_several_tests_are_said():
    notes = read("llama-bench -m a.gguf -p 512,1024 -ngl 99 -fa 0,1 -ot a=CPU,b=CPU").notes
    assert notes == (
        "several tests: the largest is estimated (of --n-prompt, --override-tensor, --flash-attn)",
    )
    assert read("llama-bench -m a.gguf -p 512 -d 4096 -fa 1,1").notes == ()


def test_the_fork():
    one = read("llama-bench -m a.gguf -mla 3 -fmoe 1 -amb 512 -rtr 1").settings
    assert (one.fork, one.mla, one.fused_moe, one.max_attention_mib, one.run_time_repack) == (
        "ik_llama.cpp", 3, True, 512, True,
    )  # fmt: skip
    assert read("llama-bench -m a.gguf -ctk q8_KV -fmoe 1").settings.cache_type_k == "q8_kv"


def test_how_a_model_is_named():
    assert read("llama-bench -hf org/a:Q8_0").model == "org/a:Q8_0"
    assert read("llama bench -m a.gguf").model == "a.gguf"
    assert read("llama-bench -m a.gguf -mmp 0").notes == ("llama.cpp b11549 has no -mmp (b2099 to b10454)",)
    assert read("llama-bench -m a.gguf -mmp 0", "b6000").notes == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("llama-bench", "no model is named"),
        ("llama-bench -m a.gguf,b.gguf", "2 models are named"),
        ("llama-bench -m a.gguf -m b.gguf", "2 models are named"),
        ("llama-bench -m a.gguf -p 0 -n 0", "no test is left"),
        ("llama-bench -m a.gguf -p many", "--n-prompt is 'many'"),
        ("llama-bench -m a.gguf -p 1-9*1", "which does not end"),
        ("llama-bench -m a.gguf -p 1-99999999", "which does not end"),
        ("llama-bench -m a.gguf -pg 4", "-pg is '4'"),
        ("llama-bench -m a.gguf -fa maybe", "--flash-attn is 'maybe'"),
        ("llama-bench -m a.gguf -nkvo 2", "--no-kv-offload is '2'"),
        ("llama-bench -m a.gguf -lm fast", "there is no --load-mode fast"),
        ("llama-bench -m a.gguf -c 4096", "has no flag -c"),
        ("llama-bench --help", "nothing is loaded"),
    ],
)
def test_what_it_would_refuse(line, message):
    with pytest.raises(BadInput) as caught:
        read(line)
    assert message in str(caught.value)
