"""How many tokens prompts have: template and tokenizer are run in a process of their own, for a bounded time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from willfit.checkpoints.tokenizer import TokenizerFiles
from willfit.errors import BadInput
from willfit.prompts.messages import Prompt

#: What counting needs that willfit does not.
NEEDED = ("jinja2", "tokenizers")

#: Seconds for all prompts together. Published templates take milliseconds, a million tokens two seconds.
LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Counted:
    """Tokens of one prompt.

    Attributes
    ----------
    file
        Where it was read.
    tokens
        All that the model is given.
    template_tokens
        How many of them are no text of the messages: roles, turns, tools, first tokens.
    templated
        Whether the model has a chat template.
    """

    file: str
    tokens: int
    template_tokens: int
    templated: bool


def counted(prompts: Sequence[Prompt], files: TokenizerFiles) -> tuple[Counted, ...]:
    """The tokens of prompts as a tokenizer and its chat template make them.

    Raises
    ------
    BadInput
        If what counting needs is not installed, the template refuses a prompt or does not end, or the tokenizer cannot
        be used; or there is no template, and a prompt is a chat.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise BadInput(f"--prompt-file needs {' and '.join(missing)}", "pip install 'willfit[tokens]'")
    jobs = [_job(prompt, files) for prompt in prompts]
    answer = _answer(
        {"tokenizer": files.tokenizer, "special": dict(files.special), "prompts": jobs}, files.name
    )
    return tuple(
        Counted(prompt.file, tokens, of_template, job["template"] is not None)
        for prompt, job, (tokens, of_template) in zip(prompts, jobs, answer, strict=True)
    )


def _job(prompt: Prompt, files: TokenizerFiles) -> dict[str, Any]:
    template = files.tools_template if prompt.tools else files.template
    if template is None and not prompt.plain:
        raise BadInput(
            f"{files.name} has no chat template, and {prompt.file} is a chat", "give the prompt as plain text"
        )
    return {
        "template": template, "texts": prompt.texts, "messages": list(prompt.messages), "tools": list(prompt.tools),
    }  # fmt: skip


def _answer(job: dict[str, Any], name: str) -> list[tuple[int, int]]:
    command = [sys.executable, "-m", "willfit.prompts.worker"]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run(
            command, input=json.dumps(job).encode(), capture_output=True, timeout=LIMIT_S, env=environment
        )
    except subprocess.TimeoutExpired as error:
        what = (
            "splitting the prompts into tokens"
            if b"rendered" in (error.stdout or b"")
            else "its chat template"
        )
        raise BadInput(f"{name}: {what} did not end within {LIMIT_S:g} s") from None
    said = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(said[-1]) if said else {}
    if "counts" in found:
        return [(tokens, of_template) for tokens, of_template in found["counts"]]
    what = "its tokenizer" if b"rendered" in done.stdout else "its chat template"
    raise BadInput(
        f"{name}: {what} cannot be used: {found.get('error', f'its process ended with status {done.returncode}')}"
    )
