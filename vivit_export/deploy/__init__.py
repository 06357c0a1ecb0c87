"""What another program needs to run a bundle: a C++ project, a model repository for Triton Inference Server."""
