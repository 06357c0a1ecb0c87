"""Limits on what others hand us, stated once: a value beyond them is refused before memory or time is spent on it.

They are far above what any ViViT needs. ``include/vivit/detail/limits.hpp`` repeats those that C++ needs; a test
compares them.
"""

from __future__ import annotations

import os

# --- of a contract
MOST_FRAMES = 1024
"""Frames of a clip."""
MOST_SIDE = 4096
"""Pixels of a side of a clip, a crop, or a resized frame's target."""
MOST_CLIP_BYTES = 256 << 20
"""Bytes of a uint8 clip (T, H, W, 3)."""
MOST_CAMERA_SIDE = 16384
"""Pixels of a side of the frames that a graph resizes itself."""
MOST_STRIDE = 65536
"""Frames from one to the next."""
MOST_VIEWS = 128
"""Temporal views of a video."""
MOST_WIDTH = 65536
"""Logits, and so labels, and numbers of an embedding."""
LONGEST_LABEL = 1000
"""Characters of a label."""
LARGEST_FACTOR = 1e6
"""Largest magnitude of the factor, means and deviations of the preprocessing; no deviation is below its inverse."""

# --- of a checkpoint
MOST_JSON_BYTES = 16 << 20
"""Bytes of a JSON file."""
MOST_WEIGHTS = 20_000
"""Weights by name. ViViT-B has about 200."""
MOST_HEADER_BYTES = 8 << 20
"""Bytes of the header of a safetensors file."""
MOST_UNSTORED = 50_000_000
"""Numbers that a config may imply beyond twice those that are stored, before they are compared one by one."""

# --- of a bundle
MOST_BATCH = 1024
"""Clips of a call of an engine."""
MOST_SM = 9999
"""Compute capability of a GPU that an engine runs on, without its dot."""
MOST_MANIFEST_BYTES = 16 << 20
"""Bytes of ``bundle.json``."""
MOST_SIDECAR_BYTES = 16 << 20
"""Bytes of the sidecar of an engine."""
MOST_PLAN_LAYERS = 20_000
"""Layers of a plan, which has a few per node of the graph."""
MOST_GOLDEN_CLIPS = 4096
"""Clips in a bundle."""
MOST_GOLDEN_BYTES = 1 << 30
"""Bytes of the frames of these clips that an export writes, beyond one clip: 223 clips of ViViT-B/16x2."""
MOST_SIGNATURE_BYTES = 4 << 20
"""Bytes of a signature, and of a file with keys or certificates."""
MOST_CERTIFICATES = 8
"""Certificates of a signature: the signer's, and those of authorities between it and one that is trusted."""

# --- of a graph
MOST_NODES = 20_000
"""Nodes, and weights. ViViT-B has about 1,300."""
MOST_ELEMENTS = 1 << 33
"""Elements of a weight, or of a tensor between nodes for one clip."""
MOST_GRAPH_BYTES = (2 << 30) - 1
"""Bytes of ``model.onnx``, where a protobuf ends."""

# --- of a video
MOST_PIXELS = 1 << 25
"""Pixels of a frame that is decoded, unless the environment says otherwise: 8K video has slightly fewer."""
MOST_HOLE_BYTES = 1 << 30
"""Bytes of a file that nobody has written, in one place: a decoder would search them for hours."""
ALIGNMENT_PIXELS = 64 << 16
"""What a decoder may need beyond the pixels of a frame, because it rounds rows up."""
PIXELS_VARIABLE = "VIVIT_MAX_PIXELS"
"""Environment variable with another limit."""
MOST_RESIZED_PIXELS = 1 << 26
"""Pixels that a resize would make of a frame: a long, thin one grows with the square of its sides' ratio."""


def most_pixels() -> int:
    """Return how many pixels a decoded frame may have, as the environment says; what is not a number is as if unset."""
    given = os.environ.get(PIXELS_VARIABLE, "")
    return int(given) if given.isascii() and given.isdigit() and 0 < len(given) < 10 else MOST_PIXELS
