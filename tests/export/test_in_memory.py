"""Models in memory: exported as their folder would be, and refused in a sentence."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import VivitConfig, VivitForVideoClassification, VivitImageProcessor

import vivit_export as ve
from vivit_export import demo
from vivit_export.errors import CheckpointError, OutputError, UsageError
from vivit_export.export import calibration_run
from vivit_export.export.in_memory import as_checkpoint

ONLY_THE_GRAPH: dict[str, Any] = {"targets": ("onnx",), "check": False}


@pytest.fixture(scope="module")
def network() -> VivitForVideoClassification:
    return VivitForVideoClassification.from_pretrained(demo.checkpoint_path())


@pytest.fixture(scope="module")
def processor() -> VivitImageProcessor:
    return VivitImageProcessor.from_pretrained(demo.checkpoint_path())


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where scratch folders are made; it must be empty in the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_it_is_exported_as_its_folder_is(network: Any, processor: Any, tmp_path: Path, temporary: Path) -> None:
    network.train()  # as it is after a fine-tuning
    found = ve.export_model(network, tmp_path / "a", processor=processor, precision="fp16", **ONLY_THE_GRAPH)
    assert network.training
    network.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    expected = ve.export_model(tmp_path / "saved", tmp_path / "b", precision="fp16", **ONLY_THE_GRAPH)
    assert found.model.read_bytes() == expected.model.read_bytes()
    assert found.contract == expected.contract
    assert found.manifest.model.weights_sha256 == expected.manifest.model.weights_sha256
    assert found.manifest.model.id == "checkpoint"  # the folder that the network was loaded from
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    ("loaded_from", "name"),
    [
        ("google/vivit-b-16x2-kinetics400", "vivit-b-16x2-kinetics400"),
        ("", "vivit"),
        ("/data/my model", "vivit"),
        ("..", "vivit"),
        ("/a/../..", "vivit"),
        ("x" * 300, "vivit"),
    ],
)
def test_it_is_named_after_what_it_was_loaded_from(
    processor: Any, temporary: Path, loaded_from: str, name: str
) -> None:
    network = VivitForVideoClassification(
        VivitConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    )
    network.config.name_or_path = loaded_from
    with as_checkpoint(network, processor) as folder:
        assert Path(folder).name == name
        assert Path(folder).is_relative_to(temporary)
        assert {path.name for path in Path(folder).iterdir()} >= {"config.json", "model.safetensors"}
    assert not list(temporary.iterdir())


def test_its_ranges_are_those_of_its_folder(
    network: Any, processor: Any, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []
    monkeypatch.setattr(
        calibration_run,
        "calibrate_model",
        lambda model, *_args, **_options: seen.append({path.name for path in Path(model).iterdir()}),
    )
    ve.calibrate(network, processor=processor, data=demo.clips_path())
    assert seen and seen[0] >= {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    ("which", "sentence"),
    [
        ("no processor", "^model is in memory, so processor is needed too: it says how frames become pixel values$"),
        ("processor of a folder", "^processor is for a model in memory; a checkpoint has its own"),
        ("wrong processor", "^processor must be an image or video processor of transformers, got dict$"),
        ("class", "^model must be a folder or a hub id, got a type in memory"),
        ("module", r"^model is a Linear, which is not a model of transformers; give the model itself"),
    ],
)
def test_what_is_refused(network: Any, processor: Any, tmp_path: Path, which: str, sentence: str) -> None:
    import torch

    model, with_it = {
        "no processor": (network, None),
        "processor of a folder": (demo.checkpoint_path(), processor),
        "wrong processor": (network, {}),
        "class": (VivitForVideoClassification, None),
        "module": (torch.nn.Linear(1, 1), None),
    }[which]
    with pytest.raises(UsageError, match=sentence):
        ve.export_model(model, tmp_path / "out", processor=with_it, **ONLY_THE_GRAPH)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("raised", "kind", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), OutputError, "cannot be written to .*: No space left"),
        (
            RuntimeError("tied weights\nmore"),
            CheckpointError,
            r"save_pretrained failed: tied weights; write it",
        ),
        (NotImplementedError(), CheckpointError, "failed: NotImplementedError"),
    ],
)
def test_a_model_that_cannot_be_written_leaves_nothing(
    processor: Any, temporary: Path, raised: Exception, kind: type[Exception], sentence: str
) -> None:
    class Broken:
        """A model of somebody."""

        def save_pretrained(self, save_directory: Path) -> None:
            save_directory.mkdir()
            raise raised

    with pytest.raises(kind, match=sentence), as_checkpoint(Broken(), processor):
        raise AssertionError("it was not written")
    assert not list(temporary.iterdir())


def test_what_is_not_saved_is_not_left_out_in_silence(network: Any, processor: Any, tmp_path: Path) -> None:
    network.train()
    hook = network.classifier.register_forward_hook(lambda _module, _inputs, output: 2 * output)
    try:
        with pytest.raises(CheckpointError, match=r"not what save_pretrained saves: its output differs .* by \S+ %"):
            ve.export_model(network, tmp_path / "a", processor=processor, **ONLY_THE_GRAPH)
    finally:
        hook.remove()
    assert network.training and network.classifier.training
    assert not (tmp_path / "a").exists()


def test_code_of_its_own_is_not_left_out_in_silence(processor: Any, tmp_path: Path) -> None:
    class OfTheMean(VivitForVideoClassification):  # type: ignore[misc]
        def forward(self, pixel_values: Any, **_fields: Any) -> Any:
            return (self.classifier(self.vivit(pixel_values)[0].mean(1)),)

    network = OfTheMean.from_pretrained(demo.checkpoint_path())
    with pytest.raises(CheckpointError, match="remove hooks and code of your own, which are not exported"):
        ve.calibrate(network, processor=processor, num_clips=32)


def test_one_that_cannot_be_run_is_exported_with_a_note(network: Any, processor: Any, temporary: Path) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of order\nat line 3")

    hook, notes = network.register_forward_pre_hook(fail), list[str]()
    try:
        with as_checkpoint(network, processor, notes.append):
            pass
    finally:
        hook.remove()
    assert notes == [
        "the model in memory was not compared with its saved checkpoint, because it cannot be run: out of order"
    ]


@pytest.mark.parametrize("change", ["half", "compile"])
def test_other_types_and_compiled_models_are_compared_as_they_are(processor: Any, temporary: Path, change: str) -> None:
    network = VivitForVideoClassification.from_pretrained(demo.checkpoint_path())
    changed: Any = network.half() if change == "half" else torch.compile(network)
    notes: list[str] = []
    with as_checkpoint(changed, processor, notes.append):
        pass
    assert not notes


@pytest.mark.field_case("pytorch 5315")
def test_wrappers_are_named(network: Any, processor: Any) -> None:
    with pytest.raises(UsageError, match=r"model is a DataParallel, .* its \.module$"):
        ve.export_model(torch.nn.DataParallel(network), processor=processor)  # type: ignore[arg-type]


def test_messages_do_not_name_the_folder_of_the_copy(processor: Any) -> None:
    network = VivitForVideoClassification.from_pretrained(demo.checkpoint_path())
    network.classifier = torch.nn.Sequential(torch.nn.Dropout(0.5), network.classifier)
    with pytest.raises(CheckpointError, match=r"^the model in memory lacks 2 of the model's weights"):
        ve.export_model(network, processor=processor)
