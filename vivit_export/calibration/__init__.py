"""From real clips to the ranges that INT8 and FP8 need: numpy, onnx and ONNX Runtime, never torch."""
