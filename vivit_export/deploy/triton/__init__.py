"""Serve a bundle with Triton Inference Server: write the repository, and run before the engine inside the server."""
