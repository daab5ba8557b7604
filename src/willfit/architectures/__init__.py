"""From a config to tensors, layers and what each layer keeps."""
