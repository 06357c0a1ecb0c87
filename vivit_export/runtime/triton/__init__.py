"""Serving a bundle with Triton Inference Server: the model repository it needs, and a client for it."""
