import pytest
from web_server import Site


@pytest.fixture
def site():
    with Site() as running:
        yield running
