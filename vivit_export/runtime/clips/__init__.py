"""From a video to the tensor that the engine takes: decoding, sampling, views, windows, preprocessing."""
