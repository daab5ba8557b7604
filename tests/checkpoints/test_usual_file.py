"""Which file of a GGUF repository is meant where none is named."""

import pytest

from willfit.checkpoints.reading import _usual


@pytest.mark.parametrize(
    ("files", "usual"),
    [
        (["a-BF16.gguf", "a-Q4_K_M.gguf", "a-Q8_0.gguf"], "a-Q4_K_M.gguf"),
        (["a-BF16.gguf", "a-q8_0.gguf"], "a-q8_0.gguf"),
        (["a-Q4_K_M_L.gguf", "a-mxfp4.gguf"], "a-Q4_K_M_L.gguf"),  # the first
        (["a-mxfp4.gguf"], "a-mxfp4.gguf"),
        (["UD/a-Q2_K.gguf", "a.Q4_K_M-00001-of-00002.gguf"], "a.Q4_K_M-00001-of-00002.gguf"),
    ],
)
def test_the_usual_file(files, usual):
    assert _usual(files) == usual
