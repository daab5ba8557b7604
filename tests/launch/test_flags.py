"""Taking command lines apart as argparse, click and clap do."""

from typing import get_args

import pytest

from willfit.errors import BadInput
from willfit.launch.config_files import with_config
from willfit.launch.flags import Flag, FlagTable, Takes, flag_table
from willfit.launch.notes import not_counted, of_other_versions
from willfit.launch.scanning import Dialect, scan
from willfit.launch.table import parse_command
from willfit.launch.values import stoi, without_units

ROWS = (
    Flag("--tp-size", "value", "int"),
    Flag("--dtype", "value", "auto|half?"),
    Flag("--host", "value", "str", quiet=True),
    Flag("--hosts-file", "value", "str", quiet=True),
    Flag("--names", "values"),
    Flag("--paths", "any"),
    Flag("--eager", "switch", "-"),
    Flag("--enable-lora", "toggle", "-"),
    Flag("--chunked", "boolean", "-"),
    Flag("--token", "optional"),
    Flag("--config", "value", "json"),
    Flag("--share", "value", "float", about="shares"),
    Flag("--old", "value", "int", since="1.1", until="1.2", about="shares"),
    Flag("--older", "value", "int", until="1.1"),
)
TABLE = FlagTable(
    {row.name: row for row in ROWS} | {"-tp": ROWS[0], "-q": ROWS[1]}, ("1.0", "1.1", "1.2", "1.3")
)
VLLM = Dialect(underscores=True, fields=True, inverses=True)


def read(line, dialect=VLLM, version=None):
    scanned = scan(line.split(), TABLE, "prog", dialect, version)
    return scanned.positionals, scanned.options.data


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("--tp-size 2 --tp-size=4", {"--tp-size": "4"}),
        ("--tp_size 2", {"--tp-size": "2"}),
        ("-tp 2", {"--tp-size": "2"}),
        ("-tp=2", {"--tp-size": "2"}),
        ("--tp 2", {"--tp-size": "2"}),
        ("-qhalf", {"--dtype": "half"}),
        ("--dtype half --dtype None", {}),
        ("--host x", {"--host": "x"}),  # begins another flag, but is one itself
        ("--names a b --eager", {"--names": ["a", "b"], "--eager": True}),
        ("--paths --eager", {"--paths": [], "--eager": True}),
        ("--enable-lora --no-enable-lora", {"--enable-lora": False}),
        ("--disable-lora", {"--enable-lora": False}),
        ("--no-enable-l", {"--enable-lora": False}),
        ("--disable-l", {"--enable-lora": False}),
        ("--chunked false --eager", {"--chunked": False, "--eager": True}),
        ("--chunked=True", {"--chunked": True}),
        ("--chunked --eager", {"--chunked": True, "--eager": True}),
        ("--token --eager", {"--token": True, "--eager": True}),
        ("--token abc", {"--token": "abc"}),
        ("--share -1", {"--share": "-1"}),
        (
            "--config.a.b 1 --config.a.c=x --config.l+ p,q",
            {"--config": '{"a": {"b": 1, "c": "x"}, "l": ["p", "q"]}'},
        ),
        # Fields stand behind everything else, so what was given whole is gone (vLLM's own order).
        ('--config.a 32k --config {"b":2}', {"--config": '{"a": 32000}'}),
        ('--config {"a":80m}', {"--config": '{"a":80m}'}),
    ],
)
def test_options(line, options):
    assert read(line) == ([], options)


def test_positionals():
    assert read("a --eager b -- --eager")[0] == ["a", "b", "--eager"]
    assert read("--chunked a")[0] == ["a"]
    assert read("-5 -")[0] == ["-5", "-"]


@pytest.mark.parametrize(
    ("line", "dialect", "message"),
    [
        ("--tp-sise 2", VLLM, "has no flag --tp-sise (did you mean --tp-size?)"),
        ("--tp_size 2", Dialect(), "has no flag --tp_size (did you mean --tp-size?)"),
        ("--tp 2", Dialect(abbreviations=False), "has no flag --tp"),
        ("--ho x", VLLM, "--ho could be --host, --hosts-file"),
        ("--disable-lora", Dialect(), "has no flag --disable-lora"),
        ("--no-tp-size", VLLM, "has no flag --no-tp-size"),
        ("--eager=1", VLLM, "--eager takes no value"),
        ("--tp-size", VLLM, "--tp-size needs a value"),
        ("--tp-size --eager", VLLM, "--tp-size needs a value"),
        ("--names --eager", VLLM, "--names needs a value"),
        ("--tp-size two", VLLM, "--tp-size is 'two', expected a whole number"),
        ("--tp-size None", VLLM, "--tp-size is 'None'"),
        ("--share lots", VLLM, "expected a number"),
        ("--dtype fp3", VLLM, "there is no --dtype fp3 (known: auto, half)"),
        ("--chunked=maybe", VLLM, "expected true or false"),
        ("--config {", VLLM, "--config is not JSON"),
        ("--config.a", VLLM, "--config.a needs a value"),
        ("--tp-size.a 1", VLLM, "--tp-size has no fields"),
        ("--host a --host b", Dialect(once=True), "--host may stand once only"),
        ("--tp-size $TP", VLLM, "--tp-size is $TP, which is not set here"),
    ],
)
def test_what_a_parser_would_refuse(line, dialect, message):
    with pytest.raises(BadInput) as error:
        read(line, dialect)
    assert message in str(error.value)


def test_click_takes_any_word_for_a_value():
    assert read("--host --eager", Dialect(abbreviations=False, greedy=True)) == ([], {"--host": "--eager"})


def test_flags_of_other_versions_are_read_and_said():
    def notes(line, version):
        return of_other_versions(scan(line.split(), TABLE, "prog", VLLM, version), TABLE, "Prog", version)

    assert notes("--old 1", "1.1") == notes("--old 1", "1.2.5") == []
    assert notes("--old 1", "1.0") == ["Prog 1.0 has no --old (1.1 to 1.2)"]
    assert notes("--old 1", "1.3") == ["Prog 1.3 has no --old (1.1 to 1.2)"]
    assert notes("--older 1", "1.9") == ["Prog 1.9 has no --older (until 1.1)"]
    # Between two versions that were looked into nothing is known.
    assert notes("--old 1", "1.0.5") == []


def test_an_abbreviation_means_a_flag_of_the_version():
    assert read("--ol 1", version="1.2")[1] == {"--old": "1"}
    assert read("--ol 1", version="1.0")[1] == {"--older": "1"}
    with pytest.raises(BadInput, match="--ol could be --old, --older"):
        read("--ol 1", version="1.1")


def test_what_nobody_looked_at_is_named_once():
    words = ["--tp-size", "2", "--share", "0.5", "--old", "3", "--host", "h", "--enable-lora"]
    scanned = scan(words, TABLE, "prog", VLLM)
    assert scanned.options["--tp_size"] == "2"  # either spelling will do
    assert not_counted(scanned) == ["shares (--share, --old) are not counted", "--enable-lora is not counted"]
    assert not not_counted(scan(["--old", "1", "--no-enable-lora"], TABLE, "prog", VLLM))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("32768", 32768),
        ("32k", 32_000),
        ("32K", 32_768),
        ("1.5k", 1500),
        ("2T", 2**41),
        ("1.5K", None),
        ("9" * 400 + ".5k", None),
        ("x", None),
    ],
)
def test_numbers_with_units(text, number):
    assert without_units(text) == number


# What llama.cpp's parser does

CPP_ROWS = (
    Flag("--layers", "value", "stoi"),
    Flag("--scale", "value", "stof", quiet=True),
    Flag("--adapter", "each", about="adapters"),
    Flag("--range", "pair", "stoi"),
    Flag("--mmap", "switch", "-"),
    Flag("--slots", "switch", "-", programs=("server",)),
    Flag("--images", "values", programs=("mtmd", "server")),
    Flag("--fit", "value", "on|off", since="b2"),
)
CPP = FlagTable(
    {row.name: row for row in CPP_ROWS} | {"-ngl": CPP_ROWS[0], "-lora": CPP_ROWS[2], "-fit": CPP_ROWS[-1]},
    ("b1", "b2"),
    {"--no-mmap": CPP_ROWS[4], "-nm": CPP_ROWS[4], "--no-slots": CPP_ROWS[5]},
)
EXACT = Dialect(abbreviations=False, underscores=True, greedy=True, exact=True)


def read_exactly(line, table=CPP):
    return scan(line.split(), table, "prog", EXACT)


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("-ngl 3 --layers 4", {"--layers": "4"}),
        ("--layers -1", {"--layers": "-1"}),
        ("--layers 8k", {"--layers": "8k"}),  # which is 8
        ("--scale .5x", {"--scale": ".5x"}),
        ("--adapter a -lora b", {"--adapter": ["a", "b"]}),
        ("--adapter a b", {"--adapter": ["a"]}),
        ("--images a b --mmap --images c", {"--images": ["a", "b", "c"], "--mmap": True}),
        ("--range 1 -2", {"--range": ["1", "-2"]}),
        ("--mmap -nm", {"--mmap": False}),
        ("--no_mmap", {"--mmap": False}),
        ("--adapter --mmap", {"--adapter": ["--mmap"]}),
    ],
)
def test_flags_are_words(line, options):
    assert read_exactly(line).options.data == options


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--layers=3", "has no flag --layers=3 (did you mean --layers?)"),
        ("-ngl3", "has no flag -ngl3 (did you mean -ngl?)"),
        ("--lay 3", "has no flag --lay"),
        ("--layers all", "--layers is 'all', expected a whole number"),
        ("--layers 4294967296", "expected a whole number"),
        ("--scale x", "expected a number"),
        ("--range 1", "--range needs a value"),
        ("--no-layers 1", "has no flag --no-layers"),
        ("--fit maybe", "there is no --fit maybe (known: on, off)"),
    ],
)
def test_what_is_no_such_word_is_refused(line, message):
    with pytest.raises(BadInput) as error:
        read_exactly(line)
    assert message in str(error.value)


def test_programs_of_a_family_differ():
    server, other = CPP.of_program("server"), CPP.of_program("main")
    assert read_exactly("--slots --images a", server).options.data == {"--slots": True, "--images": ["a"]}
    assert read_exactly("--no-slots", server).options.data == {"--slots": False}
    for line in ("--slots", "--no-slots", "--images a"):
        with pytest.raises(BadInput, match="prog has no flag"):
            read_exactly(line, other)
    assert read_exactly("-nm", other).options.data == {"--mmap": False}


def test_flags_are_named_as_they_were_written():
    scanned = read_exactly("-fit on")
    assert of_other_versions(scanned, CPP, "Prog", "b1") == ["Prog b1 has no -fit (since b2)"]
    assert not of_other_versions(scanned, CPP, "Prog", "b3")


@pytest.mark.parametrize(("text", "number"), [("32k", 32), (" -1", -1), ("+7.9", 7), ("0x10", 0)])
def test_numbers_of_cpp(text, number):
    assert stoi(text) == number


def test_a_row_of_a_table():
    table = flag_table("llamacpp_flags.txt")
    flag = table.flags["-c"]
    assert (flag.name, flag.takes, flag.kind) == (table.flags["--ctx-size"].name, "value", "stoi")
    assert flag.variables == ("LLAMA_ARG_CTX_SIZE",)
    assert table.negatives["--no-mmap"].name == table.flags["--mmap"].name
    assert "--parallel" in table.of_program("server").flags


@pytest.mark.parametrize(
    "name",
    [
        *("vllm", "vllm_bench", "vllm_batch", "sglang", "lmdeploy", "lightllm", "tgi", "trtllm"),
        *("llamacpp", "llamabench", "llamarun", "ik_llama", "ik_llamabench", "llama_cpp_python", "koboldcpp"),
        *(
            "mlx_server",
            "mlx_generate",
            "mlx_chat",
            "mlx_benchmark",
            "mlx_vlm",
            "tabby",
            "exllamav2",
            "exllamav3",
            "kt",
            "ktransformers",
            "fastllm",
            "mlc",
        ),
    ],
)
def test_tables_are_whole(name):
    table = flag_table(f"{name}_flags.txt")
    assert table.flags
    assert all(flag in table.flags.values() for flag in table.negatives.values())
    for flag in table.flags.values():
        assert flag.takes in get_args(Takes)
        assert {flag.since, flag.until} <= {"", *table.versions}
        assert flag.kind
        if flag.takes == "value":
            assert flag.kind != "-"


# Files of settings


def test_vllm_reads_a_file_and_the_command_wins(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(
        "model: org/other\ntensor-parallel-size: 4\nmax-model-len: 8192\nenforce-eager: true\n"
        "enable_prefix_caching: false\nspeculative-config:\n  method: mtp\n  num_speculative_tokens: 2\n"
        "served-model-name: [a, b]\ntrust-remote-code: false\n"
    )
    launch = parse_command(["vllm", "serve", "org/model", "--config", str(file), "-tp", "2"])
    settings = launch.settings
    assert launch.model == "org/model"
    assert (settings.tensor_parallel, settings.max_model_len, settings.enforce_eager) == (2, 8192, True)
    assert (settings.enable_prefix_caching, settings.speculative_tokens, settings.mtp) == (False, 2, True)
    assert launch.notes == ()
    assert parse_command(["vllm", "serve", "--config", str(file)]).model == "org/other"
    inside = ["docker", "run", "-v", f"{tmp_path}:/cfg", "vllm/vllm-openai", "--config", "/cfg/config.yaml"]
    assert parse_command(inside).settings.max_model_len == 8192


def test_sglang_reads_a_file(tmp_path):
    file = tmp_path / "config.yml"
    file.write_text("model-path: org/model\ntp-size: 4\ndisable-cuda-graph: true\nmem-fraction-static: 0.7\n")
    launch = parse_command(["sglang", "serve", "--config", str(file), "--tp", "2"])
    assert launch.model == "org/model"
    assert (launch.settings.tp_size, launch.settings.disable_cuda_graph) == (2, True)
    assert launch.settings.mem_fraction_static == 0.7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML"),
        ("- a", "does not hold names and values"),
        ("max-modle-len: 5", "did you mean --max-model-len?"),
        ("tensor-parallel-size: many", "--tensor-parallel-size is 'many'"),
    ],
)
def test_files_that_vllm_would_refuse(tmp_path, text, message):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(BadInput, match=message.replace("?", r"\?")):
        parse_command(["vllm", "serve", "m/m", "--config", str(file)])


def test_files_that_are_not_read(tmp_path):
    table = flag_table("vllm_flags.txt")
    words, notes = with_config(["m", "--config=/x.yaml"], table, "vllm serve", keep_first=True)
    assert words == ["m", "--config=/x.yaml"]
    assert "two words" in notes[0]
    words, notes = with_config(["m", "--config", "/nowhere.yaml"], table, "vllm serve", keep_first=True)
    assert words == ["m"]
    assert "/nowhere.yaml" in notes[0]
    for line in (["--config"], ["--config", "x.json"], ["--config", "a.yaml", "--config", "b.yaml"]):
        with pytest.raises(BadInput):
            with_config(line, table, "vllm serve", keep_first=True)
