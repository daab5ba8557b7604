"""The backends of llama.cpp: what each can compute, how it aligns, what tensors take in its buffers."""
