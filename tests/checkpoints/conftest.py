import pytest
from huggingface_hub import constants
from web_server import Site

from willfit.checkpoints import ranged as ranged_module


@pytest.fixture
def site():
    with Site() as running:
        yield running


@pytest.fixture
def hub(site, monkeypatch, tmp_path):
    """An empty hub, cache and home."""
    monkeypatch.setenv("HF_ENDPOINT", site.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(ranged_module.time, "sleep", lambda seconds: None)
    return site
