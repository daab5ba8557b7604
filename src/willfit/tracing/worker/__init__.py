"""The child process: everything here may import torch, and nothing else may import anything here."""
