"""The process that renders a template and counts tokens: `python -m willfit.prompts.worker`.

It reads one JSON object from standard input (`counting`) and writes lines of JSON: `{"rendered": n}` when the template
is done, then `{"counts": [[tokens, template tokens], ...]}`, or `{"error": ...}`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

#: Address space in bytes: the largest tokenizers take 1 GiB while they are read.
_MEMORY = 8 * 2**30


def main() -> None:
    """Answer one job."""
    _limit()
    job = json.load(sys.stdin)
    try:
        answer: dict[str, Any] = {"counts": _counts(job)}
    except MemoryError:
        answer = {"error": "more memory is needed than is sensible"}
    except Exception as error:
        # Whatever a template or a tokenizer of someone else's makes of it.
        answer = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    _say(answer)


def _counts(job: dict[str, Any]) -> list[tuple[int, int]]:
    from tokenizers import Tokenizer

    rendered = [_rendered(prompt, job["special"]) for prompt in job["prompts"]]
    _say({"rendered": len(rendered)})
    tokenizer = Tokenizer.from_str(job["tokenizer"])
    tokenizer.no_truncation()
    tokenizer.no_padding()
    counts = []
    for prompt, text in zip(job["prompts"], rendered, strict=True):
        if text is None:
            whole = _length(tokenizer, prompt["texts"], True)
            counts.append((whole, whole - _length(tokenizer, prompt["texts"], False)))
            continue
        whole = _length(tokenizer, [text], False)
        counts.append((whole, max(0, whole - _length(tokenizer, prompt["texts"], False))))
    return counts


def _rendered(prompt: dict[str, Any], special: dict[str, str]) -> str | None:
    """The text with the template; None where a text is taken as it is."""
    from willfit.prompts.rendering import render

    if prompt["template"] is None:
        return None
    return render(prompt["template"], prompt["messages"], prompt["tools"], special)


def _length(tokenizer: Any, texts: list[str], special: bool) -> int:
    return sum(len(one) for one in tokenizer.encode_batch_fast(texts, add_special_tokens=special))


def _limit() -> None:
    """Bound this process's memory, where the system can."""
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = _MEMORY if hard == resource.RLIM_INFINITY else min(_MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
