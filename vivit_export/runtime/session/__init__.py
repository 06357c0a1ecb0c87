"""Sessions: one way to run a clip, whatever executes it.

``select`` opens the best engine that fits this machine, ``session`` is what callers hold, and each
back end has a module of its own: ``onnxruntime`` (with ``lean_attention`` and ``widen``, which
prepare the portable graph for the CPU), ``openvino`` and ``tensorrt`` (with ``cuda``).
"""
