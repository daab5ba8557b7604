"""Reading config.json, safetensors and GGUF headers: from disk, the bundled catalogue or the network."""
