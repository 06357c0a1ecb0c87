"""From frames to the engine's input tensor: resizing, cropping, rescaling, normalization."""
