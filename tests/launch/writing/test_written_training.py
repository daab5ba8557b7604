"""Commands of training runs read back to the same estimate, and their files are valid by their own libraries."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file

from willfit.asking import find_subject, machine_of
from willfit.engines.base import Machine, Subject
from willfit.errors import BadInput
from willfit.launch.flags import lacks
from willfit.launch.table import parse_command
from willfit.launch.training.hugging_face import table_of
from willfit.launch.writing.sharing import ACCELERATE, DEEPSPEED, FSDP
from willfit.launch.writing.tasks import TASKS, settled
from willfit.launch.writing.training import LAUNCHERS, write
from willfit.launch.writing.written import Order, Written
from willfit.launching import launch_training, same_bytes
from willfit.surfaces.cli.parsing import Parser
from willfit.surfaces.cli.training_options import declare_training, training_settings
from willfit.training.estimate import estimate
from willfit.training.settings import TrainingSettings

MODEL = "Qwen/Qwen3-0.6B"

LAYOUTS = ("", "--ddp", "--zero 1", "--zero 2", "--zero 3", "--fsdp 1", "--fsdp 2")

#: Everything that both sides can say in every layout.
OPTIONS = (
    "", "--method lora", "--method qlora --rank 32", "--method dora --modules-to-save lm_head",
    "--lora r=8,targets=q_proj,targets=v_proj,dropout=0.1", "--quantize int8 --method lora",
    "--quantize fp4 --method lora",
    "--optimizer adamw_8bit", "--optimizer adafactor", "--optimizer adamw --optimizer-impl foreach",
    "--optimizer adamw --optimizer-impl fused", "--checkpointing none", "--checkpointing", "--offload activations",
    "--attention flash", "--attention eager", "--kernels liger", "--compile", "--packed", "--grad-accum 4",
    "--objective dpo", "--objective dpo --method lora", "--objective kto", "--objective reward", "--objective pretrain",
    "--objective grpo", "--objective grpo --rollout vllm --method lora",
)  # fmt: skip

#: What goes with some layouts only.
WITH = (
    ("--recipe fp32", ("", "--ddp", "--fsdp 1", "--fsdp 2")),
    ("--recipe amp-bf16", ("", "--ddp")),
    ("--recipe amp-fp16", ("", "--ddp")),
    ("--recipe pure-bf16", ("", "--ddp")),
    ("--recipe deepspeed-bf16", ("--zero 1", "--zero 2", "--zero 3")),
    ("--recipe deepspeed-fp16", ("--zero 1", "--zero 2", "--zero 3")),
    ("--recipe fsdp-mixed", ("--fsdp 1", "--fsdp 2")),
    ("--offload optimizer,gradients", ("--zero 2", "--zero 3")),
    ("--offload params,optimizer,gradients", ("--zero 3", "--fsdp 1", "--fsdp 2")),
    ("--method galore --rank 64", ("", "--ddp")),
)


def asked(options: str, layout: str) -> TrainingSettings:
    parser = Parser("train", "")
    declare_training(parser)
    given = parser.read(f"-s 2048 -b 2 {options} {layout}".split())
    return settled(training_settings(given, TASKS[given.objective].framework))


@cache
def subject() -> Subject:
    return find_subject(MODEL, offline=True)[0]


def ordered(settings: TrainingSettings, gpu: str = "8xh100") -> Order:
    machine = machine_of(gpu)
    return Order(MODEL, subject(), settings, machine, estimate(subject(), machine, settings))


def read_back(one: Written, order: Order, folder: Path) -> None:
    for name, text in one.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    words = [str(folder / word) if word in one.files else word for word in one.words]
    launch = parse_command(words, order.settings.version, one.environment)
    seen = order.machine.devices[: launch.devices]
    assert len(seen) == len(order.machine.devices)
    again = estimate(subject(), Machine(seen), launch.settings)
    assert same_bytes(again, order.estimate), words
    assert not [note for note in launch.notes if "not counted" in note], launch.notes


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_estimate(launcher: str, layout: str, tmp_path: Path) -> None:
    if launcher == "deepspeed" and "zero" not in layout:
        with pytest.raises(BadInput, match="--zero 3"):
            write(ordered(asked("", layout)), launcher)
        return
    tried = [*OPTIONS, *(options for options, layouts in WITH if layout in layouts)]
    for options in tried:
        order = ordered(asked(options, layout))
        read_back(write(order, launcher), order, tmp_path)


@pytest.mark.parametrize("gpu", ["h100", "2xa100-80g"])
def test_other_numbers_of_devices(gpu: str, tmp_path: Path) -> None:
    for launcher in LAUNCHERS[:2]:
        order = ordered(asked("--method lora", ""), gpu)
        read_back(write(order, launcher), order, tmp_path)


def test_several_machines(tmp_path: Path) -> None:
    for launcher, layout in (("torchrun", "--fsdp 2"), ("accelerate", "--fsdp 2"), ("deepspeed", "--zero 3")):
        order = ordered(asked("", layout))
        one = write(order, launcher, 2)
        read_back(one, order, tmp_path)
        assert any("MASTER_ADDR" in note for note in one.notes)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("--recipe amp-bf16 --zero 3", "says this: its trainer would make a run of"),
        ("--offload optimizer", "says this: its trainer would make a run of"),
        ("--train-only q_proj", "no command is written for trained"),
        ("--tp 2", "no command is written for tp = 2"),
        ("--kernels rms_norm", "no arguments are written for the kernels rms_norm"),
        ("--checkpointing selective-op", "checkpoints of kind selective-op"),
        ("--method ia3", "kind = ia3"),
        ("--objective grpo --rollout sglang -s 2k", "--rollout sglang"),
        ("--objective grpo", "no room for an answer behind a prompt of 512"),
        ("--rollout vllm", "--rollout vllm with --objective sft"),
        ("--recipe megatron-bf16", "dtypes of megatron-bf16"),
        ("--optimizer galore_adamw --optimizer-impl fused", "the optimizer galore_adamw"),
    ],
)
def test_what_cannot_be_said_is_refused(options: str, why: str) -> None:
    parser = Parser("train", "")
    declare_training(parser)
    settings = training_settings(parser.read(f"-s 512 {options}".split()), "trl")
    with pytest.raises(BadInput, match=why):
        launch_training(MODEL, machine_of("8xh100"), settings, "torchrun", offline=True)


def test_arguments_of_all_versions() -> None:
    """Each argument that can be written is one of the newest version's, and of the oldest that has such scripts."""
    flags = set()
    for layout in LAYOUTS:
        for options in (*OPTIONS, *(one for one, layouts in WITH if layout in layouts)):
            settings = asked(options, layout)
            framework = settings.framework
            flags |= {(framework, flag.words[0]) for flag in write(ordered(settings), "torchrun").flags}
    assert len(flags) > 25
    for framework, name in flags:
        table = table_of(framework)
        assert not lacks(table.flags[name.replace("_", "-")], table.versions, table.versions[-1]), name
    with pytest.raises(BadInput, match=r"trl 0\.22\.2 has no --dtype"):
        write(ordered(replace(asked("--recipe fp32", ""), version="0.22.2")), "torchrun")
    with pytest.raises(BadInput, match=r"trl 0\.11\.4 has no module trl\.scripts\.sft"):
        write(ordered(replace(asked("", ""), version="0.11.4")), "torchrun")


@pytest.mark.parametrize("version", ["0.16.1", "0.22.2", "1.0.0"])
def test_older_versions(version: str, tmp_path: Path) -> None:
    for layout in ("", "--zero 3", "--fsdp 2"):
        order = ordered(replace(asked("--method lora --grad-accum 2", layout), version=version))
        read_back(write(order, "accelerate"), order, tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_accelerate_reads_its_file(layout: str, tmp_path: Path) -> None:
    """`load_config_from_file` refuses keys that accelerate has not."""
    for options in (
        ("", "--offload params,optimizer,gradients") if layout in ("--zero 3", "--fsdp 2") else ("",)
    ):
        one = write(ordered(asked(options, layout)), "accelerate")
        path = tmp_path / ACCELERATE
        path.write_text(one.files[ACCELERATE], encoding="utf-8")
        config = load_config_from_file(str(path))
        assert isinstance(config, ClusterConfig)
        assert config.num_processes == 8
        kind = {"": "MULTI_GPU", "--ddp": "MULTI_GPU"}.get(
            layout, "FSDP" if "fsdp" in layout else "DEEPSPEED"
        )
        assert str(config.distributed_type).rpartition(".")[2] == kind
        if "zero" in layout:
            assert config.deepspeed_config["zero_stage"] == int(layout[-1])
            assert config.deepspeed_config["offload_param_device"] == ("cpu" if options else "none")
        if "fsdp" in layout:
            assert config.fsdp_config["fsdp_version"] == int(layout[-1])


def test_accelerate_takes_the_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the launcher would put into the environment makes accelerate's own FSDP plugin."""
    from accelerate.utils import FullyShardedDataParallelPlugin

    one = write(ordered(asked("", "--fsdp 2")), "accelerate")
    file = yaml.safe_load(one.files[ACCELERATE])
    for name, value in file["fsdp_config"].items():
        monkeypatch.setenv(name.upper(), str(value))
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True


def test_files_of_sizes() -> None:
    """16 sequences in a step: 2 on each of 8 devices, 4 times."""
    one = write(ordered(asked("--grad-accum 4", "--zero 3")), "deepspeed")
    found = json.loads(one.files[DEEPSPEED])
    assert found["train_batch_size"] == 2 * 8 * 4
    assert found["zero_optimization"]["stage"] == 3
    fsdp = json.loads(write(ordered(asked("", "--fsdp 1")), "torchrun").files[FSDP])
    assert fsdp["version"] == 1
    assert fsdp["sharding_strategy"] == "FULL_SHARD"


@pytest.mark.parametrize("gpu", ["mi300x", "24GiB", "m3-max-64g"])
def test_devices_without_a_compute_capability(gpu: str, tmp_path: Path) -> None:
    order = ordered(asked("--kernels liger", ""), gpu)
    read_back(write(order, "torchrun"), order, tmp_path)
