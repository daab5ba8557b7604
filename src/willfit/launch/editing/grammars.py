"""How the program of each launcher reads its command line: which flags there are, and in which dialect."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from willfit.launch import lmdeploy, lmstudio, tgi, trtllm, vllm
from willfit.launch.flags import FlagTable, flag_table
from willfit.launch.llama_options import DIALECT as LLAMA
from willfit.launch.scanning import Dialect
from willfit.launch.training.hugging_face import DIALECT as ARGUMENTS


class Grammar(NamedTuple):
    """How a program reads its command line.

    Attributes
    ----------
    tables
        Files of flags; of a flag in several, the first counts.
    dialect
        As its parser reads.
    underscored
        Flags that are added are written with underscores: `--per_device_train_batch_size`.
    variables
        Each flag can be set by a variable of its name in capitals (TGI).
    """

    tables: tuple[str, ...]
    dialect: Dialect = Dialect()
    underscored: bool = False
    variables: bool = False

    @property
    def table(self) -> FlagTable:
        """All flags."""
        return flag_table(*self.tables)


@cache
def grammar_of(launcher: str) -> Grammar | None:
    """The grammar of a launcher's program, by the name of its module; None where words are not edited."""
    trained = ("trl_flags.txt", "trainer_arguments_flags.txt", "script_flags.txt")
    own = Dialect(abbreviations=False, underscores=True)
    return {
        "vllm": Grammar(("vllm_flags.txt", "vllm_bench_flags.txt", "vllm_batch_flags.txt"), vllm.DIALECT),
        "sglang": Grammar(("sglang_flags.txt",)),
        "trtllm": Grammar(("trtllm_flags.txt",), trtllm.DIALECT),
        "tgi": Grammar(("tgi_flags.txt",), tgi.DIALECT, variables=True),
        "lmdeploy": Grammar(("lmdeploy_flags.txt",), lmdeploy.DIALECT),
        "lightllm": Grammar(("lightllm_flags.txt",)),
        "llamacpp": Grammar(("llamacpp_flags.txt", "ik_llama_flags.txt"), LLAMA),
        "llama_cpp_python": Grammar(("llama_cpp_python_flags.txt",), underscored=True),
        "koboldcpp": Grammar(("koboldcpp_flags.txt",)),
        "lmstudio": Grammar(("lms_flags.txt",), lmstudio.DIALECT),
        "ollama": Grammar(("ollama_run_flags.txt", "ollama_create_flags.txt")),
        "hugging_face": Grammar(trained, ARGUMENTS, underscored=True),
        "trl": Grammar(trained, ARGUMENTS, underscored=True),
        "axolotl": Grammar(("axolotl_flags.txt",), own),
        "swift": Grammar(("swift_flags.txt", "trainer_arguments_flags.txt"), own, underscored=True),
        "litgpt": Grammar(("litgpt_flags.txt",), own, underscored=True),
        "torchtitan": Grammar(("torchtitan_flags.txt",), own, underscored=True),
        "megatron": Grammar(("megatron_flags.txt",)),
        "llamafactory": Grammar(
            ("llamafactory_flags.txt", "trainer_arguments_flags.txt"), own, underscored=True
        ),
        "torchtune": Grammar(()),
    }.get(launcher)
