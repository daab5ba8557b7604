"""torchao's optimizers of few bits, and its layers (read in 0.18.0)."""
