"""Sessions: one way to run a clip, whatever executes it.

``session`` is what callers hold, and each back end has a module of its own: ``onnxruntime`` (with
``multi_head_attention``, ``int8_products`` and ``widen``, which prepare the portable graph for the CPU),
``openvino`` and ``tensorrt`` (with ``cuda``). ``triton`` is the client of a served model. Which of them
fits this machine is decided one room up, in ``select``.
"""
