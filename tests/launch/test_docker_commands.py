"""`docker run ...` as people write it: which command runs inside, with which variables."""

import shlex
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.engines.lmdeploy import Settings as LmdeploySettings
from willfit.engines.vllm import Settings as VllmSettings
from willfit.errors import BadInput
from willfit.launch.table import parse_command


def read(line, version=None):
    return parse_command(shlex.split(line), version)


def test_an_image_that_starts_vllm():
    launch = read(
        """docker run --runtime nvidia --gpus all
        -v ~/.cache/huggingface:/root/.cache/huggingface
        --env "HUGGING_FACE_HUB_TOKEN=secret" -p 8000:8000 --ipc=host
        vllm/vllm-openai:v0.8.5 --model mistralai/Mistral-7B-v0.1 --tensor-parallel-size 2"""
    )
    assert (launch.engine, launch.model) == ("vllm", "mistralai/Mistral-7B-v0.1")
    assert launch.settings == VllmSettings(version="0.8.5", tensor_parallel=2)
    assert launch.notes == ("version 0.8.5 is that of the image's tag",)


def test_a_command_behind_the_image():
    launch = read(
        """docker run --runtime nvidia --gpus all -v ~/.cache/huggingface:/root/.cache/huggingface
        --env "HUGGING_FACE_HUB_TOKEN=<secret>" -p 23333:23333 --ipc=host openmmlab/lmdeploy:latest
        lmdeploy serve api_server internlm/internlm2_5-7b-chat --tp 2"""
    )
    assert (launch.engine, launch.model) == ("lmdeploy", "internlm/internlm2_5-7b-chat")
    assert launch.settings == LmdeploySettings(tp=2)


def test_an_image_that_starts_tgi():
    launch = read(
        "docker run --gpus all --shm-size 1g -p 8080:80 -v /srv/data:/data -e NUM_SHARD=2 "
        "ghcr.io/huggingface/text-generation-inference:3.3.5 --model-id HuggingFaceH4/zephyr-7b-beta"
    )
    assert (launch.engine, launch.model) == ("tgi", "HuggingFaceH4/zephyr-7b-beta")
    assert (launch.settings.version, launch.settings.num_shard) == ("3.3.5", 2)


def test_a_script_behind_the_image():
    launch = read(
        "docker run -it --gpus all -p 8080:8080 --shm-size 32g -v your_local_path:/data/ "
        "ghcr.io/modeltc/lightllm:main /bin/bash -c "
        "'LOADWORKER=18 python -m lightllm.server.api_server --model_dir /data/Qwen3-8B --tp 2'"
    )
    # A named volume is no folder of this machine.
    assert (launch.engine, launch.model, launch.settings.tp) == ("lightllm", "/data/Qwen3-8B", 2)


def test_an_interactive_shell():
    # LMDeploy's docs/en/get_started/ascend/get_started.md
    image = "crpi-4crprmm5baj1v8iv.cn-hangzhou.personal.cr.aliyuncs.com/lmdeploy_dlinfer/ascend:a2-latest"
    script = "lmdeploy serve api_server --backend pytorch --device ascend internlm/internlm2_5-7b-chat"
    launch = read(f"docker run -it --net=host {image} bash -i -c '{script}'")
    assert (launch.model, launch.settings.backend) == ("internlm/internlm2_5-7b-chat", "pytorch")


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("vllm/vllm-openai:v0.11.0", "0.11.0"),
        ("docker.io/vllm/vllm-openai:v0.11.0", "0.11.0"),
        ("localhost:5000/vllm/vllm-openai:v0.11.0", "0.11.0"),
        ("vllm/vllm-openai:v0.8.5.post1", "0.8.5.post1"),
        ("vllm/vllm-openai:v0.11.0-x86_64", "0.11.0"),
        ("vllm/vllm-openai:v0.11.0@sha256:00ff", "0.11.0"),
        ("vllm/vllm-openai:latest", None),
        ("vllm/vllm-openai:nightly", None),
        ("vllm/vllm-openai", None),
        ("localhost:5000/vllm/vllm-openai", None),
    ],
)
def test_tags(image, version):
    launch = read(f"docker run {image} --model org/model")
    assert launch.model == "org/model"
    assert launch.settings.version == (version or VllmSettings().version)
    # What is asked for counts more than the tag.
    assert read(f"docker run {image} --model org/model", "0.9.0").settings.version == "0.9.0"


def test_a_tag_of_another_house_is_no_version():
    launch = read("docker run nvcr.io/nvidia/vllm:25.09-py3 vllm serve org/model")
    assert launch.settings.version == VllmSettings().version


@pytest.mark.parametrize(
    "options",
    [
        "-it",
        "-itd --rm",
        "-it -p8000:8000",
        "-dp 8000:8000",
        "--gpus=all --ipc host --ulimit memlock=-1 --ulimit stack=67108864",
        "--name=x --network host --restart unless-stopped -w /app -u 1000:1000",
        "--mount type=bind,source=/a,target=/b --cap-add SYS_PTRACE --security-opt seccomp=unconfined",
        "--device /dev/kfd --device=/dev/dri --group-add video",
        "--",
    ],
)
@pytest.mark.parametrize(
    "program", ["docker run", "docker container run", "podman run", "/usr/bin/docker run"]
)
def test_options_end_at_the_image(program, options):
    launch = read(f"{program} {options} vllm/vllm-openai org/model -tp 2")
    assert (launch.model, launch.settings.tensor_parallel) == ("org/model", 2)


def test_entry_points_and_scripts():
    line = "docker run --entrypoint vllm some/image serve org/model -tp 2"
    assert read(line).settings.tensor_parallel == 2
    line = "docker run --entrypoint bash some/image -c 'pip install x && exec vllm serve org/model -tp 4 > log 2>&1'"
    assert read(line).settings.tensor_parallel == 4
    line = "docker run --entrypoint /bin/bash some/image -lc 'cd /x; A=b vllm serve org/model \\\n -tp 4'"
    assert read(line).settings.tensor_parallel == 4


def test_variables_reach_the_launcher():
    line = "docker run -e VLLM_USE_V1=0 vllm/vllm-openai:v0.8.5 --model org/model"
    assert read(line).settings.generation == "v0"
    # A name alone passes on the value from outside; a value from outside alone does not get in.
    line = "VLLM_USE_V1=1 docker run -e VLLM_USE_V1 vllm/vllm-openai:v0.8.5 --model org/model"
    assert read(line).settings.generation == "v1"
    line = "VLLM_USE_V1=1 docker run vllm/vllm-openai:v0.8.5 --model org/model"
    assert read(line).settings.generation is None


def test_variables_in_front_of_a_command():
    plain = read("VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=1 CUDA_VISIBLE_DEVICES=0,1 vllm serve org/model")
    assert plain.settings.estimate_cudagraphs is True
    assert plain.notes == ()
    through = read("env VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=0 vllm serve org/model")
    assert through.settings.estimate_cudagraphs is False
    assert read("VLLM_PP_LAYER_PARTITION=9,7 VLLM_LOGGING_LEVEL=DEBUG vllm serve org/model").notes == (
        "the variable VLLM_PP_LAYER_PARTITION is not counted",
    )
    # Versions without the older engine have nothing to choose.
    assert read("VLLM_USE_V1=0 vllm serve org/model", "0.11.0").settings.generation is None
    with pytest.raises(BadInput, match="VLLM_USE_V1 is 'yes', expected 0 or 1"):
        read("VLLM_USE_V1=yes vllm serve org/model")


def test_models_in_mounted_folders_are_those_of_the_host():
    image = "vllm/vllm-openai --model"
    assert read(f"docker run -v /srv/models:/models {image} /models/a/b").model == "/srv/models/a/b"
    assert read(f"docker run -v /srv/models:/models:ro {image} /models").model == "/srv/models"
    assert read(f"docker run -v /srv/models:/models/ {image} /modelsets/a").model == "/modelsets/a"
    both = "-v /outer:/m --mount type=bind,src=./inner,dst=/m/deep"
    assert read(f"docker run {both} {image} /m/deep/a").model == "./inner/a"
    assert read(f"docker run {both} {image} /m/a").model == "/outer/a"


def test_what_is_not_counted_is_said_without_secrets():
    launch = read(
        "docker run --gpus '\"device=0,1\"' -m 16g --env-file x -e CUDA_VISIBLE_DEVICES=1 -e HF_TOKEN=secret "
        "vllm/vllm-openai --model org/model"
    )
    notes = " ".join(launch.notes)
    assert "16g of RAM" in notes
    assert "--env-file" in notes
    assert launch.devices == 1  # those of the variable, out of the two that the container gets
    assert "secret" not in notes


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("docker", "only 'docker run' is read"),
        ("docker compose up", "only 'docker run' is read"),
        ("podman pull vllm/vllm-openai", "only 'podman run' is read"),
        ("docker run", "no image is named"),
        ("docker run --gpus", "--gpus needs a value"),
        ("docker run --gpu all vllm/vllm-openai org/model", "did you mean --gpus?"),
        ("docker run -z vllm/vllm-openai org/model", "docker run has no flag -z"),
        ("docker run some/image", "what some/image starts is not known"),
        ("docker run some/image sleep 5", "cannot read the command 'sleep 5'"),
        ("docker run some/image bash", "a shell without a script"),
        ("docker run some/image bash -c 'sleep 5'", "starts no program that is known"),
        ('docker run some/image bash -c "echo \'"', "cannot read the script"),
        (
            "docker run vllm/vllm-openai --model m --gpu-memory-utilisation 0.9",
            "did you mean --gpu-memory-utilization",
        ),
    ],
)
def test_mistakes_are_named(line, message):
    with pytest.raises(BadInput) as error:
        read(line)
    assert message in str(error.value)


@given(st.lists(st.text(min_size=1, max_size=12), max_size=6))
def test_any_words_are_read_or_refused_with_one_line(words):
    with suppress(BadInput):
        assert parse_command(["docker", "run", "vllm/vllm-openai", *words]).engine == "vllm"
    with suppress(BadInput):
        parse_command(["podman", "run", *words])


@pytest.mark.parametrize(
    ("image", "variables", "samples"),
    [
        ("vllm/vllm-openai:v0.10.2", {}, True),  # the image brings FlashInfer, which 0.10 then uses
        ("vllm/vllm-openai:v0.10.2", {"VLLM_USE_FLASHINFER_SAMPLER": "0"}, False),
        ("vllm/vllm-openai:v0.12.0", {}, None),  # not unless asked to
        ("rocm/vllm:rocm6.4.1_vllm_0.9.1_20250702", {}, None),
    ],
)
def test_vllms_image_brings_flashinfer(image: str, variables: dict[str, str], samples: bool | None) -> None:
    given = [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]
    command = ["vllm", "serve"] if image.startswith("rocm") else []
    launch = parse_command(["docker", "run", *given, image, *command, "Qwen/Qwen3-8B"])
    assert launch.settings.flashinfer_sampler is samples


@pytest.mark.parametrize(
    ("image", "words", "fields"),
    [
        ("ghcr.io/ggml-org/llama.cpp:server-cuda", "-m a.gguf", {"backend": "cuda"}),
        (
            "ghcr.io/ggml-org/llama.cpp:server-cuda-b6000",
            "-m a.gguf",
            {"backend": "cuda", "version": "b6000"},
        ),
        (
            "ghcr.io/ggml-org/llama.cpp:server-cuda13-v0.4.1",
            "-m a.gguf",
            {"backend": "cuda", "version": "0.4.1"},
        ),
        ("ghcr.io/ggerganov/llama.cpp:light-rocm", "-m a.gguf", {"backend": "rocm", "program": "cli"}),
        ("local/llama.cpp:full-vulkan", "--bench -m a.gguf", {"backend": "vulkan", "program": "bench"}),
        (
            "ghcr.io/ggml-org/llama.cpp:full-intel",
            "--run-legacy -m a.gguf",
            {"backend": "sycl", "program": "api"},
        ),
        ("ghcr.io/ggml-org/llama.cpp:server-musa", "-m a.gguf", {"backend": None}),
        ("ghcr.io/ggml-org/llama.cpp:server", "-m a.gguf -ngl 99", {"backend": "cpu", "devices": ()}),
        ("ghcr.io/ggml-org/llama.cpp:b6000", "llama-server -m a.gguf", {"backend": None}),
        ("koboldai/koboldcpp:latest", "--model a.gguf --gpulayers 9", {"program": "api", "n_gpu_layers": 9}),
    ],
)
def test_images_of_llama_cpp(image, words, fields):
    launch = parse_command(["docker", "run", "--gpus", "1", image, *words.split()])
    assert (launch.engine, launch.model, launch.devices) == ("llama.cpp", "a.gguf", 1)
    for name, value in fields.items():
        assert getattr(launch.settings, name) == value, name


def test_variables_stand_for_flags_in_containers():
    line = "docker run -e LLAMA_ARG_CTX_SIZE=4096 -e LLAMA_ARG_MODEL=/m/a.gguf -v /x:/m"
    launch = parse_command([*line.split(), "ghcr.io/ggml-org/llama.cpp:server-cuda"])
    assert (launch.model, launch.settings.n_ctx) == ("/x/a.gguf", 4096)
    line = "docker run -e MODEL=/m/a.gguf -e N_CTX=512 -v /x:/m ghcr.io/abetlen/llama-cpp-python:v0.2.60"
    launch = parse_command(line.split())
    assert (launch.model, launch.settings.n_ctx, launch.settings.version) == ("/x/a.gguf", 512, "b2616")
    words = [
        "docker",
        "run",
        "-e",
        "KCPP_ARGS=--usecublas --gpulayers 7",
        "-e",
        "KCPP_MODEL=https://x/a.gguf,https://x/b",
    ]
    launch = parse_command([*words, "koboldai/koboldcpp"])
    assert (launch.model, launch.settings.n_gpu_layers) == ("https://x/a.gguf", 7)


def test_files_beside_a_model_are_those_of_the_host():
    line = "docker run -v /x:/m ghcr.io/ggml-org/llama.cpp:server-cuda -m /m/a.gguf -md /m/b.gguf --mmproj /m/p.gguf"
    launch = parse_command(line.split())
    assert (launch.model, launch.draft.model) == ("/x/a.gguf", "/x/b.gguf")
    assert launch.notes == ("the projector /x/p.gguf cannot be read here; it is not counted",)


def test_docker_model_is_refused_with_a_hint():
    with pytest.raises(BadInput, match=r"models of Docker Hub are not read.*llama-server"):
        parse_command(["docker", "model", "run", "ai/smollm2"])
