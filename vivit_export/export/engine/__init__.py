"""From an ONNX graph to a compiled engine and the proof of what its plan does. Works without torch."""
