"""What vLLM asks of a device, whatever its memory: by version, quantization method and dtype."""
