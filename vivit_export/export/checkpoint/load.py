"""Load a checkpoint: hub id, local folder, or ``demo``.

Only safetensors are read, unless the caller allows pickles; remote code never runs. The contract's facts
about the network's input and output come from the checkpoint's own JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import transformers

from vivit_export.anatomy import Anatomy
from vivit_export.contract import Clip, Preprocess, Task
from vivit_export.errors import CheckpointError, EnvironmentFault
from vivit_export.export.checkpoint.config import (
    as_loaded,
    overridden_note,
    read_config,
    require_stored,
)
from vivit_export.export.checkpoint.device import out_of_memory, use_full_float32
from vivit_export.export.checkpoint.files import locate, weight_files
from vivit_export.export.checkpoint.low_precision import in_dtype, torch_dtype
from vivit_export.export.checkpoint.weights import (
    mismatch,
    one_line,
    read_weights,
    require_all,
    require_floats,
    unused_note,
    unwrapped,
)
from vivit_export.families import Family, find_family
from vivit_export.families.family import TapPoint
from vivit_export.families.networks import Network, network_of
from vivit_export.files import sha256_of
from vivit_export.precision import Precision
from vivit_export.records import JsonObject
from vivit_export.runtime.clips.pixels.processor_config import doubt_about, read_preprocess
from vivit_export.runtime.session.backend import join_outputs

T = TypeVar("T")

OLDEST_TRANSFORMERS = (5, 9)
"""First version whose modules have the names and forms that the graph's rewrites and the quantization look for."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        source: what the user named: a hub id, a folder, or ``demo``.
        revision: hub commit, or None for a local folder.
        adapter: how networks of its family are run and traced.
        network: such as ``VivitForVideoClassification``, or ``VivitModel`` without its pooler where the
            checkpoint has no head; float32, in eval mode, on the CPU until it is moved.
        config: the network's configuration as JSON.
        clip: geometry of its input.
        preprocess: pixel pipeline.
        labels: name of each logit; empty without a head.
        weights_sha256: hash of each weight file on disk.
        notes: what its user should know: weights that are not exported, or pixel values that are unlikely.
    """

    source: str
    revision: str | None
    adapter: Network
    network: Any
    config: JsonObject
    clip: Clip
    preprocess: Preprocess
    labels: tuple[str, ...]
    weights_sha256: dict[str, str]
    notes: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """What the logits mean: ``problem_type`` of the config, or what transformers' losses take for it if unset.

        Without a ``problem_type``, transformers trains one output as a regression, and several on one label per clip
        (or on floats, as several labels; a config that was trained so has its ``problem_type`` set).
        """
        found: Task | None = self.network.config.problem_type
        if found is None and len(self.labels) == 1:
            return "regression"
        return found or "single_label_classification"

    @property
    def has_head(self) -> bool:
        """Whether the network ends in a classifier."""
        return bool(self.labels)

    @property
    def framework(self) -> str:
        """The framework that runs the network, and the GPU if it is on one, for reports."""
        on = f" on {torch.cuda.get_device_name(self.device)}" if self.device.type == "cuda" else ""
        return f"PyTorch {torch.__version__}{on}"

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        found: torch.device = next(self.network.parameters()).device
        return found

    def move(self, device: torch.device) -> None:
        """Run the network on a device from now on, in full float32; a network on a GPU is not for exporting."""
        use_full_float32()
        self.network.to(device)

    @property
    def anatomy(self) -> Anatomy:
        """What the network is made of."""
        return self.adapter.family.anatomy(self.config, self.clip)

    @property
    def taps(self) -> tuple[TapPoint, ...]:
        """Where block drift looks, without the logits."""
        return self.adapter.family.taps(self.config)

    @property
    def num_layers(self) -> int:
        """Number of encoder blocks."""
        return self.anatomy.num_blocks

    @property
    def flops_per_clip(self) -> float:
        """Multiplications and additions in the encoder's GEMMs for one clip (ViViT-B/16x2: 0.90e12)."""
        return float(self.anatomy.flops)

    @property
    def encoder(self) -> torch.nn.Module:
        """The network below the head, such as ``VivitModel``."""
        encoder = self.adapter.encoder(self.network)
        assert isinstance(encoder, torch.nn.Module)
        return encoder

    def outputs(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run the network.

        Args:
            pixels: (B, T, 3, H, W), in the dtype of the weights.

        Returns:
            ``embedding`` (B, hidden): what the classifier reads, and with a head ``logits`` (B, num_labels).
        """
        embedding = self.adapter.embedding(self.network, pixels)
        if not self.has_head:
            return {"embedding": embedding}
        head = self.network.classifier
        assert isinstance(head, torch.nn.Module)
        return {"logits": head(embedding), "embedding": embedding}

    def run_eager(
        self, pixels: Iterable[npt.NDArray[np.float32]], precision: Precision = Precision.FP32
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Run the eager network clip by clip: the reference of every drift figure.

        A network on a GPU without the memory for it moves to the CPU; see `where_it_fits`.

        Args:
            pixels: of each clip, float32 (T, 3, H, W); gone through again if the network moves.
            precision: ``fp32``, ``fp16`` or ``bf16``; weights and activations are of that type.

        Returns:
            float32 arrays by output name, each with N rows.
        """

        def run() -> list[dict[str, npt.NDArray[np.float32]]]:
            with in_dtype(self.network, torch_dtype(precision)), torch.inference_mode():
                batches = (torch.from_numpy(np.ascontiguousarray(clip[None])) for clip in pixels)
                results = (self.outputs(batch.to(self.device).to(torch_dtype(precision))) for batch in batches)
                return [{name: out.float().cpu().numpy() for name, out in each.items()} for each in results]

        return join_outputs(self.where_it_fits(run))

    def where_it_fits(self, run: Callable[[], T]) -> T:
        """Run the network; where the memory of its GPU does not hold that, move it to the CPU and run it there."""
        try:
            return run()
        except RuntimeError as e:
            if self.device.type == "cpu" or not out_of_memory(e):
                raise
        self.move(torch.device("cpu"))  # not while the exception holds tensors
        return run()


def use_cores(count: int) -> None:
    """Let eager networks of this process compute with this number of threads, whatever the environment says."""
    torch.set_num_threads(count)


def hugging_face_pixels(preprocess: Preprocess, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Preprocess a clip with transformers' own image processor (Pillow and NumPy), given these fields.

    Args:
        preprocess: the fields.
        frames: uint8 (T, h, w, 3).

    Returns:
        float32 (1, T, 3, H, W).
    """
    p = preprocess
    size = {"shortest_edge": p.shortest_edge} if p.size is None else {"height": p.size[0], "width": p.size[1]}
    own = {"offset": p.offset} if p.processor.startswith("Vivit") else {}
    processor = image_processor(p.processor)(
        do_resize=p.do_resize,
        size=size,
        resample=p.resample,
        do_center_crop=p.do_center_crop,
        crop_size={"height": p.crop_size[0], "width": p.crop_size[1]},
        do_rescale=p.do_rescale,
        rescale_factor=p.rescale_factor,
        do_normalize=p.do_normalize,
        image_mean=list(p.mean),
        image_std=list(p.std),
        **own,
    )
    pixels: npt.NDArray[np.float32] = processor(
        list(frames),
        input_data_format="channels_last",  # it would guess, and wrongly for frames of 1 or 3 rows
        return_tensors="np",
    )["pixel_values"]
    return pixels


def image_processor(name: str) -> Any:
    """Return transformers' class with Pillow's arithmetic for a processor that a checkpoint names.

    That of VideoMAE, which TimeSformer uses too, has the plain name before transformers 5.0.
    """
    if name.startswith("Vivit"):
        return transformers.VivitImageProcessor
    return getattr(transformers, "VideoMAEImageProcessorPil", None) or transformers.VideoMAEImageProcessor


def load_checkpoint(model: str, *, revision: str | None = None, allow_pickle: bool = False) -> Checkpoint:
    """Load ``model`` in float32.

    Args:
        model: ``demo``, a folder in Hugging Face form, or a hub id.
        revision: hub branch, tag or commit; refused for anything that is not on the hub.
        allow_pickle: also accept ``pytorch_model.bin`` (read with ``weights_only``).

    Raises:
        CheckpointError: not found, of no family that we know, or weights that are missing, truncated, of the
            wrong shape, pickled, or not finite.
        EnvironmentFault: transformers is too old.
    """
    _require_transformers()
    folder, commit = locate(model, revision, allow_pickle)
    config = read_config(folder)
    family = find_family(config["model_type"], str(folder))
    activation = config.get("hidden_act", "gelu_fast")
    if activation not in list(transformers.activations.ACT2FN):
        raise CheckpointError(
            f"{folder / 'config.json'}: hidden_act {activation!r} is not an activation that transformers knows"
        )
    clip = family.clip(config, str(folder / "config.json"))
    preprocess = read_preprocess(folder, (clip.height, clip.width), family.processor)
    files = weight_files(folder, allow_pickle)
    adapter = network_of(family)
    network, notes = _load_network(folder, adapter, config, clip, files)
    _check_finite(network)
    doubt = doubt_about(preprocess)
    return Checkpoint(
        source=model,
        revision=commit,
        adapter=adapter,
        network=network,
        config=_portable(network.config.to_dict()),
        clip=clip,
        preprocess=preprocess,
        labels=_labels(network, family),
        weights_sha256={f.name: sha256_of(f) for f in files},
        notes=(*notes, *([doubt] if doubt else [])),
    )


def _require_transformers() -> None:
    """Refuse a version whose networks would be exported, but neither rewritten nor quantized."""
    found = tuple(int(part) for part in re.findall(r"\d+", transformers.__version__)[:2])
    if found < OLDEST_TRANSFORMERS:
        oldest = ".".join(map(str, OLDEST_TRANSFORMERS))
        raise EnvironmentFault(
            f"transformers {transformers.__version__} is too old to export from; checkpoints of any version can be "
            f'read with {oldest} or newer: pip install --upgrade "transformers>={oldest}"'
        )


def _load_network(
    folder: Path, adapter: Network, config: JsonObject, clip: Clip, files: list[Path]
) -> tuple[Any, list[str]]:
    """Return the network with the stored weights, and what a user should know about them."""
    family = adapter.family
    has_head = family.has_head(config)
    state, prefix = unwrapped(read_weights(folder, files), folder, family)
    require_floats(state, folder)
    require_stored(family, config, clip, [tensor.numel() for tensor in state.values()], folder)
    state = adapter.renamed(state)
    try:
        with _quiet():
            floats = {name: tensor.to(torch.float32) for name, tensor in state.items()}
            network, info = adapter.load(as_loaded(config), floats, has_head=has_head)
    except Exception as e:  # transformers raises a dozen kinds for one bad field
        raise CheckpointError(f"{folder} cannot be loaded as a {family.title}: {one_line(e)}") from e
    if info["mismatched_keys"]:
        key, found, wanted = sorted(info["mismatched_keys"])[0]
        raise CheckpointError(f"{folder}: weight {key} has shape {list(found)} but {mismatch(key, list(wanted))}")
    require_all(info["missing_keys"], info["unexpected_keys"], folder, family, has_head=has_head)
    notes = [f"the names of the weights begin with {prefix!r}, which was left out"] if prefix else []
    notes += filter(None, (overridden_note(config), unused_note(info["unexpected_keys"], has_head=has_head)))
    return network.float().eval(), notes


def _check_finite(network: torch.nn.Module) -> None:
    for name, value in network.state_dict().items():
        if not torch.isfinite(value).all():
            bad = int((~torch.isfinite(value)).sum())
            raise CheckpointError(f"weight {name} has {bad} NaN or infinite values; the checkpoint is damaged")


def _labels(network: Any, family: Family) -> tuple[str, ...]:
    if type(network).__name__ == family.encoder:
        return ()
    names = network.config.id2label
    return tuple(str(names.get(i, f"LABEL_{i}")) for i in range(network.config.num_labels))


def _portable(config: JsonObject) -> JsonObject:
    """Drop fields that say where the checkpoint was or how it was loaded, not what it is."""
    local = {"_name_or_path", "_attn_implementation_autoset", "dtype", "torch_dtype", "transformers_version"}
    plain = {k: v for k, v in config.items() if k not in local}
    return dict(json.loads(json.dumps(plain)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' progress bars and reports: we check and report the same facts."""
    level = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()
