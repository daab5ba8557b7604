"""Commands of the Hugging Face world: launchers, files, and what is wrong in them."""

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.errors import BadInput
from willfit.launch.table import is_program, parse_command

TRAIN = "train.py --model_name_or_path a/b --output_dir o --per_device_train_batch_size 2"


def read(line, version=None):
    return parse_command(shlex.split(line), version)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder, name, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("line", "devices"),
    [
        (f"python {TRAIN}", 1),
        (f"python3.11 -u {TRAIN}", 1),
        (f"uv run --with transformers {TRAIN}", 1),
        (f"torchrun --nproc_per_node=4 --nnodes 2 {TRAIN}", 8),
        (f"torchrun --nproc_per_node gpu {TRAIN}", None),
        (f"python -m torch.distributed.run --nproc-per-node 4 {TRAIN}", 4),
        (f"python -m torch.distributed.launch --nproc_per_node=8 --use_env {TRAIN}", 8),
        (f"accelerate launch {TRAIN}", None),
        (f"accelerate-launch --num-processes=3 {TRAIN}", 3),
        (f"python -m accelerate.commands.launch --num_processes 3 {TRAIN}", 3),
        (f"accelerate launch --multi_gpu --gpu_ids 0,1 {TRAIN}", 2),
        ("accelerate launch --num_processes 2 -m pkg.train" + TRAIN.removeprefix("train.py"), 2),
        (f"deepspeed {TRAIN}", None),
        (f"deepspeed --num_gpus=2 --num_nodes 3 {TRAIN}", 6),
        (f"deepspeed --num_gpus 2 --master_port 1 {TRAIN}", 2),
        (f"deepspeed --include localhost:0,2,5 {TRAIN}", 3),
        (f"deepspeed -i worker-0:0,1@worker-1:0 {TRAIN}", 3),
        (f"deepspeed --hostfile hosts {TRAIN}", 12),
        (f"deepspeed --hostfile hosts --include worker-1 {TRAIN}", 4),
        (f"deepspeed --hostfile hosts --exclude worker-0@worker-1:3 {TRAIN}", 3),
        (f"deepspeed --hostfile hosts --num_nodes 1 --num_gpus 6 {TRAIN}", 6),
        (f"CUDA_VISIBLE_DEVICES=0,1 accelerate launch {TRAIN}", 2),
        (f"srun --nodes=2 torchrun --nproc_per_node 4 --nnodes 2 {TRAIN}", 8),
        (f"nohup deepspeed --num_gpus 4 {TRAIN}", 4),
        (f"docker run --gpus all -v /x:/x image torchrun --nproc_per_node 2 {TRAIN}", 2),
        (f"bash -c 'cd /x && export A=1 && accelerate launch --num_processes 2 {TRAIN} > log 2>&1 &'", 2),
    ],
)
def test_a_launcher_starts_so_many_processes(line, devices, folder):
    write(folder, "hosts", "worker-0 slots=8 # first\nworker-1 slots=4\n")
    launch = read(line)
    assert (launch.engine, launch.model, launch.devices) == ("training", "a/b", devices)
    assert launch.settings.micro_batch == 2
    assert is_program(shlex.split(line)[0]) or "=" in line.split()[0]


@pytest.mark.parametrize(
    "line",
    [
        "python -m vllm.entrypoints.openai.api_server --model a/b",
        "torchrun --nproc_per_node 2 -m vllm.entrypoints.openai.api_server --model a/b",
    ],
)
def test_servers_are_not_taken_for_training(line):
    assert read(line).engine == "vllm"


@pytest.mark.parametrize("line", ["python convert.py --outfile x", "torchrun chat.py --ckpt_dir llama"])
def test_other_scripts_are_not_read(line):
    with pytest.raises(BadInput, match="cannot read the command"):
        read(line)


FULL = {
    "bf16": {"enabled": "auto"},
    "zero_optimization": {
        "stage": 3,
        "offload_optimizer": {"device": "nvme", "nvme_path": "/x", "pin_memory": True, "ratio": 0.5},
        "offload_param": {"device": "cpu", "pin_memory": True},
        "overlap_comm": False,
        "reduce_bucket_size": "auto",
        "allgather_bucket_size": 2e8,
        "stage3_prefetch_bucket_size": 5e7,
        "stage3_param_persistence_threshold": "auto",
        "stage3_max_live_parameters": 1e9,
        "zero_hpz_partition_size": 8,
        "zero_quantized_weights": True,
        "contiguous_gradients": True,
        "sub_group_size": 1e9,
    },
    "data_types": {"grad_accum_dtype": "fp32"},
    "activation_checkpointing": {"partition_activations": False, "cpu_checkpointing": True},
    "gradient_accumulation_steps": 4,
    "train_micro_batch_size_per_gpu": 3,
    "train_batch_size": "auto",
    "optimizer": {"type": "Adam", "params": {"lr": "auto"}},
    "gradient_clipping": 1.0,
}


def test_every_size_of_deepspeed_is_read(folder):
    write(folder, "ds.json", FULL)
    launch = read(
        "deepspeed --num_gpus 8 train.py --model_name_or_path a/b --output_dir o --bf16 --deepspeed ds.json"
    )
    settings, layout, offload = launch.settings, launch.settings.layout, launch.settings.offload
    assert (layout.data, layout.secondary, layout.overlap) == ("zero3", 8, False)
    assert (layout.reduce_bucket, layout.allgather_bucket, layout.prefetch_bucket) == (
        0,
        200_000_000,
        50_000_000,
    )
    assert (layout.persistence, layout.max_live) == (0, 1_000_000_000)
    assert all((offload.optimizer, offload.params, offload.gradients, offload.nvme, offload.pinned))
    assert (settings.micro_batch, settings.gradient_accumulation) == (8, 4)
    assert (settings.precision.compute, settings.precision.gradients, settings.precision.weights) == (
        "bf16", "fp32", None,
    )  # fmt: skip
    assert (settings.optimizer.name, settings.optimizer.implementation) == ("adamw", "fused")
    named = " ".join(launch.notes)
    for word in ("zero_quantized_weights", "offload_optimizer.ratio", "cpu_checkpointing"):
        assert word in named
    assert "sub_group_size" not in named
    assert "contiguous" not in named


@pytest.mark.parametrize(
    ("zero", "expected"),
    [
        (True, ("zero1", False)),
        ({"stage": 2, "cpu_offload": True}, ("zero2", True)),
        ({"stage": 0}, ("ddp", False)),
        ({}, ("ddp", False)),
        ({"stage": 1, "offload_optimizer": {"device": "none"}}, ("zero1", False)),
    ],
)
def test_older_ways_to_say_a_stage(zero, expected, folder):
    write(folder, "ds.json", {"zero_optimization": zero})
    settings = read(f"deepspeed {TRAIN} --deepspeed ds.json").settings
    assert (settings.layout.data, settings.offload.optimizer) == expected


def test_a_json_or_yaml_file_stands_for_all_arguments(folder):
    values = {
        "model_name_or_path": "a/b", "output_dir": "o", "per_device_train_batch_size": 2, "bf16": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": True}, "gradient_checkpointing": True, "my_own": 3,
        "deepspeed": {"zero_optimization": {"stage": 2}}, "fsdp_config": None,
    }  # fmt: skip
    write(folder, "args.json", values)
    write(folder, "args.yaml", json.dumps(values))
    for name in ("args.json", "args.yaml"):
        launch = read(f"torchrun --nproc_per_node 2 train_sft.py {name} --per_device_train_batch_size=4")
        settings = launch.settings
        assert (launch.model, settings.micro_batch, settings.precision.compute) == ("a/b", 4, "bf16")
        assert (settings.checkpointing.kind, settings.checkpointing.reentrant) == ("full", True)
        assert settings.layout.data == "zero2"
        assert launch.notes[-1] == "--my_own belongs to train_sft.py itself: not counted"


def test_an_argument_of_the_script_alone_is_named():
    launch = read(f"python {TRAIN} --my_flag 3 --other a b --do_it --bf16")
    assert launch.notes == ("--do_it, --my_flag, --other belong to train.py itself: not counted",)
    assert launch.settings.precision.compute == "bf16"


def test_an_argument_that_changes_memory_and_is_not_understood_is_named():
    launch = read(f"python {TRAIN} --auto_find_batch_size --learning_rate 1e-4 --warmup_steps 3")
    assert launch.notes == ("auto_find_batch_size: True is not counted",)


@pytest.mark.parametrize(
    ("words", "layout", "offload"),
    [
        ("--fsdp 'full_shard auto_wrap'", {"data": "fsdp1", "strategy": "full_shard"}, False),
        ("--fsdp shard_grad_op,offload", {"data": "fsdp1", "strategy": "shard_grad_op"}, True),
        ("--fsdp hybrid_shard --fsdp_config f.json", {"data": "fsdp2", "strategy": "hybrid_shard"}, True),
        (
            "--fsdp full_shard --fsdp_config '{\"min_num_params\": 1000000}'",
            {"data": "fsdp1", "strategy": "full_shard", "wrap": "size"},
            False,
        ),
    ],
)
def test_fsdp_of_the_trainer(words, layout, offload, folder):
    config = {"fsdp_version": 2, "cpu_offload": True, "transformer_layer_cls_to_wrap": "X", "odd_option": 3}
    write(folder, "f.json", config)
    launch = read(f"torchrun --nproc_per_node 4 {TRAIN} {words}", "4.57.1")
    for name, value in layout.items():
        assert getattr(launch.settings.layout, name) == value
    assert launch.settings.offload.params is offload
    assert any("odd_option" in note for note in launch.notes) is ("f.json" in words)


@pytest.mark.parametrize(
    ("version", "data"), [("4.57.1", "fsdp1"), ("5.8.0", "fsdp1"), ("5.23.0", "fsdp2"), (None, "fsdp2")]
)
def test_the_trainers_fsdp_is_that_of_the_version(version, data):
    assert read(f"torchrun {TRAIN} --fsdp full_shard", version).settings.layout.data == data
    assert read(f"torchrun {TRAIN} --fsdp", version).settings.layout.data == data


ACCELERATE = """\
distributed_type: FSDP
mixed_precision: bf16
num_processes: 8
num_machines: 2
dynamo_config: {{dynamo_backend: INDUCTOR}}
fsdp_config:
  fsdp_version: {version}
  {more}
"""


@pytest.mark.parametrize(
    ("version", "more", "expected"),
    [
        (1, "fsdp_sharding_strategy: SHARD_GRAD_OP", {"strategy": "shard_grad_op"}),
        (1, "fsdp_sharding_strategy: 4", {"strategy": "hybrid_shard"}),
        (1, "fsdp_reshard_after_forward: FULL_SHARD", {"strategy": "full_shard", "reshard": None}),
        (2, "fsdp_reshard_after_forward: false", {"reshard": False, "data": "fsdp2"}),
        (1, "fsdp_auto_wrap_policy: SIZE_BASED_WRAP", {"wrap": "size"}),
    ],
)
def test_fsdp_of_accelerate(version, more, expected, folder):
    write(folder, "a.yaml", ACCELERATE.format(version=version, more=more))
    launch = read(f"accelerate launch --config_file a.yaml --num_processes 4 {TRAIN}")
    settings = launch.settings
    assert (launch.devices, settings.precision.compute, settings.compile) == (4, "bf16", True)
    for name, value in expected.items():
        assert getattr(settings.layout, name) == value
    assert launch.notes == ()
    assert settings.precision.compute == "bf16"
    # What the script says counts more.
    assert read(f"accelerate launch --config_file a.yaml {TRAIN} --fp16").settings.precision.compute == "fp16"


def test_activation_checkpointing_of_fsdp(folder):
    write(folder, "a.yaml", ACCELERATE.format(version=2, more="fsdp_activation_checkpointing: true"))
    checkpointing = read(f"accelerate launch --config_file a.yaml {TRAIN}").settings.checkpointing
    assert (checkpointing.kind, checkpointing.reentrant) == ("full", False)


def test_one_process_of_accelerate(folder):
    write(folder, "a.yaml", "distributed_type: 'NO'\nnum_processes: 8\n")
    assert read(f"accelerate launch --config_file a.yaml {TRAIN}").devices == 1


def test_deepspeed_of_accelerate(folder):
    write(folder, "ds.json", {"zero_optimization": {"stage": 3, "reduce_bucket_size": "auto"}})
    write(
        folder,
        "a.yaml",
        "distributed_type: DEEPSPEED\nnum_processes: 2\ndeepspeed_config:\n  deepspeed_config_file: ds.json\n"
        "  zero3_init_flag: true\n",
    )
    layout = read(f"accelerate launch --config_file a.yaml {TRAIN}").settings.layout
    assert (layout.data, layout.reduce_bucket) == ("zero3", 0)
    flags = "--use_deepspeed --zero_stage 3 --offload_optimizer_device cpu --gradient_accumulation_steps 4"
    settings = read(f"accelerate launch {flags} {TRAIN}").settings
    assert (settings.layout.data, settings.layout.reduce_bucket, settings.offload.optimizer) == (
        "zero3",
        None,
        True,
    )
    assert settings.gradient_accumulation == 4


def test_megatron_of_accelerate():
    flags = "--use_megatron_lm --megatron_lm_tp_degree 2 --megatron_lm_pp_degree 2"
    flags += " --megatron_lm_sequence_parallelism true"
    launch = read(f"accelerate launch --num_processes 8 {flags} {TRAIN}")
    assert (launch.settings.layout.tp, launch.settings.layout.pp, launch.settings.layout.sp) == (2, 2, True)


def test_trl_reads_its_file_and_hands_the_rest_to_accelerate(folder):
    write(
        folder,
        "c.yaml",
        "model_name_or_path: a/b\nlearning_rate: 1.0e-5\nmax_length: 4096\npacking: true\nnum_processes: 4\n"
        "accelerate_config: zero3\nlora_target_modules: [q_proj, v_proj]\nuse_peft: true\n"
        "env:\n  PYTORCH_CUDA_ALLOC_CONF: expandable_segments:True\n",
    )
    launch = read("trl sft --config c.yaml --max_length 2048 --use_liger_kernel")
    settings = launch.settings
    assert (launch.model, launch.devices, settings.framework, settings.objective) == ("a/b", 4, "trl", "sft")
    assert (settings.seq_len, settings.packed, settings.layout.data) == (2048, True, "zero3")
    assert (settings.adapter.rank, settings.adapter.alpha) == (16, 32.0)
    assert settings.adapter.targets == ("q_proj", "v_proj")
    assert (settings.kernels, settings.expandable_segments) == (("liger",), True)
    assert launch.notes == ()


def test_a_version_that_is_installed_for_the_command():
    launch = read("uv run --with trl==0.21.0 trl sft --model_name_or_path a/b")
    assert (launch.settings.version, launch.devices) == ("0.21.0", None)


def test_arguments_with_dots_and_pure_dtypes():
    line = "torchrun --nproc_per_node 4 finetuning.py --enable_fsdp --model_name a/b --batch_size_training 2 "
    settings = read(line + "--fsdp_config.pure_bf16 --fsdp_config.hsdp True").settings
    assert (settings.layout.data, settings.layout.strategy) == ("fsdp1", "hybrid_shard")
    assert (settings.precision.weights, settings.precision.compute) == ("bf16", "bf16")
    assert settings.precision.autocast is False
    assert read(line + "--use_fp16").settings.precision.compute == "fp16"


@pytest.mark.parametrize(
    ("words", "version", "expected"),
    [
        ("--use_vllm", None, ("vllm", True, 0, 8)),
        ("--use_vllm", "0.24.0", ("vllm", False, 0, 8)),
        ("--use_vllm --vllm_mode server --num_generations 4", None, ("vllm", False, 0, 4)),
        ("--use_vllm --vllm_mode colocate --vllm_enable_sleep_mode", "0.24.0", ("vllm", True, 2, 8)),
        ("", None, ("transformers", True, 0, 8)),
    ],
)
def test_what_generates_for_grpo(words, version, expected):
    line = f"trl grpo --model_name_or_path a/b --reward_funcs x --max_completion_length 100 {words}"
    settings = read(line, version).settings
    rollout = settings.rollout
    assert (rollout.engine, rollout.colocated, rollout.sleep_level, rollout.generations) == expected
    assert (settings.objective, rollout.completion_len, settings.seq_len) == ("grpo", 100, 612)


@pytest.mark.parametrize(
    ("words", "reference"),
    [("", None), ("--beta 0.04", True), ("--beta 0.0", False), ("--beta 0.04 --use_peft", False)],
)
def test_the_reference_of_grpo(words, reference):
    line = f"trl grpo --model_name_or_path a/b --reward_funcs x {words}"
    assert read(line).settings.reference_model is reference


def test_older_versions_of_grpo_have_a_reference():
    line = "trl grpo --model_name_or_path a/b"
    assert read(line, "0.18.2").settings.reference_model is True
    assert read(f"{line} --use_peft", "0.18.2").settings.reference_model is None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--torch_dtype bfloat16", ("bf16", None)),
        ("--dtype auto --bf16", ("auto", "bf16")),
        ("--fp16 True", (None, "fp16")),
        ("--bf16 false", (None, None)),
        ("--torch_dtype float32 --bf16 yes", ("fp32", "bf16")),
    ],
)
def test_dtypes(words, expected):
    precision = read(f"python {TRAIN} {words}").settings.precision
    assert (precision.weights, precision.compute) == expected


def test_the_checkpoints_dtype_is_known_where_the_run_is_filled_in():
    from willfit.architectures.build import build
    from willfit.checkpoints.catalogue import find
    from willfit.checkpoints.config import Config
    from willfit.training.frameworks.table import resolve

    architecture = build(Config(find("Qwen/Qwen3-0.6B").config))
    settings = read(f"python {TRAIN} --torch_dtype auto").settings
    assert resolve(settings, architecture).settings.precision.weights == architecture.dtype == "bf16"


def test_kernels_of_liger():
    config = '\'{"rope": true, "rms_norm": false, "swiglu": true, "fused_linear_cross_entropy": true}\''
    settings = read(f"python {TRAIN} --use_liger_kernel --liger_kernel_config {config}").settings
    assert (settings.kernels, settings.loss.kind) == (("rope", "swiglu"), "liger")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--activation_checkpointing", ("full", 1, False)),
        (
            "--gradient_checkpointing True --activation_checkpointing_kwargs "
            '\'{"every_n_layers": 2, "offload": true}\'',
            ("full", 2, True),
        ),
        ("--gradient_checkpointing False", ("none", 1, False)),
        ("", (None, 1, False)),
    ],
)
def test_checkpointing(words, expected):
    found = read(f"python {TRAIN} {words}").settings.checkpointing
    assert (found.kind, found.every, found.offload) == expected


def test_a_script_of_ones_own_with_the_rank_of_an_adapter_has_one():
    launch = read(f"python {TRAIN} --lora_r 4 --lora_alpha 8 --lora_target_modules q_proj v_proj")
    assert (launch.settings.adapter.rank, launch.settings.adapter.targets) == (4, ("q_proj", "v_proj"))
    assert launch.notes == ("lora_r is taken to mean that LoRA is used",)
    # TRL's scripts need to be told.
    assert read("python sft.py --model_name_or_path a/b --output_dir o --lora_r 4").settings.adapter is None


def test_several_devices_of_one_process():
    launch = read(f"CUDA_VISIBLE_DEVICES=0,1 python {TRAIN}")
    assert launch.devices == 1
    assert any("DataParallel" in note for note in launch.notes)
    spread = read("CUDA_VISIBLE_DEVICES=0,1 python qlora.py --model_name_or_path a/b --output_dir o")
    assert (spread.devices, spread.settings.layout.device_map) == (2, True)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"accelerate launch --config_file no.yaml {TRAIN}", "no.yaml (--config_file) is not here"),
        (f"accelerate launch --config_file broken.yaml {TRAIN}", "broken.yaml is not YAML"),
        (f"accelerate launch --config_file list.yaml {TRAIN}", "list.yaml does not hold names and values"),
        (f"accelerate launch --config_file section.yaml {TRAIN}", "fsdp_config does not hold names and values"),
        (f"accelerate launch --config_file kind.yaml {TRAIN}", "there is no distributed_type FDSP"),
        (f"accelerate launch --config_file count.yaml {TRAIN}", "count.yaml: num_processes is 'many', expected"),
        (f"accelerate launch --config_file minus.yaml {TRAIN}", "num_processes is '-1', expected a whole number"),
        (f"accelerate launch --config_file strategy.yaml {TRAIN}", "sharding_strategy is 'half_shard'"),
        (f"accelerate launch --num_proceses 2 {TRAIN}", "did you mean --num-processes?"),
        (f"accelerate launch --num_processes two {TRAIN}", "expected a whole number"),
        (f"accelerate launch --use_fsdp --use_deepspeed {TRAIN}", "exclude each other"),
        (f"accelerate launch --cpu {TRAIN}", "trains without a GPU"),
        (f"deepspeed --num_gpu 2 {TRAIN}", "did you mean --num-gpus?"),
        (f"deepspeed --hostfile bad_hosts {TRAIN}", "is not of the form HOST slots=N"),
        (f"torchrun --nproc_per_node four {TRAIN}", "expected a whole number"),
        (f"python {TRAIN} --deepspeed no.json", "no.json (deepspeed) is not here"),
        (f"python {TRAIN} --deepspeed broken.json", "broken.json is not JSON"),
        (f"python {TRAIN} --deepspeed stage.json", "deepspeed has no stage 4"),
        (f"python {TRAIN} --deepspeed size.json", "reduce_bucket_size is 'large', expected a whole number"),
        (f"python {TRAIN} --deepspeed device.json", "there is no zero_optimization.offload_optimizer.device gpu"),
        (f"python {TRAIN} --bf16 --deepspeed half.json", "bf16 is asked for, and fp16 in DeepSpeed's file"),
        (f"python {TRAIN} --fsdp half_shard", "fsdp has no option half_shard"),
        (f"python {TRAIN} --fsdp full_shard --fsdp_config no.json", "no.json (fsdp_config) is not here"),
        (f"python {TRAIN} --gradient_checkpointing_kwargs '{{broken'", "expected JSON with names and values"),
        (f"python {TRAIN} --bf16 --fp16", "exclude each other"),
        (f"python {TRAIN} --bf16 maybe", "'maybe' belongs to no argument"),
        (f"python {TRAIN} --use_cpu", "trains without a GPU"),
        (f"python {TRAIN} --torch_dtype bfloat17", "torch_dtype is 'bfloat17'"),
        (f"python {TRAIN} --load_in_4bit --load_in_8bit", "exclude each other"),
        (f"python {TRAIN} --bits 5", "5 bits are not known"),
        ("python train.py --output_dir o --per_device_train_batch_size 2", "no model is named"),
        ("python train.py --model_name_or_path $M --output_dir o", "which is not set here"),
        ("python train.py --model_name_or_path a/b --output_dir o --num_train_epochs", "needs a value"),
        ("python train.py --model_name_or_path a/b --per_device_train_batch_size x", "expected a whole number"),
        ("python train_sft.py no.yaml", "no.yaml is not here"),
        ("python train_sft.py broken.json", "broken.json is not JSON"),
        ("python train_sft.py wrong.yaml", "per_device_train_batch_size is 'two', expected a whole number"),
        ("trl sft --config no.yaml", "no.yaml is not here"),
        ("trl sft --config env.yaml", "env does not hold names and values"),
        ("trl sft --config unknown.yaml", "there is no key max_lenght (did you mean max_length?)"),
        ("trl sft --model_name_or_path a/b --max_lenght 3", "did you mean --max-length?"),
        ("trl sft --model_name_or_path a/b --beta 3", "trl sft has no flag --beta"),
        ("trl sft --model_name_or_path a/b --accelerate_config zero4", "zero4 (--config_file) is not here"),
        ("trl sfd --model_name_or_path a/b", "did you mean sft?"),
        ("trl chat --model_name_or_path a/b", "trl chat trains nothing"),
        ("trl grpo --model_name_or_path a/b --vllm_gpu_memory_utilization 2", "expected a share"),
        ("trl grpo --model_name_or_path a/b --vllm_mode apart", "there is no vllm_mode apart"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(line, words, folder):
    for name, content in {
        "broken.yaml": "a: [1", "list.yaml": "- 1\n", "section.yaml": "distributed_type: FSDP\nfsdp_config: 3\n",
        "kind.yaml": "distributed_type: FDSP\n", "count.yaml": "distributed_type: MULTI_GPU\nnum_processes: many\n",
        "minus.yaml": "distributed_type: MULTI_GPU\nnum_processes: -1\n",
        "strategy.yaml": "distributed_type: FSDP\nfsdp_config: {fsdp_sharding_strategy: half_shard}\n",
        "bad_hosts": "worker-0 8\n", "broken.json": "{", "stage.json": {"zero_optimization": {"stage": 4}},
        "size.json": {"zero_optimization": {"stage": 2, "reduce_bucket_size": "large"}},
        "device.json": {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "gpu"}}},
        "half.json": {"zero_optimization": {"stage": 2}, "fp16": {"enabled": True}},
        "wrong.yaml": "model_name_or_path: a/b\nper_device_train_batch_size: two\n",
        "env.yaml": "model_name_or_path: a/b\nenv: 3\n", "unknown.yaml": "model_name_or_path: a/b\nmax_lenght: 3\n",
    }.items():  # fmt: skip
        write(folder, name, content)
    with pytest.raises(BadInput) as caught:
        read(line)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


_FLAGS = st.sampled_from(
    ["--bf16", "--deepspeed", "--fsdp", "--fsdp_config", "--lora_r", "--config", "--gradient_checkpointing_kwargs",
     "--per_device_train_batch_size", "--optim", "--beta", "--loss_type", "--use_peft", "--odd", "--load_in_4bit",
     "--torch_dtype", "--lora_target_modules", "--liger_kernel_config", "--vllm_mode", "--num_processes",
     "--config_file", "--report_to", "--no_bf16", "--"]
)  # fmt: skip
_VALUES = st.sampled_from(
    ["1", "-3", "true", "0.5", "x", "{}", '{"a": [1, {"b": null}]}', "", "a b", "[q,v]", "~", "é", "1e99"]
)


@given(
    st.sampled_from(
        ["python train.py", "trl grpo", "accelerate launch", "torchrun", "deepspeed", "python -m pkg.train"]
    ),
    st.lists(st.one_of(_FLAGS, _VALUES), max_size=8),
)
def test_any_words_are_read_or_refused(start, words):
    line = [*start.split(), "--model_name_or_path", "a/b", "--output_dir", "o", *words]
    said = ""
    try:
        assert parse_command(line).model
    except BadInput as error:
        said = str(error)
    assert "\n" not in said


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "zero_optimization",
                        "stage",
                        "bf16",
                        "enabled",
                        "offload_optimizer",
                        "device",
                        "optimizer",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=8,
    )
)
def test_any_config_of_deepspeed_is_read_or_refused(config):
    from willfit.launch.training.zero_config import read as read_zero

    if not isinstance(config, dict):
        return
    said = ""
    try:
        read_zero(config, "train.py", "")
    except BadInput as error:
        said = str(error)
    assert "\n" not in said
