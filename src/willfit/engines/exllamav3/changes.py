"""ExLlamaV3's eras in words."""

from __future__ import annotations

from willfit.engines.changes import Words

WORDS: dict[str, Words] = {
    "slice": Words(
        {0: "prompts unpack whole matrices", 32768: "prompts unpack 32,768 output features at once"},
        ("activations",),
    ),
    "reading": Words(
        {
            "whole": "attention unpacks a layer of a quantized cache whole",
            "direct": "attention reads a quantized cache as it is",
            "scratch": "prompts unpack a layer of a quantized cache to a scratch of its length",
            "window": "prompts unpack at most 65,536 tokens of a quantized cache at once",
        },
        ("activations",),
    ),
    "rings": Words(
        {
            False: "layers with a window keep all tokens",
            True: "layers with a window keep a ring for each sequence, in some models",
        },
        ("window_cache", "kv_cache"),
        ("windows",),
    ),
    "keeps_output": Words(
        {
            False: "attention's output is added to the stream before the MLP",
            True: "attention's output stays while the MLP runs",
        },
        ("activations",),
    ),
    "folded": Words(
        {
            False: "matrices take a rotated copy of their input",
            True: "long prompts need no rotated copy of a matrix' input",
        },
        ("activations",),
    ),
    "expert_buffers": Words(
        {False: "experts run one by one", True: "a kernel runs all experts, with buffers of its own"},
        ("expert_buffers",),
        ("experts",),
    ),
    "grouped": Words(
        {
            False: "experts with many tokens are unpacked one by one",
            True: "experts with many tokens are unpacked in groups, and the loader reserves the most that takes",
        },
        ("activations",),
        ("experts",),
    ),
    "states": Words(
        {
            "one": "recurrent layers keep a state for each sequence",
            "history": "recurrent layers keep a state for each drafted token of each sequence",
            "two": "recurrent layers keep two states for each sequence",
        },
        ("recurrent_state",),
        ("states",),
    ),
    "state_bytes": Words("an element of a recurrent state takes {} B", ("recurrent_state",), ("states",)),
    "cpu_experts": Words(
        {
            False: "experts run on cards alone",
            True: "experts of some layers can run on the processor",
        },
        (),
        ("experts",),
    ),
    "cpu_pages": Words({False: "pages are kept on cards alone", True: "pages can be kept in RAM"}),
}
