"""Reading config.json, safetensors and GGUF headers, locally or by HTTP range; the hub; the bundled catalogue."""
