"""Run a bundle from C++: the library is in ``project/``, ready to be copied."""
