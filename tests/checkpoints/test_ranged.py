import socket

import pytest
from checkpoint_files import gguf, info, key, safetensors, tensor, text, traced_peak
from web_server import Site, moved, ranged, says, whole

from willfit.checkpoints import ranged as module
from willfit.checkpoints.gguf import read_header as read_gguf_header
from willfit.checkpoints.ranged import RemoteFile
from willfit.checkpoints.safetensors import read_header
from willfit.checkpoints.source import Forbidden, NotFound, Unreachable
from willfit.errors import BadInput

DATA = bytes(i * 7 % 251 for i in range(3_000_000))


@pytest.mark.parametrize("serve", [lambda data: data, whole], ids=["ranges", "no ranges"])
def test_reads_what_a_local_file_would(site, serve):
    site.paths["/f"] = serve(DATA)
    file = RemoteFile(f"{site.url}/f")
    for offset, length in [
        (0, 8),
        (8, 100),
        (200_000, 100_000),
        (262_000, 1000),
        (50, 10),
        (2_999_990, 100),
        (0, 0),
    ]:
        assert file.read(offset, length) == DATA[offset : offset + length]
    assert file.size == 3_000_000
    assert file.read(3_000_000, 5) == b""


def test_a_read_beyond_the_end_of_a_file_of_unknown_size_is_empty(site):
    site.paths["/f"] = DATA[:10]
    assert RemoteFile(f"{site.url}/f").read(10, 5) == b""
    site.paths["/empty"] = b""
    assert RemoteFile(f"{site.url}/empty").read(0, 5) == b""


def test_a_header_takes_one_request(site):
    site.paths["/m.safetensors"] = safetensors({"a": tensor("F32", [500_000], 0, 2_000_000)}, 2_000_000)
    (found,) = read_header(RemoteFile(f"{site.url}/m.safetensors"))
    assert found.bytes == 2_000_000
    assert len(site.asked) == 1
    assert site.sent == 2**18


def test_a_vocabulary_takes_few_requests(site):
    words = b"".join(text(f"word number {i}") for i in range(150_000))  # 3.7 MB
    keys = [
        key("tokenizer.ggml.tokens", 9, (8).to_bytes(4, "little") + (150_000).to_bytes(8, "little") + words)
    ]
    site.paths["/m.gguf"] = gguf(keys, [info("a", (8,), 0, 0)], 32)
    assert read_gguf_header(RemoteFile(f"{site.url}/m.gguf")).tensors[0].name == "a"
    # windows of 1/4 + 1/2 + 1 + 2 + 4 MiB
    assert len(site.asked) <= 5


def test_of_a_server_without_ranges_no_more_than_needed_is_read(site):
    big = safetensors({"a": tensor("U8", [60_000_000], 0, 60_000_000)}, 60_000_000)
    site.paths["/m.safetensors"] = whole(big)
    file = RemoteFile(f"{site.url}/m.safetensors")
    assert traced_peak(lambda: read_header(file)) < 2**22  # the server's side counts too
    assert file.fetched == 2**18
    assert site.sent < 20_000_000  # what the sockets buffered before the connection closed


def test_redirects_are_followed_and_remembered_and_the_token_stays_at_home(site):
    with Site() as cdn:
        cdn.paths["/signed"] = DATA
        site.paths["/f"] = moved("/renamed", 307)
        site.paths["/renamed"] = moved(f"{cdn.url}/signed?key=1")
        file = RemoteFile(f"{site.url}/f", headers={"Authorization": "Bearer secret"})
        assert file.read(0, 10) == DATA[:10]
        assert file.read(1_000_000, 10) == DATA[1_000_000:1_000_010]
        assert [path for _, path, _ in site.asked] == ["/f", "/renamed"]
        assert all(headers["Authorization"] == "Bearer secret" for _, _, headers in site.asked)
        assert len(cdn.asked) == 2
        assert all("Authorization" not in headers for _, _, headers in cdn.asked)


def test_an_expired_signed_address_is_asked_for_again(site):
    turns = iter([ranged(DATA, "bytes=0-99"), says(403)(None)])
    site.paths["/f"] = moved("/signed")
    site.paths["/signed"] = lambda request: next(turns, None) or ranged(DATA, request.headers["Range"])
    file = RemoteFile(f"{site.url}/f")
    file._step = 100
    assert file.read(0, 100) == DATA[:100]
    assert file.read(500, 100) == DATA[500:600]
    assert [path for _, path, _ in site.asked] == ["/f", "/signed", "/signed", "/f", "/signed"]


def test_a_dropped_connection_is_tried_again_once(site):
    turns = iter(
        [says(206, {"Content-Range": "bytes 0-262143/3000000", "Content-Length": "262144"}, b"short")(None)]
    )

    def flaky(request):
        answer = next(turns, None)
        request.close_connection = True
        return answer or ranged(DATA, request.headers["Range"])

    site.paths["/f"] = flaky
    assert RemoteFile(f"{site.url}/f").read(0, 10) == DATA[:10]
    assert len(site.asked) == 2


@pytest.mark.parametrize(
    ("answer", "kind", "match"),
    [
        (says(401), Forbidden, "HTTP 401"),
        (says(403), Forbidden, "HTTP 403"),
        (says(404), NotFound, "HTTP 404"),
        (says(429), Unreachable, "HTTP 429"),
        (says(503), Unreachable, "HTTP 503"),
        (says(400), BadInput, "HTTP 400"),
        (says(204), BadInput, "HTTP 204"),
        (moved(""), BadInput, "nowhere"),
        (moved("/f"), BadInput, "redirects more than"),
        (moved("file:///etc/passwd"), BadInput, "neither http nor https"),
        (moved("http://[::1"), BadInput, "address"),
        (moved("http://127.0.0.1:99999/"), BadInput, "address"),
        (says(206, {}, b"x" * 100), BadInput, "no valid Content-Range"),
        (says(206, {"Content-Range": "bytes 5-104/200"}, b"x" * 100), BadInput, "another range"),
        (says(206, {"Content-Range": "bytes 0-99/50"}, b"x" * 100), BadInput, "another range"),
        (says(206, {"Content-Range": "bytes 0-999999999/*"}, b"x" * 100), BadInput, "another range"),
        (says(206, {"Content-Range": "bytes 0-99/200"}, b"x" * 100), BadInput, "less than the range"),
        (says(206, {"Content-Range": "bytes 0-x/200"}, b"x" * 100), BadInput, "no valid Content-Range"),
        (
            says(206, {"Content-Range": f"bytes 0-99/{'9' * 99}"}, b"x" * 100),
            BadInput,
            "no valid Content-Range",
        ),
        (says(200, {"Content-Encoding": "gzip"}, b"x" * 100), BadInput, "compressed"),
    ],
)
def test_refusals_and_contradictions_are_named(site, monkeypatch, answer, kind, match):
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    site.paths["/f"] = answer
    with pytest.raises(kind, match=match) as caught:
        RemoteFile(f"{site.url}/f?secret=1", headers={"Authorization": "Bearer secret"}).read(0, 100)
    assert "secret" not in str(caught.value)


def test_a_file_that_changes_is_noticed(site):
    sizes = iter(["3000000", "3000001"])
    site.paths["/f"] = lambda request: (206, {"Content-Range": f"{request.headers['Range'].replace('=', ' ')}/{next(sizes)}"}, DATA[: 2**18] if len(site.asked) == 1 else DATA[: 2**19])  # fmt: skip  # noqa: E501
    file = RemoteFile(f"{site.url}/f")
    file.read(0, 8)
    with pytest.raises(BadInput, match="contradicts itself about its size"):
        file.read(1_000_000, 8)


def test_html_instead_of_data(site):
    site.paths["/m.gguf"] = b"<!DOCTYPE html><html>Please sign in</html>"
    with pytest.raises(BadInput, match="HTML page"):
        read_gguf_header(RemoteFile(f"{site.url}/m.gguf"))
    with pytest.raises(BadInput, match="HTML page"):
        read_header(RemoteFile(f"{site.url}/m.gguf"))


def test_nobody_listens_or_nobody_answers(monkeypatch):
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(module, "_SILENCE_S", 0.2)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(Unreachable, match=r"cannot reach 127\.0\.0\.1"):
            RemoteFile(f"http://127.0.0.1:{closed.getsockname()[1]}/f").read(0, 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(Unreachable, match="timed out"):
            RemoteFile(f"http://127.0.0.1:{silent.getsockname()[1]}/f").read(0, 1)


def test_a_server_that_drips_is_given_up(site, monkeypatch):
    clock = iter(range(0, 10_000, 50))
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    site.paths["/f"] = whole(DATA)
    with pytest.raises(Unreachable, match="too slow"):
        RemoteFile(f"{site.url}/f").read(0, 1_000_000)


@pytest.mark.parametrize(
    "url", ["ftp://a/b", "http://", "http://a:b/", "http://a b/", "https://\x00/", "http://[/"]
)
def test_addresses_that_are_none(url):
    with pytest.raises(BadInput, match="address"):
        RemoteFile(url).read(0, 1)
