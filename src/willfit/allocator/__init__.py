"""PyTorch's CUDA caching allocator, replayed: what is reserved of a device for what a program takes and gives back."""
