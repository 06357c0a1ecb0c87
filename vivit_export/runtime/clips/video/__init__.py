"""From a video file to upright RGB frames: index, seeking, decoding, color."""
