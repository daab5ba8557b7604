"""Liger Kernel's operations and where it puts them in transformers' models (read in 0.8.5).

Each is an autograd function that allocates and keeps what Liger's does; what its Triton kernels compute is left out.
"""
