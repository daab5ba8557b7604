"""`--prompt-file`: what is counted sets the question, is said in the answer, and reaches the speed."""

import json
from pathlib import Path

import jsonschema
import pytest
from program import willfit
from tokenizers import Tokenizer, models, pre_tokenizers

import willfit as package

SCHEMA = json.loads(Path(package.__file__).parent.joinpath("surfaces", "estimate.schema.json").read_text())
TEMPLATE = "{% for m in messages %}^{{ m.content }}${% endfor %}{% if add_generation_prompt %}^{% endif %}"
MODEL = ("Qwen/Qwen3-8B", "--offline")


@pytest.fixture
def files(tmp_path):
    """A tokenizer with a token for each byte, and two prompts of 100 and of 40 bytes."""
    alphabet = {
        character: number for number, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))
    }
    tokenizer = Tokenizer(models.BPE(alphabet, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    (tmp_path / "long.txt").write_text("é" * 50)
    (tmp_path / "short.txt").write_text("x" * 40)
    return tmp_path


def words(files, *names):
    given = ["--tokenizer", str(files)]
    for name in names:
        given += ["--prompt-file", str(files / name)]
    return given


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_prompts_set_context_and_users(files, engine):
    asked = words(files, "long.txt", "short.txt")
    done = willfit(*MODEL, "--gpu", "rtx4090", "--engine", engine, *asked, "--new-tokens", "1000", "--json")
    answer = json.loads(done.stdout)
    jsonschema.validate(answer, SCHEMA)
    # 100 bytes, ^ and $ around them, ^ for the answer.
    assert {name: answer["prompt"][name] for name in ("count", "tokens", "template_tokens", "new_tokens")} == {
        "count": 2, "tokens": 103, "template_tokens": 3, "new_tokens": 1000,
    }  # fmt: skip
    assert answer["notes"][0].startswith(
        "the longest of 2 prompts: 103 tokens of 2 files with the chat template"
    )
    speed = answer["speed"]
    assert (speed["context"], speed["users"], speed["prompt"]) == (1103, 2, 103)
    plain = willfit(*MODEL, "--gpu", "rtx4090", "--engine", engine, "-c", "1103", "-u", "2", "--json")
    same = json.loads(plain.stdout)
    assert same["speed"]["first_token_s"]["value"] > 2 * speed["first_token_s"]["value"]
    peaks = [one["devices"][0]["peak_bytes"] for one in (answer, same)]
    # A server's pool is for the longest prompt that may come; a script's first pass is over this one.
    assert peaks[0] == peaks[1] if engine == "vllm" else peaks[0] < peaks[1]


def test_what_is_said_holds(files):
    asked = words(files, "long.txt")
    done = willfit(*MODEL, "--gpu", "rtx4090", *asked, "--context", "4k", "--users", "3", "--json")
    speed = json.loads(done.stdout)["speed"]
    assert (speed["context"], speed["users"], speed["prompt"]) == (4096, 3, 103)
    most = json.loads(willfit("max", "users", *MODEL, "--gpu", "rtx4090", *asked, "--json").stdout)
    assert (most["rows"][0]["context"], most["prompt"]["tokens"]) == (615, 103)
    launch = willfit("launch", *MODEL, "--gpu", "rtx4090", *asked, "--engine", "vllm")
    assert "--max-model-len 615" in launch.stdout


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--context", "200"], "--context 200 is less than the prompt's 103 tokens and 512 new"),
        (["--new-tokens", "x"], "expected a whole number"),
        (["--tokenizer", "nowhere"], "does not exist"),
        (["--prompt-file", "nowhere.txt"], "nowhere.txt does not exist"),
    ],
)
def test_one_line_for_what_is_wrong(files, more, said):
    done = willfit(*MODEL, "--gpu", "rtx4090", *words(files, "long.txt"), *more)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_where_prompts_have_no_place(files):
    done = willfit("--gpu", "rtx4090", *words(files, "long.txt"), "vllm", "serve", "Qwen/Qwen3-8B")
    assert "does not go with a launch command" in done.stderr
    assert "needs --prompt-file" in willfit(*MODEL, "--gpu", "rtx4090", "--new-tokens", "5").stderr
    nothing = willfit(
        *MODEL, "--gpu", "rtx4090", "--prompt-file", str(files / "long.txt"), HF_HUB_CACHE=str(files)
    )
    assert "bundled without its tokenizer" in nothing.stderr
    assert "--tokenizer" in nothing.stderr
