"""Which type `llama-quantize` gives each tensor: its own dry run says."""

from __future__ import annotations

import re

from .library import Library, LogCallback

#: `llama_ftype` of the mixes (include/llama.h).
FILE_TYPES = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11,
    "Q3_K_M": 12, "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18,
    "IQ2_XXS": 19, "IQ2_XS": 20, "Q2_K_S": 21, "IQ3_XS": 22, "IQ3_XXS": 23, "IQ1_S": 24, "IQ4_NL": 25,
    "IQ3_S": 26, "IQ3_M": 27, "IQ2_S": 28, "IQ2_M": 29, "IQ4_XS": 30, "IQ1_M": 31, "BF16": 32, "TQ1_0": 36,
    "TQ2_0": 37, "MXFP4_MOE": 38,
}  # fmt: skip

_LINE = re.compile(r"\[ *\d+/ *\d+\] +(?P<name>\S+) +- \[.*?\], type = +(?P<old>\w+), ")
_NEW = re.compile(r"-> +[\d.]+ MiB \((?P<new>\w+)\)")


def tensor_types(library: Library, path: str, file_type: str) -> dict[str, str]:
    """Type of each tensor of the file after `llama-quantize FILE FILE_TYPE`.

    Raises
    ------
    OSError
        If the library refuses.
    """
    lines: list[str] = []
    callback = LogCallback(lambda _level, text, _data: lines.append(text.decode(errors="replace")))
    library.llama.llama_log_set(callback, None)
    params = library.llama.llama_model_quantize_default_params()
    params.ftype = FILE_TYPES[file_type]
    params.dry_run = True
    params.nthread = 1
    params.allow_requantize = True
    if library.llama.llama_model_quantize(path.encode(), b"", params) != 0:
        raise OSError("".join(lines[-5:]))
    types = {}
    for line in "".join(lines).splitlines():
        if found := _LINE.search(line):
            new = _NEW.search(line)
            types[found["name"]] = (new["new"] if new else found["old"]).upper()
    return types
