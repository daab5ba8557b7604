"""`koboldcpp ...`, whose defaults changed with its versions."""

import json

import pytest

from willfit.engines.llama_cpp.graph.pictures import Encoder
from willfit.engines.llama_cpp.settings import Drafting, Settings
from willfit.errors import BadInput
from willfit.launch.table import parse_command

USUAL = {
    "program": "api", "version": "b9625", "n_ctx": 16384 + 128, "n_batch": 1024, "n_ubatch": 512, "kv_unified": True,
    "flash_attn": "on", "mmap": False, "n_gpu_layers": 99, "fit": False,
}  # fmt: skip


def read(line, version=None):
    return parse_command(line.split(), version)


def settings(flags, version=None):
    return read(f"koboldcpp --model a.gguf {flags}", version).settings


def test_a_plain_command():
    launch = read("./koboldcpp-linux-x64 --model a.gguf --gpulayers 99 --usecuda")
    assert (launch.engine, launch.model, launch.settings) == ("llama.cpp", "a.gguf", Settings(**USUAL))
    assert launch.notes == ("KoboldCpp 1.115.1 has llama.cpp b9625 inside",)
    assert not read("koboldcpp a.gguf", "b6000").notes
    assert read("python3 koboldcpp.py a.gguf 5001").model == "a.gguf"


@pytest.mark.parametrize(
    ("flags", "fields"),
    [
        ("--contextsize 8192", {"n_ctx": 8320}),
        ("-c 4096 -b 256", {"n_ctx": 4224, "n_batch": 512, "n_ubatch": 256}),
        ("--blasbatchsize -1", {"n_batch": 2, "n_ubatch": 1}),
        ("--nopipelineparallel", {"n_batch": 512}),
        ("--noflashattention", {"flash_attn": "off"}),
        ("--quantkv q4_0", {"cache_type_k": "q4_0", "cache_type_v": "q4_0"}),
        ("--quantkv 1 --noflashattention", {"flash_attn": "off", "cache_type_k": "q8_0"}),
        ("--usemmap", {"mmap": True, "repack": False}),
        ("--usemlock", {"mlock": True}),
        ("--noswa", {"swa_full": True}),
        ("--lowvram", {"kv_offload": False}),
        ("--usecublas lowvram rowsplit 1", {"kv_offload": False, "split_mode": "row", "devices": (1,)}),
        ("--usecublas 1 --tensor_split 3 1", {"main_gpu": 1, "tensor_split": (3.0, 1.0)}),
        ("--usevulkan 1 0", {"backend": "vulkan", "devices": (1, 0)}),
        ("--usevulkan", {"backend": "vulkan"}),
        ("--device CUDA1", {"backend": "cuda", "devices": (1,)}),
        ("--usecpu", {"devices": (), "n_gpu_layers": 0}),
        ("--moecpu 12", {"n_cpu_moe": 12}),
        ("--moecpu", {"n_cpu_moe": 999}),
        ("--overridetensors exps=CPU", {"override_tensor": (("exps", "CPU"),)}),
        ("--parallelrequests 4", {"n_parallel": 5}),
        ("--threads 4 --blasthreads 8", {"n_threads": 8}),
        ("--rpcmode connect --rpctargets a:1,b:2", {"rpc_servers": ("a:1", "b:2")}),
        ("--visionmaxtokens 1024", {"image_tokens": 1024}),
    ],
)
def test_flags(flags, fields):
    assert settings(f"--gpulayers 99 {flags}") == Settings(**(USUAL | fields))


def test_layers_that_it_chooses_itself():
    fitted = {"n_gpu_layers": "auto", "fit": True, "fit_target_mib": (1024,), "fit_ctx": 16384}
    assert settings("") == Settings(**(USUAL | fitted))
    assert settings("--autofit --autofitpadding 99 --moecpu 4").fit_target_mib == (99,)
    # Before, and where layers are placed by hand, by a rule of its own.
    launch = read("koboldcpp --model a.gguf --tensor_split 1 1")
    assert (launch.settings.n_gpu_layers, launch.settings.fit) == ("auto", True)
    assert "a rule of its own" in launch.notes[-1]
    assert settings("", "1.90.2").n_gpu_layers == "auto"
    assert settings("", "1.70.1").n_gpu_layers == 0
    assert settings("--gpulayers").n_gpu_layers == 1


@pytest.mark.parametrize(
    ("version", "build", "context", "flash", "mapped", "swa_full"),
    [
        ("1.60", "b2251", 2048 + 80, "off", True, True),
        ("1.74", "b3612", 4096 + 80, "off", True, True),
        ("1.80.3", "b4372", 4096 + 120, "off", True, True),
        ("1.92.1", "b5470", 4096 + 120, "off", False, True),
        ("1.100.1", "b6740", 8192 + 128, "off", False, True),
        ("1.109.2", "b8174", 8192 + 128, "on", False, True),
        ("1.114.1", "b9415", 8192 + 128, "on", False, False),
        ("1.115.1", "b9625", 16384 + 128, "on", False, False),
        ("1.121", "b9625", 16384 + 128, "on", False, False),
    ],
)
def test_what_is_usual_hangs_on_the_version(version, build, context, flash, mapped, swa_full):
    one = settings("--gpulayers 9", version)
    assert (one.version, one.n_ctx, one.flash_attn, one.mmap, one.swa_full) == (
        build, context, flash, mapped, swa_full,
    )  # fmt: skip


def test_what_older_versions_turn_on():
    assert settings("--flashattention", "1.80.3").flash_attn == "on"
    assert settings("--nommap", "1.74").mmap is False
    assert settings("--useswa", "1.100.1").swa_full is False
    # Without shifting of the context there is no room beyond what was asked for.
    assert settings("--noshift", "1.80.3").n_ctx == 4096
    assert settings("--noshift", "1.100.1").n_ctx == 8192 + 128


def test_drafts():
    launch = read("koboldcpp --model a.gguf --gpulayers 9 --draftmodel b.gguf --quantkv q8_0")
    assert launch.settings.drafting == Drafting(
        n_max=8, n_gpu_layers="all", cache_type_k="q8_0", cache_type_v="q8_0"
    )
    assert launch.draft.model == "b.gguf"
    assert settings("--usemtp --draftamount 3 --draftgpulayers 4").drafting == Drafting(
        kind="mtp", n_max=3, n_gpu_layers=4
    )


def test_a_file_of_settings(tmp_path):
    file = tmp_path / "mine.kcpps"
    saved = {
        "model": [], "model_param": "a.gguf", "contextsize": 8192, "gpulayers": 20, "usecublas": ["normal", "0", "mmq"],
        "tensor_split": None, "flashattention": True, "quantkv": 1, "lora": None, "usemmap": False, "sdmodel": "s.gguf",
        "unknown_key": 3, "blasbatchsize": 1024, "host": "",
    }  # fmt: skip
    file.write_text(json.dumps(saved))
    for line in (f"koboldcpp --config {file}", f"koboldcpp {file}"):
        launch = read(line)
        one = launch.settings
        assert launch.model == "a.gguf"
        assert (one.n_ctx, one.n_gpu_layers, one.devices, one.n_ubatch) == (8320, 20, (0,), 1024)
        assert (one.cache_type_k, one.flash_attn) == ("q8_0", "on")
        assert "image models (--sdmodel) are not counted" in launch.notes
    assert read(f"koboldcpp --config {file} --contextsize 4096").settings.n_ctx == 4224
    with pytest.raises(BadInput, match="does not exist"):
        read("koboldcpp --config /nowhere.kcpps")


def test_what_is_not_counted_is_said():
    line = "--gpulayers 9 --mmproj p.gguf --lora l.gguf --enableguidance --smartcache --whispermodel w.bin"
    assert read(f"koboldcpp --model a.gguf {line}").notes[1:] == (
        "speech models (--whispermodel) are not counted",
        "adapters that are not here are not counted: l.gguf",
        "the projector p.gguf cannot be read here; it is not counted",
        "the second context of --enableguidance is not counted",
        "saved states in host RAM (--smartcache) are not counted",
    )


@pytest.mark.parametrize(
    ("version", "flags", "flash", "waits"),
    [
        ("1.100.1", "--flashattention", False, False),
        ("1.102.1", "--flashattention", True, False),
        ("1.102.1", "", False, False),
        ("1.102.2", "--flashattention", False, False),
        ("1.104", "--flashattention", False, True),
        ("1.105.4", "--flashattention --usevulkan", True, True),
        ("1.105.4", "--flashattention --usecuda", False, True),
        ("1.115.1", "--usecuda --mmprojcpu", True, True),
        ("1.115.1", "--usevulkan --noflashattention", False, True),
    ],
)
def test_how_pictures_are_encoded(monkeypatch, version, flags, flash, waits):
    shape = Encoder(27, 1152, 4304, 16, 16, 2, 1472, 2048)
    monkeypatch.setattr("willfit.launch.koboldcpp.encoder_at", lambda path: shape)
    made = settings(f"--mmproj p.gguf {flags}", version)
    assert (made.mmproj_encoder, made.mmproj_flash, made.mmproj_waits) == (shape, flash, waits)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("koboldcpp", "no model is named"),
        ("koboldcpp --help", "no model is loaded"),
        ("koboldcpp --model a.gguf --contextsize 9999999", "--contextsize is 9999999"),
        ("koboldcpp --model a.gguf --contextsize big", "--contextsize is 'big'"),
        ("koboldcpp --model a.gguf --quantkv q5_0", "there is no --quantkv q5_0"),
        ("koboldcpp --model a.gguf --gpulayer 3", None),  # an abbreviation
        ("koboldcpp --model a.gguf --n_ctx 3", "has no flag --n_ctx"),
    ],
)
def test_what_it_would_refuse(line, message):
    if message is None:
        assert read(line).settings.n_gpu_layers == 3
        return
    with pytest.raises(BadInput) as caught:
        read(line)
    assert message in str(caught.value)
