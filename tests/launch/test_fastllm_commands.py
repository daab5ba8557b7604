"""Commands that start fastLLM."""

import shlex

import pytest

from willfit.engines import fastllm
from willfit.errors import BadInput
from willfit.launch.table import parse_command


def read(line, version=None):
    return parse_command(shlex.split(line), version)


def test_a_server_with_its_settings():
    launch = read(
        "ftllm serve org/moe --model_name x --kv_cache_dtype fp8_e4m3 --device cuda --moe_device \"{'cuda':1, "
        "'numa':19}\" --moe_device_layers 12 --dtype fp8_e4m3 --moe_dtype int4g -t 24 --port 8080 --max_batch 8 "
        "--kv_cache_limit 10g --tokens 65536 --page_size 64 --gpu_mem_ratio 0.8 --chunked_prefill_size 2048 "
        "--max_context_length 131072 --cuda_embedding --cuda_se false"
    )
    assert (launch.engine, launch.model, launch.notes) == ("fastllm", "org/moe", ())
    assert launch.settings == fastllm.Settings(
        context=131_072, device=(("cuda", 1),), moe_device=(("cuda", 1), ("numa", 19)), moe_device_layers=12,
        dtype="fp8_e4m3", moe_dtype="int4g", kv_cache_dtype="fp8_e4m3", tokens=65_536, page_size=64,
        gpu_mem_ratio=0.8, kv_cache_limit=10**10, max_batch=8, chunked_prefill_size=2048, cuda_embedding=True,
        cuda_shared_expert=False,
    )  # fmt: skip


@pytest.mark.parametrize("start", ["ftllm run org/m", "ftllm webui -p org/m", "nohup ftllm chat org/m"])
def test_other_commands(start):
    launch = read(start)
    assert (launch.model, launch.settings) == ("org/m", fastllm.Settings())


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("cudapp=2", (("cuda:0", 1), ("cuda:1", 1))),
        ("cudapp=1:3", (("cuda:0", 1), ("cuda:1", 3))),
        ("cudapp=0,2", (("cuda:0", 1), ("cuda:2", 1))),
        ("multicuda:0,1", (("multicuda:0,1", 1),)),
        ("\"['cuda:0','cpu']\"", (("cuda:0", 1), ("cpu", 1))),
    ],
)
def test_devices(text, shares):
    assert read(f"ftllm run org/m --device {text}").settings.device == shares


@pytest.mark.parametrize(("text", "cards"), [("2", 2), ("cuda:0,1,2", 3), ("0,1", 2), ("false", 0)])
def test_cards_that_divide_matrices(text, cards):
    assert read(f"ftllm run org/m --tp {text}").settings.tp == cards


def test_flags_of_other_versions_are_said():
    launch = read("ftllm serve org/m --tp 2", "0.1.5.1")
    assert launch.settings.version == "0.1.5.1"
    assert any("--tp" in note for note in launch.notes)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ftllm serve", "no model is named"),
        ("ftllm serve a b", "belongs to no flag"),
        ("ftllm serve m --devise cuda", "did you mean --device"),
        ("ftllm serve m --device {1", "no map of devices"),
        ("ftllm serve m --device {'cuda':0}", "no map of devices"),
        ("ftllm serve m --device cudapp=0", "names no card"),
        ("ftllm serve m --dtype int3", "no dtype int3"),
        ("ftllm serve m --kv_cache_limit much", "expected a size"),
        ("ftllm serve m --kv_cache_dtype int8", "there is no --kv_cache_dtype int8"),
        ("ftllm serve m --tp auto", "depends on the machine"),
        ("ftllm serve m --gpu_mem_ratio 2", "--gpu_mem_ratio is 2"),
    ],
)
def test_what_is_wrong_is_said(line, message):
    with pytest.raises(BadInput) as caught:
        read(line)
    assert message in f"{caught.value} {caught.value.hint}"
