"""Prepare a bundle for other programs: a C++ project, or a model repository for Triton Inference Server."""
