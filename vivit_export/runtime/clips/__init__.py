"""From a video to the engine's input tensor: decoding, sampling, views, windows, preprocessing."""
