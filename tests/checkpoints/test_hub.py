"""The hub as it answers over HTTP, played by a server on this machine."""

import json
import threading
from pathlib import Path

import pytest
from checkpoint_files import gguf, info, key, safetensors, tensor, text
from hub_site import COMMIT, asked, publish
from huggingface_hub import constants, hf_hub_download
from web_server import Site, moved, ranged, says

from willfit.checkpoints.locate import locate
from willfit.checkpoints.source import Forbidden, NotFound, Unreachable
from willfit.errors import BadInput

CONFIG = {"model_type": "llama", "hidden_size": 64}
SHARD_1 = safetensors({"a": tensor("F32", [8], 0, 32)}, 32)
SHARD_2 = safetensors({"b": tensor("BF16", [100_000], 0, 200_000)}, 200_000)
INDEX = {
    "metadata": {"total_size": 200_032},
    "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"},
}
MODEL = {
    "config.json": json.dumps(CONFIG).encode(),
    "hf_quant_config.json": b'{"producer": {"name": "modelopt"}}',
    "model.safetensors.index.json": json.dumps(INDEX).encode(),
    "model-00001-of-00002.safetensors": SHARD_1,
    "model-00002-of-00002.safetensors": SHARD_2,
    "README.md": b"# Model",
}


def test_config_and_headers_of_a_sharded_model(hub):
    publish(hub, "org/model", MODEL)
    found = locate("org/model")
    assert (found.model, found.source, found.revision, found.notes) == ("org/model", "hub", COMMIT, ())
    assert found.config.fields == CONFIG | {"hf_quant_config": {"producer": {"name": "modelopt"}}}
    assert [(t.name, t.bytes) for t in found.tensors] == [("a", 32), ("b", 200_000)]
    assert found.stored_bytes == 200_032
    assert asked(hub).count("model-00002-of-00002.safetensors") == 1
    assert all(headers.get("Range") for _, path, headers in hub.asked if path.endswith(".safetensors"))
    assert all(h.get("Authorization", h.get("authorization")) == "Bearer hf_secret" for _, _, h in hub.asked)
    assert "README.md" not in asked(hub)


def test_the_cache_serves_offline_and_when_the_hub_is_down(hub, monkeypatch):
    publish(hub, "org/model", MODEL)
    locate("org/model@main")
    refs = Path(constants.HF_HUB_CACHE) / "models--org--model" / "refs"
    refs.mkdir(exist_ok=True)
    (refs / "main").write_text(COMMIT)  # as a download of the main branch leaves it
    before = len(hub.asked)
    found = locate("org/model", offline=True)
    assert len(hub.asked) == before
    assert found.config.fields["hidden_size"] == 64
    # the tensor files were never downloaded: what remains is what the index announces
    assert (found.tensors, found.stored_bytes, found.revision) == (None, 200_032, COMMIT)
    assert locate(f"org/model@{COMMIT}", offline=True).config.fields == found.config.fields
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate("org/model").config.fields == found.config.fields
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    down = locate("org/model")
    assert down.config.fields == found.config.fields
    assert "read from the local cache" in down.notes[0]
    with pytest.raises(Unreachable, match="neither bundled nor in the local cache"):
        locate("org/other", offline=True)
    with pytest.raises(Unreachable, match=r"no usable answer from http://127.0.0.1:9"):
        locate("org/other")


def test_downloaded_tensor_files_are_read_from_the_cache(hub):
    publish(hub, "org/model", MODEL)
    for name in INDEX["weight_map"].values():
        hf_hub_download("org/model", name, revision=COMMIT, endpoint=hub.url)
    hub.asked.clear()
    assert locate("org/model").stored_bytes == 200_032
    assert not any(name.endswith(".safetensors") for name in asked(hub))
    assert locate(f"org/model@{COMMIT}", offline=True).stored_bytes == 200_032


def test_headers_are_read_at_the_same_time(hub):
    publish(hub, "org/model", MODEL)
    both = threading.Barrier(2, timeout=20)  # opens once both files are being asked for
    for name, data in (
        ("model-00001-of-00002.safetensors", SHARD_1),
        ("model-00002-of-00002.safetensors", SHARD_2),
    ):

        def serve(request, data=data):
            both.wait()
            return ranged(data, request.headers.get("Range"))

        hub.paths[f"/org/model/resolve/{COMMIT}/{name}"] = serve
    assert locate("org/model").stored_bytes == 200_032


def test_revisions(hub):
    publish(hub, "org/model", MODEL, revision="v1.0")
    for text_, revision in (
        ("org/model@v1.0", None),
        ("org/model", "v1.0"),
        (f"{hub.url}/org/model/tree/v1.0", None),
    ):
        hub.asked.clear()
        assert locate(text_, revision).revision == COMMIT
        assert hub.asked[0][1].startswith("/api/models/org/model/revision/v1.0")
    hub.paths["/api/models/org/model/revision/v9"] = says(404, {"X-Error-Code": "RevisionNotFound"})
    with pytest.raises(NotFound, match="no such revision"):
        locate("org/model@v9")
    for bad in ("../../x", "a/../b", "/etc", "a//b"):
        with pytest.raises(BadInput, match=r"no revision|neither a path"):
            locate("org/model", revision=bad)


def test_web_addresses_of_the_hub(hub):
    publish(hub, "org/model", MODEL | {"m-Q8_0.gguf": gguf([], [info("t", (32,), 0, 0)], 128)})
    for path in ("", "/", "/tree/" + COMMIT, f"/blob/{COMMIT}/config.json"):
        hub.paths[f"/api/models/org/model/revision/{COMMIT}"] = hub.paths["/api/models/org/model"]
        assert locate(f"{hub.url}/org/model{path}").stored_bytes == 200_032
    assert locate(f"{hub.url}/org/model/resolve/{COMMIT}/m-Q8_0.gguf?download=true").stored_bytes == 128
    found = locate(f"{hub.url}/org/model/blob/{COMMIT}/model-00001-of-00002.safetensors")
    assert found.stored_bytes == 200_032


def test_gguf_repositories(hub):
    one = gguf([key("general.architecture", 8, text("llama"))], [info("t", (32,), 0, 0)], 128)
    count = [key("split.count", 2, b"\2\0")]
    parts = {
        f"big/M-Q8_0-0000{i}-of-00002.gguf": gguf(count, [info(n, (8,), 0, 0)], 32)
        for i, n in ((1, "a"), (2, "b"))
    }
    files = {
        "M-Q4_K_M.gguf": one,
        "M-UD-Q4_K_M.gguf": one,
        "mmproj-F16.gguf": one,
        "config.json": b"{}",
    } | parts
    publish(hub, "org/M-GGUF", files)
    assert locate("org/M-GGUF:Q4_K_M").gguf.metadata["general.architecture"] == "llama"
    assert "M-UD-Q4_K_M.gguf" not in asked(hub)
    assert locate("org/M-GGUF:ud-q4_k_m").source == "gguf file"
    assert "M-UD-Q4_K_M.gguf" in asked(hub)
    split = locate("org/M-GGUF:Q8_0")
    assert [(t.name, t.file) for t in split.gguf.tensors] == [("a", 0), ("b", 1)]
    assert split.stored_bytes == 64
    with pytest.raises(BadInput, match=r"holds 3 GGUF models: Q4_K_M, UD-Q4_K_M, Q8_0 .*org/M-GGUF:Q4_K_M"):
        locate("org/M-GGUF")
    with pytest.raises(BadInput, match=r"no GGUF file 'Q2_K'.*there are: Q4_K_M"):
        locate("org/M-GGUF:Q2_K")
    # Without a quantization llama.cpp takes the usual one.
    usual = locate("org/M-GGUF:latest")
    assert usual.stored_bytes == locate("org/M-GGUF:Q4_K_M").stored_bytes
    assert (usual.revision, usual.file_type) == (COMMIT, "")
    with pytest.raises(BadInput, match="no GGUF file 'Q4'"):
        locate("org/M-GGUF:Q4")


def test_a_quantization_of_a_repository_without_gguf_files(hub):
    publish(hub, "org/model", MODEL)
    found = locate("org/model:Q4_K_M")
    assert (found.file_type, found.gguf, found.config.fields["hidden_size"]) == ("Q4_K_M", None, 64)
    assert [tensor.name for tensor in found.tensors] == ["a", "b"]
    assert locate("org/model").file_type == ""
    with pytest.raises(BadInput, match="no GGUF file"):
        locate("org/model:latest")


def test_tensor_files_that_the_hub_does_not_deliver_leave_the_config(hub):
    publish(hub, "org/model", MODEL)
    hub.paths[f"/org/model/resolve/{COMMIT}/model-00002-of-00002.safetensors"] = says(503)
    found = locate("org/model")
    assert (found.tensors, found.stored_bytes) == (None, 200_032)
    assert "HTTP 503" in found.notes[0]


def test_a_redirect_to_storage_elsewhere_does_not_carry_the_token(hub):
    publish(hub, "org/model", MODEL)
    with Site() as storage:
        storage.paths["/blob"] = SHARD_2
        hub.paths[f"/org/model/resolve/{COMMIT}/model-00002-of-00002.safetensors"] = moved(
            f"{storage.url}/blob"
        )
        assert locate("org/model").stored_bytes == 200_032
        assert [set(headers) & {"Authorization", "authorization"} for _, _, headers in storage.asked] == [
            set()
        ]


@pytest.mark.parametrize(
    ("answer", "kind", "match"),
    [
        (
            says(401, {"X-Error-Code": "RepoNotFound"}),
            NotFound,
            "no model org/model, or it is private.*HF_TOKEN",
        ),
        (says(404, {"X-Error-Code": "RepoNotFound"}), NotFound, "no model org/model"),
        (
            says(403, {"X-Error-Code": "GatedRepo"}),
            Forbidden,
            "gated.*accept it at .*/org/model and set HF_TOKEN",
        ),
        (says(403), Forbidden, "HTTP 403.*HF_TOKEN"),
        (says(404), NotFound, "org/model"),
        (says(400), Unreachable, "HTTP 400"),
        (says(200, {}, b"<html>Sign in to the network</html>"), Unreachable, "no usable answer"),
        (says(200, {}, b"[]"), Unreachable, "no usable answer"),
        (says(200, {}, b'{"id": 5, "siblings": [{"size": {}}]}'), Unreachable, "no usable answer"),
        (says(200, {}, b'{"id": "org/model", "siblings": 7}'), Unreachable, "no usable answer"),
        (says(200, {}, b'{"id": "org/model"}'), BadInput, "no config.json"),
    ],
)
def test_refusals_say_what_to_do(hub, answer, kind, match):
    hub.paths["/api/models/org/model"] = answer
    with pytest.raises(kind, match=match):
        locate("org/model")


def test_a_gated_file_says_where_to_accept(hub):
    publish(hub, "org/model", MODEL)
    hub.paths[f"/org/model/resolve/{COMMIT}/config.json"] = says(403, {"X-Error-Code": "GatedRepo"})
    with pytest.raises(Forbidden, match="accept it at"):
        locate("org/model")


def test_hostile_listings(hub):
    files = {"config.json": MODEL["config.json"]}
    listing = {"id": "org/model", "sha": COMMIT, "siblings": [{"rfilename": "config.json", "size": 2**40}]}
    publish(hub, "org/model", files, listed=json.dumps(listing).encode())
    with pytest.raises(BadInput, match="larger than 16 MiB"):
        locate("org/model")
    listing["siblings"] = [
        {"rfilename": name, "size": 1} for name in ("../../x-Q8_0.gguf", "/x.gguf", "a/../x.gguf")
    ]
    publish(hub, "org/model", files, listed=json.dumps(listing).encode())
    with pytest.raises(BadInput, match=r"no config.json"):
        locate("org/model")


def test_misspelt_ids_are_answered_with_what_is_bundled(hub):
    hub.paths["/api/models/meta-lama/Llama-3.1-8B"] = says(401, {"X-Error-Code": "RepoNotFound"})
    with pytest.raises(NotFound, match=r"did you mean meta-llama/Llama-3.1-8B"):
        locate("meta-lama/Llama-3.1-8B")


class TestModelScope:
    @pytest.fixture
    def scope(self, site, monkeypatch):
        monkeypatch.setenv("MODELSCOPE_DOMAIN", site.url)
        files = [{"Path": name, "Type": "blob", "Size": len(data)} for name, data in MODEL.items()]
        listing = {"Code": 200, "Data": {"Files": [{"Path": "figures", "Type": "tree"}, *files]}}
        site.paths["/api/v1/models/org/model/repo/files?Revision=master&Recursive=true"] = json.dumps(
            listing
        ).encode()
        for name, data in MODEL.items():
            site.paths[f"/models/org/model/resolve/master/{name}"] = data
        return site

    @pytest.mark.parametrize(
        "text_", ["ms:org/model", "modelscope:org/model", "modelscope://org/model@master"]
    )
    def test_ids(self, scope, text_):
        found = locate(text_)
        assert (found.model, found.source, found.stored_bytes) == ("org/model", "hub", 200_032)
        assert found.config.integer("hidden_size") == 64

    def test_web_addresses(self, scope):
        assert locate(f"{scope.url}/models/org/model/summary").stored_bytes == 200_032
        shard = f"{scope.url}/models/org/model/resolve/master/model-00001-of-00002.safetensors"
        assert locate(shard).stored_bytes == 200_032

    def test_refusals(self, scope):
        with pytest.raises(NotFound, match="ModelScope has no model org/nope"):
            locate("ms:org/nope")
        with pytest.raises(Unreachable, match="offline"):
            locate("ms:org/model", offline=True)
        path = "/api/v1/models/org/model/repo/files?Revision=master&Recursive=true"
        for body, match in ((b"<html>", "not JSON"), (b'{"Data": null}', "lists no files"), (b'{"Data": {"Files": [1, {"Path": 2}]}}', "no config.json")):  # fmt: skip  # noqa: E501
            scope.paths[path] = body
            with pytest.raises(BadInput, match=match):
                locate("ms:org/model")


class TestPlainAddresses:
    def test_each_kind_of_file(self, site):
        for name, data in MODEL.items():
            site.paths[f"/dir/{name}"] = data
        site.paths["/dir/m.gguf"] = gguf([], [info("t", (32,), 0, 0)], 128)
        assert locate(f"{site.url}/dir/config.json?sig=1").config.integer("hidden_size") == 64
        assert locate(f"{site.url}/dir/m.gguf?sig=1").gguf.tensors[0].bytes == 128
        for name in ("model.safetensors.index.json", "model-00002-of-00002.safetensors"):
            found = locate(f"{site.url}/dir/{name}")
            assert (found.source, found.stored_bytes) == ("url", 200_032)
            assert found.config.integer("hidden_size") == 64
        assert not any("Authorization" in headers for _, _, headers in site.asked)

    def test_a_lone_file_has_no_config(self, site):
        site.paths["/x.safetensors"] = SHARD_1
        found = locate(f"{site.url}/x.safetensors")
        assert (found.config, found.stored_bytes) == (None, 32)

    def test_refusals(self, site):
        site.paths["/config.json"] = b"<!doctype html>"
        with pytest.raises(BadInput, match="HTML page"):
            locate(f"{site.url}/config.json")
        with pytest.raises(NotFound, match="404"):
            locate(f"{site.url}/m-00001-of-00002.gguf")
        with pytest.raises(Unreachable, match="offline"):
            locate(f"{site.url}/config.json", offline=True)
