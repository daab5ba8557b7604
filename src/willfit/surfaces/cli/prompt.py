"""The prompts that a question is about, as options."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from willfit.errors import BadInput
from willfit.quantities import parse_tokens
from willfit.surfaces.cli.parsing import Parser, if_given, whole

if TYPE_CHECKING:
    from willfit.engines.base import AskedPrompt

#: Tokens of an answer where nothing is said.
_NEW_TOKENS = 512


def add_prompt(parser: Parser) -> None:
    """Prompts in files, which say how long a sequence is and how many there are."""
    parser.add_argument(
        "--prompt-file", metavar="FILE", action="append",
        help="count a prompt with the model's own tokenizer and chat template: plain text (one turn), .json (messages, "
        "or a list of chats) or .jsonl (a chat a line); the longest sets the context, their number the users; "
        "may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--new-tokens", metavar="N", type=whole("--new-tokens", 0),
        help=f"tokens that are generated behind each prompt ({_NEW_TOKENS})",
    )  # fmt: skip
    parser.add_argument(
        "--tokenizer",
        metavar="PATH",
        help="a tokenizer.json, its directory or a GGUF file, instead of the model's own",
    )


def prompt_given(given: Namespace) -> AskedPrompt | None:
    """The prompts that were given, counted; None if there are none.

    Raises
    ------
    BadInput
        If they cannot be counted, or something is said about prompts and there are none.
    """
    if given.prompt_file is None:
        for option in ("new_tokens", "tokenizer"):
            if getattr(given, option) is not None:
                raise BadInput(
                    f"--{option.replace('_', '-')} needs --prompt-file", "name the file of a prompt"
                )
        return None
    from willfit.asking import prompt_about

    new_tokens = _NEW_TOKENS if given.new_tokens is None else given.new_tokens
    if given.model is None:
        raise BadInput("no model was given", "write willfit MODEL --prompt-file FILE")
    return prompt_about(
        given.model, given.prompt_file, new_tokens, given.tokenizer, given.revision, given.offline
    )


def length_given(given: Namespace) -> tuple[int | None, int, AskedPrompt | None]:
    """The context, the users and the prompts: these set the others, unless they are said.

    Raises
    ------
    BadInput
        If a prompt cannot be counted, or does not fit into the context.
    """
    context, prompt = if_given(given.context, parse_tokens), prompt_given(given)
    if prompt is None:
        return context, given.users or 1, None
    if context is not None and context < prompt.context:
        raise BadInput(
            f"--context {context:,} is less than the prompt's {prompt.tokens:,} tokens and {prompt.new_tokens:,} new",
            "leave --context out, or ask for fewer with --new-tokens",
        )
    return context or prompt.context, given.users or prompt.count, prompt
