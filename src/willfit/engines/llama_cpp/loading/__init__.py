"""Where the weights of a GGUF file go, and what their buffers take."""
