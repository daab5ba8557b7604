"""What a CUDA build and its kernels would do."""
