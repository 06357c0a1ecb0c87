"""From a video to the engine's input tensor: sampling, views and windows, over `video` and `pixels`."""
