import contextlib
import struct
import time
from pathlib import Path

import gguf as oracle
import numpy as np
import pytest
from checkpoint_files import Bytes, gguf, info, key, local, text, traced_peak
from hypothesis import given
from hypothesis import strategies as st

from willfit.checkpoints.gguf import GgufArray, GgufTensor, read_gguf, read_header
from willfit.checkpoints.source import LocalFile
from willfit.errors import BadInput
from willfit.ggml_types import GGML_TYPES

U32, STRING, ARRAY = 4, 8, 9


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A file by llama.cpp's own writer: a 150k vocabulary, arrays per layer, each tensor type."""
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    writer = oracle.GGUFWriter(path, "qwen3")
    writer.add_context_length(40960)
    writer.add_float32("qwen3.rope.freq_base", 1e6)
    writer.add_bool("qwen3.flag", True)
    writer.add_int64("qwen3.negative", -5)
    writer.add_array("qwen3.attention.head_count_kv", [8, 8, 2, 2])
    writer.add_array("qwen3.rope.sections", [1.5, 2.5])
    writer.add_array("general.tags", ["a", "bc"])
    writer.add_tokenizer_model("gpt2")
    writer.add_array("tokenizer.ggml.tokens", [f"word{i}é" for i in range(151_936)])
    writer.add_array("tokenizer.ggml.token_type", [1] * 151_936)
    writer.add_array("tokenizer.ggml.eos_token_ids", [1, 2])
    writer.add_tensor("output_norm.weight", np.zeros(256, np.float32))
    for name, kind in GGML_TYPES.items():
        if name in oracle.GGMLQuantizationType.__members__:
            number = oracle.GGMLQuantizationType[name]
            raw = np.zeros((3, 512 // kind.block * kind.bytes), np.uint8)
            writer.add_tensor(f"blk.0.{name}.weight", raw, raw_dtype=number)
    writer.add_tensor("blk.0.experts.weight", np.zeros((4, 3, 64), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_agrees_with_the_reference_reader(written):
    with LocalFile(written) as source:
        header = read_header(source)
    reader = oracle.GGUFReader(written)
    assert header.version == 3
    assert not header.big_endian
    assert [(t.name, t.type, t.ne, t.bytes, t.offset) for t in header.tensors] == [
        (t.name, t.tensor_type.name, tuple(t.shape.tolist()), int(t.n_bytes), t.data_offset)
        for t in reader.tensors
    ]
    assert header.tensors[-1].shape == (4, 3, 64)
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert header.metadata.keys() == fields.keys()
    for name, value in header.metadata.items():
        if isinstance(value, GgufArray):
            assert value.length == len(fields[name].data)
        elif isinstance(value, tuple):
            assert list(value) == fields[name].contents()
        else:
            assert value == fields[name].contents()
    assert header.metadata["qwen3.attention.head_count_kv"] == (8, 8, 2, 2)
    assert header.metadata["tokenizer.ggml.tokens"] == GgufArray("string", 151_936)
    assert header.metadata["tokenizer.ggml.eos_token_ids"] == GgufArray("int32", 2)


def test_a_vocabulary_costs_neither_time_nor_memory(written):
    best = 9.0
    for _ in range(3):
        start = time.perf_counter()
        with LocalFile(written) as source:
            read_header(source)
        best = min(best, time.perf_counter() - start)
    assert best < 0.5  # 151,936 strings; 0.03 s where this was written
    with LocalFile(written) as source:
        peak = traced_peak(lambda: read_header(source))
    assert peak < 6 * 2**20  # chunks of up to 4 MiB, not the strings


def test_big_endian_and_version_2(tmp_path):
    writer = oracle.GGUFWriter(tmp_path / "be.gguf", "llama", endianess=oracle.GGUFEndian.BIG)
    writer.add_block_count(7)
    writer.add_array("llama.attention.head_count_kv", [1, 2])
    writer.add_tensor("a", np.zeros((2, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with LocalFile(tmp_path / "be.gguf") as source:
        header = read_header(source)
    assert header.big_endian
    assert header.metadata["llama.block_count"] == 7
    assert header.metadata["llama.attention.head_count_kv"] == (1, 2)
    assert (header.tensors[0].ne, header.tensors[0].bytes) == ((32, 2), 256)

    data = gguf([key("a", U32, struct.pack("<I", 5))], [info("t", (32,), 0, 0)], 128, version=2)
    assert read_header(Bytes(data)).metadata == {"a": 5}


def test_alignment_moves_the_data():
    keys = [key("general.alignment", U32, struct.pack("<I", 256))]
    data = gguf(keys, [info("a", (32,), 0, 0), info("b", (1,), 0, 256)], 260, alignment=256)
    header = read_header(Bytes(data))
    # 24 + key 8 + 17 + 4 + 4 + infos 2 * (8 + 1 + 4 + 8 + 4 + 8) = 123 B, padded to 256
    assert [t.offset for t in header.tensors] == [256, 512]


def test_arrays_of_arrays_are_walked():
    inner = struct.pack("<IQ", U32, 2) + bytes(8)
    strings = struct.pack("<IQ", STRING, 2) + text("ab") + text("")
    keys = [key("n", ARRAY, struct.pack("<IQ", ARRAY, 3) + inner + strings + inner), key("z", U32, bytes(4))]
    assert read_header(Bytes(gguf(keys))).metadata == {"n": GgufArray("array", 3), "z": 0}


HUGE = struct.pack("<Q", 2**63)
T = info("t", (32,), 0, 0)
BROKEN = {
    "version 1": (gguf(version=1), "version 1"),
    "version 4": (gguf(version=4), "version 4"),
    "big-endian version 2": (gguf(version=2, order=">"), "version 2"),
    "tensor count": (gguf(counts=(2**63, 0)), "claims 9223372036854775808 tensors"),
    "key count": (gguf(counts=(0, 2**63)), "9223372036854775808 keys"),
    "more keys than there are": (gguf(counts=(0, 60_000)), "truncated"),
    "key length": (gguf([HUGE + bytes(40)]), "would be 9223372036854775808 bytes"),
    "key is not text": (
        gguf([struct.pack("<Q", 1) + b"\xff" + struct.pack("<I", U32) + bytes(4)]),
        "not UTF-8",
    ),
    "text length": (gguf([key("a", STRING, HUGE)]), "would be 9223372036854775808 bytes"),
    "text beyond the end": (gguf([key("a", STRING, struct.pack("<Q", 2**20))]), "truncated"),
    "unknown type": (gguf([key("a", 13, bytes(8))]), "unknown type 13"),
    "unknown array type": (gguf([key("a", ARRAY, struct.pack("<IQ", 99, 1))]), "unknown type 99"),
    "array length": (gguf([key("a", ARRAY, struct.pack("<I", U32) + HUGE)]), "truncated"),
    "vocabulary length": (gguf([key("a", ARRAY, struct.pack("<I", STRING) + HUGE)]), "truncated"),
    "word length": (gguf([key("a", ARRAY, struct.pack("<IQ", STRING, 2) + text("a") + HUGE)]), "truncated"),
    "array of arrays length": (gguf([key("a", ARRAY, struct.pack("<I", ARRAY) + HUGE)]), "would hold"),
    "array depth": (gguf([key("a", ARRAY, struct.pack("<IQ", ARRAY, 1) * 1000)]), "nests too deeply"),
    "key twice": (gguf([key("a", U32, bytes(4))] * 2), "'a' occurs twice"),
    "tensor twice": (gguf([], [T, info("t", (32,), 0, 128)], 256), "'t' occurs twice"),
    "name length": (gguf([], [HUGE + bytes(40)]), "would be"),
    "dimensions": (gguf([], [info("t", (1, 1, 1, 1, 1), 0, 0)], 4), "5 dimensions"),
    "removed type": (gguf([], [info("t", (32,), 4, 0)], 32), "unknown type 4"),
    "huge shape": (gguf([], [info("t", (2**40, 2**40), 0, 0)], 32), "impossible shape"),
    "block": (gguf([], [info("t", (100,), 12, 0)], 144), "rows of 100, but Q4_K needs a multiple of 256"),
    "quantized number": (gguf([], [info("t", (), 2, 0)], 18), "single number"),
    "alignment": (gguf([], [info("t", (32,), 0, 8)], 200), "not a multiple of 32"),
    "overlap": (gguf([], [T, info("u", (32,), 0, 32)], 256), "'t' and 'u' overlap"),
    "data beyond the end": (gguf([], [T], 127), "tensors end at byte 192, the file has 191"),
    "alignment of 3": (gguf([key("general.alignment", U32, struct.pack("<I", 3))]), "power of two"),
    "alignment is text": (gguf([key("general.alignment", STRING, text("32"))]), "power of two"),
    "HTML": (b"<!doctype html><title>Sign in</title>", "HTML page"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4000\n", "Git LFS pointer"),
    "older ggml": (b"tjgg" + bytes(100), "before GGUF"),
    "empty": (b"", "empty"),
}


@pytest.mark.parametrize(("data", "says"), BROKEN.values(), ids=list(BROKEN))
def test_contradictions_are_named(data, says):
    with pytest.raises(BadInput, match=says):
        read_header(Bytes(data))
    if not says.startswith(("truncated", "tensors end")):
        with pytest.raises(BadInput, match=says):
            read_header(Bytes(data, sized=False))


GOOD = gguf(
    [
        key("general.architecture", STRING, text("llama")),
        key("llama.kv", ARRAY, struct.pack("<IQ", U32, 2) + bytes(8)),
        key("tokenizer.ggml.tokens", ARRAY, struct.pack("<IQ", STRING, 2) + text("ab") + text("")),
    ],
    [info("a", (256, 2), 12, 0), info("b", (8,), 0, 288)],
    288 + 32,
)


def test_truncated_anywhere_is_bad_input():
    read_header(Bytes(GOOD))
    for length in range(len(GOOD)):
        with pytest.raises(BadInput):
            read_header(Bytes(GOOD[:length]))


def test_any_flipped_bit_gives_a_header_inside_the_file_or_bad_input():
    accepted = 0
    for bit in range(8 * (len(GOOD) - 320)):
        data = bytearray(GOOD)
        data[bit // 8] ^= 1 << bit % 8
        try:
            header = read_header(Bytes(bytes(data)))
        except BadInput:
            continue
        accepted += 1
        assert all(t.offset + t.bytes <= len(GOOD) for t in header.tensors)
    assert accepted > 0


@given(st.binary(max_size=200), st.integers(0, 3), st.integers(0, 3))
def test_any_bytes_give_a_header_or_bad_input(rest, n_tensors, n_keys):
    for sized in (True, False):
        with contextlib.suppress(BadInput):
            read_header(Bytes(b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_keys) + rest, sized))


def test_endless_strings_take_bounded_memory():
    class Endless(Bytes):
        size = None

        def read(self, offset: int, length: int) -> bytes:
            self.taken += length
            return (
                (self.data[offset:] + b"\1" * length)[:length] if offset < len(self.data) else b"\1" * length
            )

    source = Endless(gguf([key("a", ARRAY, struct.pack("<IQ", STRING, 2**24))])[:50])
    source.size = None

    def read() -> None:
        with pytest.raises(BadInput, match="longer than 256 MiB"):
            read_header(source)

    assert traced_peak(read) < 2**24
    assert source.taken <= 2**28


def split(number: int, count: int, names: str, total: int) -> bytes:
    keys = [
        key("split.no", 2, struct.pack("<H", number)),
        key("split.count", 2, struct.pack("<H", count)),
        key("split.tensors.count", 5, struct.pack("<i", total)),
    ]
    return gguf(keys, [info(name, (8,), 0, 32 * i) for i, name in enumerate(names)], 32 * len(names))


class TestSplit:
    def write(self, folder: Path, count: int, total: int, *parts: str) -> str:
        for number, names in enumerate(parts):
            local(folder / f"m-{number + 1:05}-of-{count:05}.gguf", split(number, count, names, total))
        return str(folder / f"m-00001-of-{count:05}.gguf")

    def test_any_file_leads_to_all(self, tmp_path):
        first = self.write(tmp_path, 3, 3, "", "ab", "c")
        header = read_gguf(first, LocalFile)
        assert [(t.name, t.file) for t in header.tensors] == [("a", 1), ("b", 1), ("c", 2)]
        assert isinstance(header.tensors[0], GgufTensor)
        assert header.file_bytes == tuple(path.stat().st_size for path in sorted(tmp_path.iterdir()))
        assert read_gguf(first.replace("00001-of", "00003-of"), LocalFile) == header

    def test_a_missing_file_is_named(self, tmp_path):
        first = self.write(tmp_path, 3, 3, "", "ab", "c")
        (tmp_path / "m-00002-of-00003.gguf").unlink()
        with pytest.raises(BadInput, match=r"m-00002-of-00003.gguf does not exist"):
            read_gguf(first, LocalFile)

    def test_contradictions_are_named(self, tmp_path):
        with pytest.raises(BadInput, match="hold 3 tensors, the first announces 4"):
            read_gguf(self.write(tmp_path, 3, 4, "", "ab", "c"), LocalFile)
        with pytest.raises(BadInput, match="same name"):
            read_gguf(self.write(tmp_path, 3, 3, "", "ab", "a"), LocalFile)
        local(tmp_path / "m-00003-of-00003.gguf", gguf())
        with pytest.raises(BadInput, match="does not say that it is one of 3"):
            read_gguf(str(tmp_path / "m-00001-of-00003.gguf"), LocalFile)
        with pytest.raises(BadInput, match="file 4 of 3"):
            read_gguf("m-00004-of-00003.gguf", LocalFile)
        local(tmp_path / "renamed.gguf", split(0, 3, "a", 3))
        with pytest.raises(BadInput, match="one of 3 files, but is not named like one"):
            read_gguf(str(tmp_path / "renamed.gguf"), LocalFile)
