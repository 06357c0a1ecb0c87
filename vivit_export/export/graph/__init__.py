"""From a checkpoint to a strongly typed ONNX graph."""
