"""Will it fit? Memory of large language models, predicted from config or file headers alone."""

__version__ = "0.1.0"
