"""What stands in front of an engine's command: variables, other programs, containers, shells."""

import shlex
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.asking import ask_command, machine_of
from willfit.errors import BadInput
from willfit.launch.images import known_image
from willfit.launch.table import devices_of, is_program, parse_command
from willfit.surfaces.cli.words import arranged


def read(line, version=None):
    return parse_command(shlex.split(line), version)


@pytest.mark.parametrize(
    "line",
    [
        "nohup vllm serve a/b -tp 2",
        "sudo -E env A=1 nice -n 5 vllm serve a/b -tp 2",
        "time -p vllm serve a/b -tp 2",
        "uv run vllm serve a/b -tp 2",
        "uv run --with vllm python -m vllm.entrypoints.openai.api_server --model a/b -tp 2",
        "uvx vllm serve a/b -tp 2",
        "poetry run python3.11 -u -m vllm.entrypoints.openai.api_server --model a/b -tp 2",
        "numactl --cpunodebind=0 --membind=0 vllm serve a/b -tp 2",
        "taskset -c 0-15 vllm serve a/b -tp 2",
        "timeout -k 5 3600 vllm serve a/b -tp 2",
        "srun -N 1 --job-name vllm --gres=gpu:2 vllm serve a/b -tp 2",
        "torchrun --nproc_per_node 2 -m vllm.entrypoints.openai.api_server --model a/b -tp 2",
        "ray symmetric-run --address 10.0.0.1:6379 --min-nodes 1 -- vllm serve a/b -tp 2",
        "ray job submit --no-wait -- vllm serve a/b -tp 2",
        "conda run -n vllm --no-capture-output vllm serve a/b -tp 2",
        "nsys profile -o report --trace=cuda,nvtx vllm serve a/b -tp 2",
        "docker compose run --rm vllm vllm serve a/b -tp 2",
        "docker exec -it server bash -c 'vllm serve a/b -tp 2'",
        "kubectl exec -it pod/vllm-0 -- vllm serve a/b -tp 2",
        "singularity exec --nv --bind /data image.sif vllm serve a/b -tp 2",
        "bash -c 'cd /x && vllm serve a/b -tp 2 > log 2>&1 &'",
        "sh -c 'exec vllm serve a/b \\\n  -tp 2'",
        "mpirun -n 1 -x NCCL_DEBUG=INFO vllm serve a/b -tp 2",
        "podman run --rm --entrypoint vllm some/image serve a/b -tp 2",
        "python3 -m vllm.entrypoints.cli.main serve a/b -tp 2",
    ],
)
def test_a_command_behind_other_programs(line):
    launch = read(line)
    assert (launch.engine, launch.model, launch.settings.tensor_parallel) == ("vllm", "a/b", 2)
    assert is_program(shlex.split(line)[0])


@pytest.mark.parametrize(
    ("line", "engine", "version"),
    [
        ("uvx vllm@0.11.0 serve a/b", "vllm", "0.11.0"),
        ("uvx --from 'vllm==0.10.2' vllm serve a/b", "vllm", "0.10.2"),
        ("uv run --with=vllm==0.9.1 vllm serve a/b", "vllm", "0.9.1"),
        ("bash -c 'pip install vllm[flashinfer]==0.8.5.post1; vllm serve a/b'", "vllm", "0.8.5.post1"),
        ("srun --container-image=nvcr.io/nvidia/vllm:26.03-py3 vllm serve a/b", "vllm", "0.17.1"),
        ("apptainer exec --nv docker://vllm/vllm-openai:v0.10.2 vllm serve a/b", "vllm", "0.10.2"),
        ("docker run lmsysorg/sglang:v0.5.6-cu129 sglang serve a/b", "sglang", "0.5.6"),
        (
            "docker run nvcr.io/nvidia/tensorrt-llm/release:1.1.0 trtllm-serve a/b",
            "tensorrt-llm",
            "1.1.0",
        ),
        ("docker run openmmlab/lmdeploy:v0.9.2 lmdeploy serve api_server a/b", "lmdeploy", "0.9.2"),
    ],
)
def test_versions_that_a_command_pins(line, engine, version):
    launch = read(line)
    assert (launch.engine, launch.settings.version) == (engine, version)
    assert version in launch.notes[0]
    # What is asked for counts more.
    assert read(line, "0.7.3").settings.version == "0.7.3"


def test_backslashes_that_were_pasted():
    assert parse_command(["vllm", "serve", "a/b", "\\", " ", "-tp", "2"]) == read("vllm serve a/b -tp 2")


def test_a_pin_of_another_package_is_none():
    assert read("uv run --with sglang==0.5.2 vllm serve a/b").settings == read("vllm serve a/b").settings


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("rocm/vllm:rocm6.4.1_vllm_0.9.1_20250715", "0.9.1"),
        ("nvcr.io/nvidia/vllm:25.10-py3", "0.10.2"),
        ("nvcr.io/nvidia/vllm:25.08-py3", None),  # not published
        ("nvcr.io#nvidia/tensorrt-llm/release:1.1.0", "1.1.0"),
        ("lmcache/vllm-openai:v0.3.9", None),  # the version of LMCache
        ("localhost:5000/vllm/vllm-openai", None),
    ],
)
def test_versions_of_images(name, version):
    assert known_image(name)[1] == version


def test_variables_on_the_way_to_the_command():
    assert read("nohup env VLLM_USE_V1=0 vllm serve a/b", "0.8.5").settings.generation == "v0"
    assert read("srun --export=ALL,VLLM_USE_V1=0 vllm serve a/b", "0.8.5").settings.generation == "v0"
    exported = "bash -c 'export VLLM_USE_V1=0; MODEL=a/b; vllm serve $MODEL -tp ${TP:-4}'"
    launch = read(exported, "0.8.5")
    assert (launch.model, launch.settings.generation, launch.settings.tensor_parallel) == ("a/b", "v0", 4)
    # A shell's own variable reaches no program.
    assert read("bash -c 'VLLM_USE_V1=0; vllm serve a/b'", "0.8.5").settings.generation is None


@pytest.mark.parametrize(
    ("line", "devices"),
    [
        ("vllm serve a/b", None),
        ("CUDA_VISIBLE_DEVICES=3 vllm serve a/b", 1),
        ("HIP_VISIBLE_DEVICES=0,1 vllm serve a/b", 2),
        ("nohup env CUDA_VISIBLE_DEVICES=0,1,2 vllm serve a/b", 3),
        ("vllm serve a/b --device-ids 2,3", 2),
        ("docker run --gpus all vllm/vllm-openai --model a/b", None),
        ("docker run --gpus 2 vllm/vllm-openai --model a/b", 2),
        ("docker run --gpus device=1 vllm/vllm-openai --model a/b", 1),
        ("docker run --gpus '\"device=0,2\"' vllm/vllm-openai --model a/b", 2),
        ("docker run --gpus '\"device=0,2\"' -e CUDA_VISIBLE_DEVICES=1 vllm/vllm-openai --model a/b", 1),
        ("docker run -e NVIDIA_VISIBLE_DEVICES=all vllm/vllm-openai --model a/b", None),
    ],
)
def test_how_many_devices_a_command_sees(line, devices):
    assert read(line).devices == devices


def test_lists_of_devices_end_at_one_that_is_not_there():
    assert devices_of({"CUDA_VISIBLE_DEVICES": "0,1,-1,2"}) == ["0", "1"]


@pytest.mark.parametrize(
    ("line", "numbers"),
    [
        ("CUDA_VISIBLE_DEVICES=1 llama-server -m a.gguf", (1,)),
        ("CUDA_VISIBLE_DEVICES=2,0 vllm serve a/b", (2, 0)),
        ("CUDA_VISIBLE_DEVICES=GPU-8f2 vllm serve a/b", ()),
        ("vllm serve a/b --device-ids 2,3", (2, 3)),
        ("docker run --gpus '\"device=0,2\"' vllm/vllm-openai --model a/b", (0, 2)),
        ("docker run --gpus 2 vllm/vllm-openai --model a/b", ()),
        ("vllm serve a/b", ()),
    ],
)
def test_which_devices_a_command_sees(line, numbers):
    assert read(line).visible == numbers


def test_the_devices_that_are_named_are_asked_about():
    def names(line, gpus):
        words = [*shlex.split(line), "llama-server", "-m", "Qwen3-8B-Q4_K_M.gguf", "-c", "4096"]
        return [one.name for one in ask_command(words, machine_of(gpus), offline=True).devices]

    mixed = "rtx4090+rtx3060+l4"
    assert names("CUDA_VISIBLE_DEVICES=1", mixed) == ["GeForce RTX 3060 12GB"]
    assert names("CUDA_VISIBLE_DEVICES=2,0", mixed) == ["L4", "GeForce RTX 4090"]
    # Of a machine that is described in part the first ones are taken.
    assert names("CUDA_VISIBLE_DEVICES=3", mixed) == ["GeForce RTX 4090"]
    assert names("CUDA_VISIBLE_DEVICES=GPU-8f2", mixed) == ["GeForce RTX 4090"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nohup something else", "cannot read the command"),
        ("uv run --with vllm", "cannot read the command"),
        ("bash", "a shell without a script"),
        ("bash -c 'sleep 5'", "starts no program that is known"),
        ("python train.py", "cannot read the command"),
        ("vllm chat", "only 'vllm serve' starts a server"),
        ("vllm bench serve --model a/b", "only 'vllm serve' starts a server"),
        ("bash -c 'vllm serve a/b -tp $N'", "$N, which is not set here"),
        ("vllm serve a/b --help", "nothing is started"),
        ("sglang serve --help", "nothing is started"),
        ("text-generation-launcher --version", "nothing is started"),
        ("trtllm-serve --help", "nothing is started"),
        ("lmdeploy serve api_server -h", "nothing is started"),
        ("python -m lightllm.server.api_server --help", "nothing is started"),
        ("vllm serve zai-org/GLM-Image --omni", "vLLM-Omni"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(line, message):
    with pytest.raises(BadInput) as error:
        read(line)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_wrapped_commands_are_told_from_models_on_our_own_command_line():
    words = ["--gpu", "l4", "CUDA_VISIBLE_DEVICES=0", "nohup", "uv", "run", "vllm", "serve", "a/b"]
    assert arranged(words, ("inspect",)).launch == words[2:]
    assert not arranged(["org/model", "--gpu", "l4"], ("inspect",)).launch


@given(
    st.lists(
        st.sampled_from(
            ["nohup", "bash", "-c", "vllm", "serve", "docker", "run", "A=1", "--", "env", "uvx", "-m"]
        )
        | st.text(max_size=12),
        max_size=8,
    )
)
def test_any_words_are_read_or_refused(words):
    with suppress(BadInput):
        assert parse_command(words).model
