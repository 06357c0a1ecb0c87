"""The bundled checkpoint: small, of the promised geometry, and really able to see motion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
import torch
from imports import imported_by
from safetensors.numpy import load_file
from transformers import VivitForVideoClassification, VivitImageProcessor

from vivit_export.demo import checkpoint_path, clip_labels, clips_path
from vivit_export.demo.motion import LABELS, OPPOSITE, render_clip

FIRST_SEED = 1_000_000  # training starts at 2**32, the trainer's own evaluation is below 10_000
NUM_CLIPS = 200
TRUTH = np.arange(NUM_CLIPS) % len(LABELS)

Clip = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def model() -> VivitForVideoClassification:
    return VivitForVideoClassification.from_pretrained(checkpoint_path()).eval()


@pytest.fixture(scope="module")
def processor() -> VivitImageProcessor:
    return VivitImageProcessor.from_pretrained(checkpoint_path())


@pytest.fixture(scope="module")
def pixel_values(processor: VivitImageProcessor) -> torch.Tensor:
    """200 unseen clips, landscape and portrait by turns, through the real processor: (B, T, 3, 64, 64)."""
    sizes = [(90, 120), (128, 96)]
    clips = [
        render_clip(LABELS[k], seed=FIRST_SEED + i, num_frames=8, height=sizes[i % 2][0], width=sizes[i % 2][1])
        for i, k in enumerate(TRUTH)
    ]
    return torch.cat([preprocess(processor, clip) for clip in clips])


def preprocess(processor: VivitImageProcessor, clip: Clip) -> torch.Tensor:
    pixels: torch.Tensor = processor(list(clip), return_tensors="pt")["pixel_values"]
    return pixels


@torch.inference_mode()
def classify(model: VivitForVideoClassification, pixel_values: torch.Tensor) -> npt.NDArray[np.float32]:
    logits = [model(pixel_values=part).logits.float() for part in torch.split(pixel_values, 50)]
    return np.asarray(torch.cat(logits).numpy())


def decode(path: Path, num_frames: int) -> Clip:
    """Frame ``i * N // T`` of a video of N, for i in [0, T)."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack([frames[i * len(frames) // num_frames] for i in range(num_frames)])


def training() -> dict[str, Any]:
    record: dict[str, Any] = json.loads((checkpoint_path() / "training.json").read_text(encoding="utf-8"))
    return record


def test_importing_the_package_is_light() -> None:
    assert imported_by("import vivit_export.demo as d; d.clip_labels()", "torch", "numpy", "av") == []


def test_files_are_small() -> None:
    assert {path.name for path in checkpoint_path().iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "training.json",
    }
    assert (checkpoint_path() / "model.safetensors").stat().st_size <= 2_500_000
    assert sum(path.stat().st_size for path in clips_path().iterdir()) <= 1_000_000


def test_weights_are_finite_fp32() -> None:
    weights = load_file(checkpoint_path() / "model.safetensors")
    assert {w.dtype for w in weights.values()} == {np.dtype(np.float32)}
    assert all(np.isfinite(w).all() for w in weights.values())
    assert 600_000 < sum(w.size for w in weights.values()) < 625_000


def test_geometry(model: VivitForVideoClassification, processor: VivitImageProcessor) -> None:
    c = model.config
    assert (c.num_frames, c.image_size, list(c.tubelet_size)) == (8, 64, [2, 8, 8])
    assert (c.hidden_size, c.num_attention_heads, c.num_hidden_layers, c.intermediate_size) == (128, 2, 4, 256)
    assert (c.hidden_act, c.qkv_bias) == ("gelu_fast", True)
    assert [c.id2label[i] for i in range(len(LABELS))] == list(LABELS)
    assert c.label2id == {label: i for i, label in enumerate(LABELS)}
    assert dict(processor.size) == {"shortest_edge": 72}
    assert dict(processor.crop_size) == {"height": 64, "width": 64}
    assert processor.do_rescale
    assert processor.offset
    assert processor.do_normalize


def test_preprocessing_keeps_the_pixel_range(processor: VivitImageProcessor) -> None:
    ramp = np.broadcast_to(np.repeat([0, 255], 36).astype(np.uint8)[:, None, None], (8, 72, 72, 3))
    pixels = preprocess(processor, np.ascontiguousarray(ramp))
    assert pixels.shape == (1, 8, 3, 64, 64)
    assert (pixels.min().item(), pixels.max().item()) == pytest.approx((-3.0, 1.0))


def test_unseen_clips_are_told_apart(model: VivitForVideoClassification, pixel_values: torch.Tensor) -> None:
    accuracy = (classify(model, pixel_values).argmax(axis=1) == TRUTH).mean()
    assert accuracy >= 0.95
    # What the record says was measured on other clips of the same kind.
    assert accuracy == pytest.approx(training()["held_out"]["accuracy"], abs=0.03)


def test_playing_backwards_gives_the_opposite(model: VivitForVideoClassification, pixel_values: torch.Tensor) -> None:
    opposite = np.array([LABELS.index(OPPOSITE[LABELS[k]]) for k in TRUTH])
    assert (classify(model, pixel_values.flip(1)).argmax(axis=1) == opposite).mean() >= 0.95


def test_one_frame_alone_tells_nothing(model: VivitForVideoClassification, pixel_values: torch.Tensor) -> None:
    for index in (0, 4):
        frozen = pixel_values[:, index : index + 1].expand(-1, 8, -1, -1, -1)
        # Chance is 1/8; 200 guesses at that rate stay below 0.22 with 4 standard deviations.
        assert (classify(model, frozen).argmax(axis=1) == TRUTH).mean() < 0.22


def test_bundled_clips_are_classified_as_labelled(
    model: VivitForVideoClassification, processor: VivitImageProcessor
) -> None:
    labels = clip_labels()
    assert sorted(labels.values()) == sorted(LABELS)
    assert {path.name for path in clips_path().glob("*.mp4")} == set(labels)
    pixels = torch.cat([preprocess(processor, decode(clips_path() / name, 8)) for name in labels])
    found = [model.config.id2label[int(i)] for i in classify(model, pixels).argmax(axis=1)]
    assert dict(zip(labels, found, strict=True)) == labels


def test_bundled_clips_differ_in_size_and_rate() -> None:
    formats = set()
    for name in clip_labels():
        with av.open(str(clips_path() / name)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            assert stream.duration is not None
            assert stream.time_base is not None
            assert 1.5 <= stream.duration * stream.time_base <= 2.6
            formats.add((stream.width, stream.height, stream.average_rate))
    assert len(formats) == len(LABELS)
