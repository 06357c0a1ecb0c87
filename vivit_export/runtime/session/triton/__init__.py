"""The client of a model that Triton Inference Server serves."""
