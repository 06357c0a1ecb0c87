"""From real clips to the ranges that INT8 and FP8 need, with numpy, onnx and ONNX Runtime, never torch."""
