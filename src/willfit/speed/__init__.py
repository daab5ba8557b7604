"""How fast: a roofline of prefill, of decoding and of a training step."""
