"""Folders and manifests of any size, on Ray Data: the same readers and sessions as one process has, on many."""
