"""Sessions: one way to run a clip, on any back end.

``session`` has the class that callers use. Each back end has a module of its own: ``onnxruntime`` (with
``multi_head_attention``, ``int8_products`` and ``widen``, which prepare the portable graph for the CPU),
``openvino`` and ``tensorrt`` (with ``cuda``). ``triton`` is the client of a served model. ``select``, one
folder up, decides which of them fits this machine.
"""
