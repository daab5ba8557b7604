"""Of every kind of device the fewest that run a model, as asking about each one says."""

from __future__ import annotations

import json

import pytest

from willfit.asking import find_subject
from willfit.engines.base import Machine, Question
from willfit.engines.table import ask
from willfit.hardware.table import all_devices, every_size, find_device
from willfit.planning.search.layouts import COUNTS, together
from willfit.planning.search.one_by_one import SIZE_BLIND
from willfit.planning.which import which_devices
from willfit.surfaces.cli.app import main


@pytest.mark.parametrize(
    ("model", "format_name", "engine", "question"),
    [
        ("Qwen/Qwen3-32B", "awq", "vllm", Question(32_768, 8)),
        ("deepseek-ai/DeepSeek-V3", None, "vllm", Question(65_536)),
        ("meta-llama/Llama-3.3-70B-Instruct", None, "sglang", Question(16_384, 4)),
        ("Qwen/Qwen3-4B", "q4_k_m", "llama.cpp", Question(16_384)),
    ],
    ids=lambda value: str(value),
)
def test_the_fewest_are_those_that_an_estimate_says(model, format_name, engine, question):
    subject, _ = find_subject(model, format_name, offline=True)
    devices = [
        find_device(name) for name in ("rtx4090", "l40s", "a100-80g", "h200", "mi300x", "rtx3060-12g", "t4")
    ]
    found = which_devices(subject, question, engine, devices)
    assert {one.device for one in found} == set(devices)
    for one in found:
        said = {
            count: ask(engine, subject, Machine((one.device,) * count), question).verdict
            for count in COUNTS
            if count <= together(one.device)
        }
        surely = [count for count, verdict in said.items() if verdict == "fits"]
        maybe = [count for count, verdict in said.items() if verdict == "tight"]
        expected = (surely or maybe or [None])[0]
        assert (one.way and one.way.count) == expected, (one.device.name, said)
    memory = [one.way.count * one.device.usable_bytes for one in found if one.way]
    assert memory == sorted(memory)


@pytest.mark.parametrize("engine", sorted(SIZE_BLIND))
def test_engines_that_do_not_look_at_a_device_s_size_do_not(engine):
    subject, _ = find_subject("Qwen/Qwen3-0.6B", "q4_k_m" if engine == "llama.cpp" else None, offline=True)
    terms = {}
    for device in all_devices():
        key = (
            device.vendor,
            device.arch,
            device.compute_capability,
            device.interconnect,
            device.unified_memory,
        )
        answer = ask(engine, subject, Machine((device,)), Question(4096))
        assert terms.setdefault(key, answer.devices[0].terms) == answer.devices[0].terms, device.name


def test_macs_come_in_every_size():
    sizes = [device.marketing_bytes >> 30 for device in every_size(find_device("m3-max-64g"))]
    assert sizes == [48, 64, 128]
    assert all(together(device) == 1 for device in every_size(find_device("m3-max-64g")))
    assert every_size(find_device("h100")) == (find_device("h100"),)


def test_the_command_line_answers(capsys):
    words = ["which-gpu", "Qwen/Qwen3-8B", "--context", "32k", "--among", "rtx 40", "--offline"]
    assert main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert all("RTX" in one["device"] and "40" in one["device"] for one in printed)
    assert main([*words, "--all"]) == 0
    assert "RTX 4060 Ti 16GB" in capsys.readouterr().out
    assert main(["which-gpu", "deepseek-ai/DeepSeek-V3", "--among", "rtx 4090", "--offline", "--all"]) == 1
    assert "lack" in capsys.readouterr().out
