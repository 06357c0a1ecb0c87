"""Run a bundle from C++: the library lies in ``project/``, ready to be copied."""
