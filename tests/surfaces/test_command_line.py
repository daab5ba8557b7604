"""The program as a user types it: exit status, what is printed where, and one line for whatever is wrong."""

import json
import re
from argparse import Namespace

import pytest
from program import in_terminal, willfit

from willfit.estimate import DeviceEstimate, Estimate, exact
from willfit.surfaces.cli.app import COMMANDS, _module
from willfit.surfaces.cli.commands.estimate import _show
from willfit.surfaces.cli.parsing import Parser
from willfit.surfaces.cli.words import SWITCHES, arranged
from willfit.surfaces.report.estimate import reason

MODEL = "Qwen/Qwen3-8B"  # bundled: 16.4 GB of bf16 weights
ESCAPE = "\x1b"
GIB = 2**30


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ((MODEL, "--gpu", "rtx4090"), 0),
        ((MODEL, "--gpu", "rtx4090", "--format", "fp8", "--context", "32k"), 0),
        ((MODEL, "--gpu", "rtx4090", "--context", "32k", "--users", "4"), 1),
        ((MODEL, "--gpu", "12GiB"), 1),
        ((MODEL, "--gpu", "12GiB", "--format", "awq"), 0),
        (("--gpu", "rtx4090", "vllm", "serve", MODEL, "--max-model-len", "8192"), 0),
        (("--gpu", "2xrtx4090", "vllm", "serve", MODEL, "-tp", "2", "--max-model-len", "40960"), 0),
        (("--gpu", "2xrtx4090", "vllm", "serve", MODEL, "-tp", "2", "--max-model-len", "131072"), 1),
        (("--gpu", "4xrtx4090", "vllm", "serve", MODEL, "--tensor-parallel-size", "3"), 1),
        (("--gpu", "12GiB", "python", "-m", "vllm.entrypoints.openai.api_server", "--model", MODEL), 1),
        ((MODEL, "--gpu", "12GiB", "--engine", "minimum"), 1),
        ((MODEL, "--gpu", "24GiB", "--engine", "minimum"), 0),
    ],
)
def test_exit_status_says_whether_it_fits(words, status):
    done = willfit(*words)
    assert (done.returncode, done.stderr) == (status, "")
    said = "does not fit" in done.stdout or "would not start" in done.stdout
    assert said == (status == 1)
    assert MODEL in done.stdout


def test_a_processor_alone_is_named_and_repacks_as_its_kind_does():
    words = (
        MODEL,
        "--gpu",
        "cpu",
        "--host-ram",
        "64GiB",
        "--engine",
        "llama.cpp",
        "--format",
        "q8_0",
        "--offline",
    )
    done = willfit(*words, "--cpu", "x86")
    assert (done.returncode, done.stderr) == (0, "")
    assert " on CPU, " in done.stdout
    assert "repacked" not in done.stdout
    assert "repacked weights" in willfit(*words, "--cpu", "graviton4").stdout


@pytest.mark.parametrize(
    "words",
    [
        ("Qwen/Qwen3-8B:Q4_K_M", "--gpu", "cpu", "--host-ram", "64G"),
        ("--gpu", "cpu", "--host-ram", "64G", "llama-cli", "-m", "Qwen3-8B-Q4_K_M.gguf", "-c", "4096"),
        ("--gpu", "cpu", "--host-ram", "64G", "ollama", "run", "qwen3:8b"),
        (
            "--gpu",
            "rtx4090",
            "--host-ram",
            "64G",
            "llama-cli",
            "-m",
            "Qwen3-8B-Q4_K_M.gguf",
            "--device",
            "none",
        ),
    ],
)
def test_a_processor_alone_is_answered(words):
    done = willfit(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert " on CPU, " in done.stdout
    assert "RAM: " in done.stdout
    assert "Room for " in done.stdout


def test_the_place_that_decides_is_named():
    def said(host_bytes, *devices):
        host = DeviceEstimate("host", 0, 8 * GIB, (exact("weights", host_bytes),))
        return reason(Estimate("m", "e", "1", "serve", devices, host)).plain.partition(";")[0]

    small = DeviceEstimate("GeForce RTX 3060", 0, 12 * GIB, (exact("weights", 11 * GIB),))
    large = DeviceEstimate("GeForce RTX 4090", 1, 24 * GIB, (exact("weights", 20 * GIB),))
    assert said(0, large) == "20.00 GiB of 24.00 GiB"
    assert said(0, small, large) == "RTX 3060: 11.00 GiB of 12.00 GiB"
    assert said(7.9 * GIB, small, large) == "RTX 3060: 11.00 GiB of 12.00 GiB"
    assert said(9 * GIB, small, large) == "RAM: 9.00 GiB of 8.00 GiB"
    assert said(9 * GIB) == "RAM: 9.00 GiB of 8.00 GiB"


def test_devices_of_one_name_are_told_apart_where_they_differ():
    words = ("llama-server", "-m", "Qwen3-32B-Q4_K_M.gguf", "-c", "8192")
    shown = willfit("--gpu", "2x3090", *words).stdout
    assert "GeForce RTX 3090 #0 " in shown
    assert "GeForce RTX 3090 #1 " in shown
    assert "#" not in willfit("--gpu", "rtx3090", *words).stdout


def test_what_cannot_be_judged_passes_for_nothing(capsys):
    blind = DeviceEstimate("GPU", 0, None, (exact("weights", 5),))
    answer = Estimate("m", "e", "1", "serve", (blind,), DeviceEstimate("host", 0, None, ()))
    assert _show(answer, Namespace(json=True)) == 2
    assert json.loads(capsys.readouterr().out)["verdict"] == "unknown"


WRONG = {
    "a model that is not there": (("no-such/model-7b", "--gpu", "l4", "--offline"), "no-such/model-7b"),
    "a misspelt model": (("Qwen/Qwen3-8", "--gpu", "l4", "--offline"), "Qwen/Qwen3-8B"),
    "an empty model": (("", "--gpu", "l4"), "no model"),
    "a blank model": (("  ", "--gpu", "l4"), "no model"),
    "no model": (("--gpu", "l4"), "no model"),
    "a device file": (("/dev/zero", "--gpu", "l4"), "/dev/zero"),
    "a directory without a model": (("/dev", "--gpu", "l4"), "/dev"),
    "a path that is not there": (("./nowhere/config.json", "--gpu", "l4"), "nowhere"),
    "an unusable name": (("模型/ｘ", "--gpu", "l4"), "模型/ｘ"),
    "a name that is not UTF-8": ((b"\xff\xfe/x", "--gpu", "l4"), "udcff"),
    "a name with escapes": (("./a\x1b[31m", "--gpu", "l4"), r"a\x1b[31m"),
    "a very long name": (("x" * 100_000, "--gpu", "l4"), "model"),
    "an unknown device": ((MODEL, "--gpu", "rtx9999"), "rtx9999"),
    "an empty device": ((MODEL, "--gpu="), "--gpu is empty"),
    "no devices": ((MODEL, "--gpu", "0xh100"), "0xh100"),
    "a million devices": ((MODEL, "--gpu", "1000000xh100"), "1000000"),
    "a device of nothing": ((MODEL, "--gpu", "0GiB"), "0GiB"),
    "an endless device": ((MODEL, "--gpu", "9" * 400 + "GiB"), "size"),
    "a very long device": ((MODEL, "--gpu", "h100" * 3000), "unknown device"),
    "a device with a picture": ((MODEL, "--gpu", "🎮"), "🎮"),
    "an unknown engine": ((MODEL, "--gpu", "l4", "--engine", "vlm"), "vllm"),
    "an engine near another": ((MODEL, "--gpu", "l4", "--engine", "lama.cpp"), "did you mean llama.cpp or"),
    "a command that is not there": (("engines", "--offline"), "willfit --help for commands"),
    "a quantization in part": ((f"{MODEL}:q4", "--gpu", "l4"), "did you mean Q4_K_M,"),
    "a format by its bits": (
        (MODEL, "--gpu", "l4", "-f", "4bit"),
        "did you mean nf4, awq, gptq, mlx4, q4_k_m",
    ),
    "an empty engine": ((MODEL, "--gpu", "l4", "--engine", ""), "--engine is empty"),
    "an unreadable version": ((MODEL, "--gpu", "l4", "--engine-version", "newest"), "newest"),
    "an empty version": ((MODEL, "--gpu", "l4", "--engine-version="), "--engine-version is empty"),
    "an unknown format": ((MODEL, "--gpu", "l4", "--format", "q9_z"), "q9_z"),
    "an unknown cache dtype": ((MODEL, "--gpu", "l4", "--kv-dtype", "fp7"), "fp7"),
    "no context": ((MODEL, "--gpu", "l4", "--context", "0"), "'0'"),
    "a negative context": ((MODEL, "--gpu", "l4", "--context", "-5"), "'-5'"),
    "a context in words": ((MODEL, "--gpu", "l4", "--context", "long"), "'long'"),
    "half a token": ((MODEL, "--gpu", "l4", "--context", "1.5"), "'1.5'"),
    "an endless context": ((MODEL, "--gpu", "l4", "--context", "9" * 400), "tokens"),
    "a missing context": ((MODEL, "--gpu", "l4", "--context"), "--context needs a value"),
    "an option as a value": ((MODEL, "--gpu", "l4", "--context", "--json"), "--context needs a value"),
    "no users": ((MODEL, "--gpu", "l4", "--users", "0"), "--users is 0"),
    "minus one user": ((MODEL, "--gpu", "l4", "--users", "-1"), "--users is -1"),
    "users in words": ((MODEL, "--gpu", "l4", "--users", "many"), "'many'"),
    "endless users": ((MODEL, "--gpu", "l4", "--users", "9" * 400), "--users"),
    "more digits than Python reads": ((MODEL, "--gpu", "l4", "--users", "9" * 9000), "--users"),
    "unreadable RAM": ((MODEL, "--gpu", "l4", "--host-ram", "lots"), "lots"),
    "a misspelt option": ((MODEL, "--gpu", "l4", "--contxt", "4k"), "did you mean --context?"),
    "an abbreviated option": ((MODEL, "--gpu", "l4", "--cont", "4k"), "--cont"),
    "an unknown short option": ((MODEL, "-z"), "-z"),
    "a switch with a value": ((MODEL, "--gpu", "l4", "--json=yes"), "--json takes no value"),
    "two models": ((MODEL, "Qwen/Qwen3-4B", "--gpu", "l4"), "Qwen/Qwen3-4B"),
    "a launch command without devices' count": (
        ("--gpu", "l4", "vllm", "serve", MODEL, "-tp", "2"),
        "2 ranks",
    ),
    "a misspelt flag of vLLM": (
        ("--gpu", "l4", "vllm", "serve", MODEL, "--tensor-paralel-size", "2"),
        "did you mean --tensor-parallel-size?",
    ),
    "our option behind the command": (
        ("--gpu", "l4", "vllm", "serve", MODEL, "--users", "4"),
        "options of willfit stand before vllm",
    ),
    "our devices behind the command": (
        ("vllm", "serve", MODEL, "--gpu", "l4"),
        "--gpu is read as an option of the command",
    ),
    "fewer devices than the command wants": (
        ("--gpu", "2xl4", "CUDA_VISIBLE_DEVICES=0", "nohup", "vllm", "serve", MODEL, "-tp", "2"),
        "2 ranks",
    ),
    "an option that the command has itself": (
        ("--gpu", "l4", "--context", "4k", "vllm", "serve", MODEL),
        "--context does not go with a launch command",
    ),
    "a command that starts nothing": (("--gpu", "l4", "vllm", "chat"), "vllm chat"),
    "half a launch command": (("--gpu", "l4", "vllm"), "vllm serve"),
    "a launch command without a model": (("--gpu", "l4", "vllm", "serve"), "no model"),
    "a misspelt program": (("--gpu", "l4", "llama-serve", "-m", "a.gguf"), "did you mean llama-server"),
    "a script": (("--gpu", "l4", "python", "run.py"), "ask willfit MODEL --engine transformers"),
    "a launcher that is not known": (("--gpu", "l4", "python", "train.py"), "python train.py"),
    "inspecting nothing": (("inspect",), "MODEL"),
    "inspecting two": (("inspect", MODEL, MODEL), "too many"),
    "inspecting what is not there": (("inspect", "no-such/model", "--offline"), "no-such/model"),
    "an unlisted device": (("gpus", "voodoo2"), "voodoo2"),
    "an unlisted processor": ((MODEL, "--gpu", "l4", "--cpu", "pentium"), "unknown processor 'pentium'"),
    "an unlisted model": (("models", "no-such"), "no-such"),
    "no cases": (("validate",), "CASES.jsonl"),
    "cases that are not there": (("validate", "/nowhere.jsonl"), "/nowhere.jsonl"),
    "cases that are a directory": (("validate", "/"), "cannot read /"),
}


@pytest.mark.parametrize(("words", "part"), WRONG.values(), ids=WRONG)
def test_wrong_input_ends_in_one_line(words, part):
    done = willfit(*words)
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines), done.stdout) == (2, 1, "")
    assert lines[0].startswith("willfit: ")
    assert part in lines[0]
    assert len(lines[0]) < 1000
    assert lines[0].isprintable()


@pytest.mark.parametrize(
    "words",
    [
        (MODEL, "--gpu", "l4", "-u", "2", "-c", "4k", "--json"),
        ("--json", "--users=2", "--gpu=l4", "--context=4096", MODEL),
        ("-gl4", "-u2", MODEL, "--json", "-c4k"),
        ("estimate", "--gpu", "l4", "--users", "2", "--json", "--context", "4096", MODEL),
        ("--gpu", "l4", "estimate", MODEL, "--json", "-u", "2", "-c", "4,096"),
    ],
)
def test_options_stand_on_either_side_of_the_model(words):
    same = willfit(MODEL, "--gpu", "l4", "--users", "2", "--context", "4096", "--json").stdout
    assert json.loads(same)["devices"][0]["name"] == "L4"
    assert willfit(*words).stdout == same


@pytest.mark.parametrize(
    ("written", "usual"),
    [
        ((f"{MODEL}:q4km",), (f"{MODEL}:Q4_K_M",)),
        ((f"{MODEL}:Q4_KM",), (f"{MODEL}:Q4_K_M",)),
        ((MODEL, "-f", "iq4xs"), (MODEL, "-f", "IQ4_XS")),
        ((MODEL, "-e", "LlamaCpp"), (MODEL, "-e", "llama.cpp")),
        ((MODEL, "-e", "llama-cpp"), (MODEL, "-e", "llama.cpp")),
        ((MODEL, "-e", "mlx-lm", "-f", "mlx4"), (MODEL, "-e", "mlx", "-f", "mlx4")),
    ],
)
def test_names_may_be_written_otherwise(written, usual):
    same = willfit(*usual, "--gpu", "l4", "--json")
    assert same.returncode in (0, 1)
    found = json.loads(willfit(*written, "--gpu", "l4", "--json").stdout)
    expected = json.loads(same.stdout)
    assert (found["devices"], found["engine"]) == (expected["devices"], expected["engine"])


def test_a_launch_command_and_the_same_question_agree():
    asked = json.loads(willfit(MODEL, "--gpu", "2xl40s", "--context", "16k", "--users", "3", "--json").stdout)
    launched = json.loads(
        willfit(
            *("--users", "3", "--gpu", "2xl40s", "--json"),
            *("vllm", "serve", MODEL, "--max-model-len", "16K", "-tp", "2"),
        ).stdout
    )
    assert asked == launched


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["org/model"], ("estimate", ["org/model"], [])),
        (["--gpu", "x", "org/model"], ("estimate", ["--gpu", "x", "org/model"], [])),
        (["--json", "inspect", "m"], ("inspect", ["--json", "m"], [])),
        (["--gpu", "inspect", "m"], ("estimate", ["--gpu", "inspect", "m"], [])),
        (["-g", "x", "vllm", "serve", "m", "-g"], ("estimate", ["-g", "x"], ["vllm", "serve", "m", "-g"])),
        (["estimate", "vllm", "serve", "m"], ("estimate", [], ["vllm", "serve", "m"])),
        (["--gpu=x", "--", "my-launcher", "m"], ("estimate", ["--gpu=x"], ["my-launcher", "m"])),
        (["--gpu=x", "--", "inspect"], ("estimate", ["--gpu=x", "inspect"], [])),
        (["/opt/bin/vllm", "serve", "m"], ("estimate", [], ["/opt/bin/vllm", "serve", "m"])),
        (["-gx", "python3", "-m", "a"], ("estimate", ["-gx"], ["python3", "-m", "a"])),
        (["--gpu"], ("estimate", ["--gpu"], [])),
        ([], ("estimate", [], [])),
    ],
)
def test_words_are_told_apart(words, expected):
    assert arranged(words, COMMANDS) == expected


def test_a_directory_called_vllm_is_a_model(tmp_path):
    (tmp_path / "vllm").mkdir()
    word = str(tmp_path / "vllm")
    assert arranged([word, "--json"], COMMANDS) == ("estimate", [word, "--json"], [])


def test_switches_are_those_of_the_commands():
    declared = {"--help", "-h"}
    for command in COMMANDS:
        parser = Parser(command, "")
        _module(command).declare(parser)
        declared |= {
            option for action in parser._actions if action.nargs == 0 for option in action.option_strings
        }
    assert declared == SWITCHES


def test_help_names_every_command_and_the_exit_status():
    overview = willfit("--help")
    assert (overview.returncode, overview.stderr) == (0, "")
    listed = re.findall(r"^  ([\w-]+)  +\S", overview.stdout.partition("\ncommands:\n")[2], re.MULTILINE)
    assert tuple(listed) == COMMANDS
    assert "--gpu GPU" in overview.stdout
    assert "0 fits, 1 does not fit, 2 bad input" in overview.stdout
    assert max(map(len, overview.stdout.splitlines())) <= 80
    for command in COMMANDS:
        page = willfit(command, "--help")
        assert (page.returncode, page.stderr) == (0, "")
        assert page.stdout.startswith(f"usage: willfit {command}")


def test_nothing_asked_shows_the_help_and_does_not_pass_for_a_fit():
    done = willfit()
    assert done.returncode == 2
    assert done.stdout == willfit("--help").stdout


def test_version_is_the_packages():
    from willfit import __version__

    assert willfit("--version").stdout == f"willfit {__version__}\n"


def test_piped_output_is_plain_text():
    for words in ((MODEL, "--gpu", "rtx4090", "--explain"), ("inspect", MODEL), ("gpus",), ("rules", MODEL)):
        printed = willfit(*words).stdout
        assert len(printed) > 200
        assert ESCAPE not in printed


def test_a_terminal_gets_colours_unless_it_refuses_them():
    words = (MODEL, "--gpu", "rtx4090")
    colour = re.compile(ESCAPE + r"\[[0-9;]*\b[34]8;[25];")
    assert colour.search(in_terminal(*words))
    assert not colour.search(in_terminal(*words, NO_COLOR="1"))


def test_a_terminal_without_unicode_gets_an_answer():
    done = willfit(MODEL, "--gpu", "rtx4090", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert " fits " in done.stdout


def test_a_reader_that_goes_away_is_no_error():
    import os
    import subprocess
    import sys

    with subprocess.Popen(
        [sys.executable, "-m", "willfit", "models"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        os.close(running.stdout.fileno())
        running.stdout = None
        _, errors = running.communicate()
    assert (running.returncode, errors) == (0, b"")


def test_devices_are_listed_and_filtered():
    every = json.loads(willfit("gpus", "--json").stdout)
    some = json.loads(willfit("gpus", "rtx 4090", "--json").stdout)
    assert len(every) > 100
    assert {device["name"] for device in some} < {device["name"] for device in every}
    assert all("4090" in device["name"] for device in some)
    assert "GeForce RTX 4090" in willfit("gpus", "4090").stdout
    for device in every:
        if device["usable_bytes"] is not None and device["reported_bytes"] is not None:
            assert device["usable_bytes"] <= device["reported_bytes"]


def test_models_are_listed_and_filtered():
    found = willfit("models", "qwen3-8b").stdout.splitlines()
    assert MODEL in found
    assert found == json.loads(willfit("models", "qwen3-8b", "--json").stdout)
    assert all("qwen3-8b" in name.lower() for name in found)
