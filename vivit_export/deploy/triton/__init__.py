"""Serve a bundle with Triton Inference Server: the model repository it needs, and what runs in front of the engine."""
