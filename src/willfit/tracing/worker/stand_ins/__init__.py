"""Modules that allocate what libraries of CUDA kernels do, where these libraries are not installed (README.md)."""
