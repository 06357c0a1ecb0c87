"""Loading a checkpoint: what transformers would load, bit for bit, or one sentence that says why not."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import transformers
from checkpoints import LEGACY, Checkpoints, assert_as_hugging_face, edit_config, normal_pixels, refusal
from graphs import run_ort
from safetensors.torch import load_file, save_file

import vivit_export
from vivit_export import demo
from vivit_export.contract import Task
from vivit_export.errors import InputError
from vivit_export.export.checkpoint.load import Checkpoint, load_checkpoint
from vivit_export.precision import Precision

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
State = dict[str, torch.Tensor]
Damage = Callable[[Path], object]


def assert_same_outputs(loaded: Checkpoint, folder: Path) -> None:
    pixels = normal_pixels(loaded, 2)
    assert_as_hugging_face(loaded.run_eager(pixels), folder, pixels)


def assert_same_bits(first: Checkpoint, second: Checkpoint, pixels: np.ndarray) -> None:
    """Both networks hold the same weights and give the same outputs, to the last bit."""
    # Copies: where a file leaves its tensors unaligned, the CPU's kernels add up in another order.
    first, second = (dataclasses.replace(c, network=copy.deepcopy(c.network)) for c in (first, second))
    ours, theirs = first.run_eager(pixels), second.run_eager(pixels)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])
    state = second.network.state_dict()
    assert state.keys() == first.network.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in first.network.state_dict().items())


def change_weights(change: Callable[[State], object]) -> Damage:
    def damage(folder: Path) -> None:
        state = load_file(folder / WEIGHTS)
        change(state)
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})

    return damage


# --- what loads --------------------------------------------------------------------------------


def test_demo_is_the_folder_in_the_package(demo_checkpoint: Checkpoint) -> None:
    assert (demo_checkpoint.source, demo_checkpoint.revision) == ("demo", None)
    assert demo_checkpoint.labels[:2] == ("left", "right")
    assert demo_checkpoint.num_layers == 4
    assert demo_checkpoint.anatomy.tokens == 257
    assert_same_outputs(demo_checkpoint, demo.checkpoint_path())


@pytest.mark.parametrize(
    ("num_labels", "stated", "task"),
    [
        (5, None, "single_label_classification"),
        (1, None, "regression"),  # as transformers' losses take it
        *((5, task, task) for task in get_args(Task)),
        (1, "multi_label_classification", "multi_label_classification"),
    ],
)
def test_the_task_is_the_configs_problem_type(
    checkpoints: Checkpoints, num_labels: int, stated: str | None, task: str
) -> None:
    assert checkpoints.load(num_labels=num_labels, problem_type=stated).task == task


def test_an_unknown_task_is_refused(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.copy(tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "problem_type": "ranking"}))
    assert refusal(folder).endswith(
        "config.json: problem_type 'ranking' is not one of single_label_classification, multi_label_classification, "
        "regression"
    )


def test_folder_with_a_head(checkpoints: Checkpoints) -> None:
    folder = checkpoints.folder(num_hidden_layers=2, qkv_bias=False)
    loaded = load_checkpoint(str(folder))
    assert loaded.has_head
    assert loaded.labels == tuple(f"LABEL_{i}" for i in range(5))
    assert (loaded.clip.num_frames, loaded.clip.height, loaded.clip.tubelet_size) == (4, 16, (2, 8, 8))
    assert (loaded.preprocess.shortest_edge, loaded.preprocess.crop_size) == (18, (16, 16))
    assert not loaded.network.training
    assert {p.dtype for p in loaded.network.parameters()} == {torch.float32}
    assert_same_outputs(loaded, folder)


def test_folder_without_a_head_gives_the_embedding_and_no_pooler(checkpoints: Checkpoints) -> None:
    folder = checkpoints.folder(headless=True)
    assert any("pooler" in key for key in load_file(folder / WEIGHTS))
    loaded = load_checkpoint(str(folder))
    assert (loaded.has_head, loaded.labels) == (False, ())
    assert not [name for name, _ in loaded.network.named_parameters() if "pooler" in name]
    assert set(loaded.run_eager(normal_pixels(loaded, 1))) == {"embedding"}
    assert_same_outputs(loaded, folder)


def test_a_classifier_never_exposes_a_pooler(checkpoints: Checkpoints) -> None:
    loaded = checkpoints.load()
    assert set(loaded.run_eager(normal_pixels(loaded, 1))) == {"logits", "embedding"}
    assert not [name for name, _ in loaded.network.named_modules() if "pooler" in name]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_weights_of_any_float_type_on_disk(checkpoints: Checkpoints, tmp_path: Path, dtype: torch.dtype) -> None:
    folder = checkpoints.copy(tmp_path / "low")
    change_weights(lambda state: state.update({k: v.to(dtype) for k, v in state.items()}))(folder)
    edit_config(folder, dtype=str(dtype).removeprefix("torch."))
    loaded = load_checkpoint(str(folder))
    assert {p.dtype for p in loaded.network.parameters()} == {torch.float32}
    stored = load_file(folder / WEIGHTS)
    assert torch.equal(loaded.network.classifier.weight, stored["classifier.weight"].float())
    assert_same_outputs(loaded, folder)


@pytest.mark.field_case("LlamaFactory 4258")
def test_sharded_weights(checkpoints: Checkpoints, tmp_path: Path) -> None:
    whole = checkpoints.folder()
    folder = Path(shutil.copytree(whole, tmp_path / "sharded", ignore=shutil.ignore_patterns("*.safetensors")))
    model = transformers.VivitForVideoClassification.from_pretrained(whole)
    model.save_pretrained(folder, max_shard_size="30KB")
    shards = sorted(p.name for p in folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    loaded = load_checkpoint(str(folder))
    assert sorted(loaded.weights_sha256) == shards
    assert_same_bits(loaded, checkpoints.load(), normal_pixels(loaded, 2))


def test_files_hold_the_old_key_names(checkpoints: Checkpoints) -> None:
    for folder in (checkpoints.folder(), LEGACY):
        keys = load_file(folder / WEIGHTS).keys()
        assert "vivit.encoder.layer.0.attention.attention.query.weight" in keys
        assert not [key for key in keys if "q_proj" in key]


def test_nothing_in_a_loaded_config_says_where_it_lay(checkpoints: Checkpoints) -> None:
    folder = checkpoints.folder()
    text = json.dumps(load_checkpoint(str(folder)).config)
    assert str(folder) not in text
    assert transformers.__version__ not in text


def test_low_precision_eager_puts_the_float32_weights_back(checkpoints: Checkpoints) -> None:
    loaded = load_checkpoint(str(checkpoints.folder()))
    before = {name: p.clone() for name, p in loaded.network.named_parameters()}
    pixels = normal_pixels(loaded, 1)
    full, half = loaded.run_eager(pixels)["logits"], loaded.run_eager(pixels, Precision.FP16)["logits"]
    assert 0 < np.abs(full - half).max() < 0.05
    for name, parameter in loaded.network.named_parameters():
        assert torch.equal(parameter, before[name])


# --- transformers 4 ----------------------------------------------------------------------------


LEGACY_FAMILIES = [
    LEGACY.with_name(name) for name in ("vivit-4.46", "videomae-4.46", "timesformer-4.46", "vjepa2-4.57")
]


def legacy_clips(folder: Path = LEGACY) -> tuple[np.ndarray, np.ndarray]:
    """Pixel values that are exact in float32, and the logits that the version in the name gave for them."""
    expected = json.loads((folder / "expected.json").read_text())
    assert expected["transformers"].startswith(f"{folder.name.rpartition('-')[2]}.")
    count = int(np.prod(expected["shape"]))
    pixels = ((np.arange(count) * 37 % 257 - 128) / 64).astype(np.float32).reshape(expected["shape"])
    return pixels, np.array(expected["logits"], np.float32)


@pytest.mark.parametrize("folder", LEGACY_FAMILIES, ids=lambda folder: folder.name)
def test_a_checkpoint_of_4_gives_the_logits_it_gave_there(folder: Path) -> None:
    pixels, logits = legacy_clips(folder)
    loaded = load_checkpoint(str(folder))
    written_by = json.loads((folder / "config.json").read_text())["transformers_version"]
    assert written_by == json.loads((folder / "expected.json").read_text())["transformers"]
    np.testing.assert_allclose(loaded.run_eager(pixels)["logits"], logits, rtol=0, atol=5e-6)


def test_checkpoint_of_4_46_saved_again_gives_the_same_bits(tmp_path: Path) -> None:
    again = tmp_path / "again"
    transformers.VivitForVideoClassification.from_pretrained(LEGACY).save_pretrained(again)
    transformers.VivitImageProcessor.from_pretrained(LEGACY).save_pretrained(again)
    pixels, _ = legacy_clips()
    assert_same_bits(load_checkpoint(str(LEGACY)), load_checkpoint(str(again)), pixels)


@pytest.mark.parametrize("family", ["VideoMAE-4.46", "Timesformer-4.46", "VJEPA2-4.57"])
def test_another_family_of_4_saved_again_gives_the_same_bits(tmp_path: Path, family: str) -> None:
    folder, again = LEGACY.with_name(family.lower()), tmp_path / "again"
    network = getattr(transformers, f"{family.partition('-')[0]}ForVideoClassification")
    network.from_pretrained(folder).save_pretrained(again)
    for processor in folder.glob("*preprocessor_config.json"):
        shutil.copy(processor, again)
    pixels, _ = legacy_clips(folder)
    assert_same_bits(load_checkpoint(str(folder)), load_checkpoint(str(again)), pixels)


@pytest.mark.needs_onnxruntime
@pytest.mark.parametrize("folder", LEGACY_FAMILIES, ids=lambda folder: folder.name)
def test_a_checkpoint_of_4_exports(tmp_path: Path, folder: Path) -> None:
    import onnx_ir as ir

    bundle = vivit_export.export_model(folder.as_posix(), tmp_path / "out", targets=("onnx",), input_mode="pixels")
    pixels, logits = legacy_clips(folder)
    np.testing.assert_allclose(run_ort(ir.load(bundle.model), pixels)["logits"], logits, rtol=0, atol=1e-5)


# --- what is refused ---------------------------------------------------------------------------


def text(name: str, content: str) -> Damage:
    return lambda folder: (folder / name).write_text(content)


def config(**fields: Any) -> Damage:
    return lambda folder: edit_config(folder, **fields)


def cut(name: str, keep: int) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep])


def remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def drop(key: str) -> Damage:
    return change_weights(lambda state: state.pop(key))


def fill(key: str, value: float) -> Damage:
    return change_weights(lambda state: state[key].view(-1)[1:3].fill_(value))


def index(content: object) -> Damage:
    """Replace the weights by a shard index."""

    def damage(folder: Path) -> None:
        (folder / WEIGHTS).rename(folder / "a.safetensors")
        (folder / INDEX).write_text(json.dumps(content))

    return damage


IJEPA = {"model_type": "ijepa", "architectures": ["IJepaForImageClassification"]}
OUTPUT = "vivit.encoder.layer.0.output.dense"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        pytest.param(remove("config.json"), "{folder} has no config.json", id="no-config"),
        pytest.param(text("config.json", "{'a': 1}"), "config.json cannot be read as JSON: Expecting", id="not-json"),
        pytest.param(text("config.json", "[]"), "is a nameless checkpoint", id="config-list"),
        pytest.param(config(model_type="bert"), "is a bert checkpoint; .* takes model_type vivit", id="bert"),
        pytest.param(config(**IJEPA), "is a ijepa checkpoint", id="ijepa"),
        pytest.param(config(num_attention_heads=3), "hidden_size=32 .* num_attention_heads=3", id="heads"),
        pytest.param(config(num_attention_heads=0), "num_attention_heads must be .* got 0", id="no-heads"),
        pytest.param(config(num_attention_heads="2"), "num_attention_heads must be .* got '2'", id="heads-text"),
        pytest.param(config(hidden_size=None), "hidden_size must be .* got None", id="hidden-null"),
        pytest.param(config(num_hidden_layers=0), "num_hidden_layers must be .* got 0", id="no-layers"),
        pytest.param(config(num_channels=1), "num_channels=1; only RGB", id="gray"),
        pytest.param(config(hidden_act="nope"), "hidden_act 'nope'", id="activation"),
        pytest.param(config(hidden_dropout_prob="x"), "hidden_dropout_prob", id="wrong-type"),
        pytest.param(config(num_hidden_layers=2), r"lacks 16 .*layers\.1\.attention\.k_proj\.bias", id="deeper"),
        pytest.param(config(qkv_bias=False), r"no place for 3 .*layers\.0\.attention\.k_proj\.bias", id="unused-bias"),
        pytest.param(config(num_frames=8), r"position_embeddings has shape \[1, 9, 32\] .*\[1, 17, 32\]", id="longer"),
        pytest.param(remove(WEIGHTS), "has no weights; model.safetensors", id="no-weights"),
        pytest.param(cut(WEIGHTS, -100), "cannot be loaded: .*not fully covered", id="truncated"),
        pytest.param(cut(WEIGHTS, 8), "cannot be loaded: .*header", id="header-only"),
        pytest.param(cut(WEIGHTS, 0), "cannot be loaded: .*header", id="empty"),
        pytest.param(text(WEIGHTS, "version https://git-lfs"), "is a pointer of Git LFS", id="lfs-pointer"),
        pytest.param(drop(f"{OUTPUT}.weight"), r"lacks 1 .* first is vivit\.layers\.0\.mlp\.fc2\.weight", id="missing"),
        pytest.param(fill(f"{OUTPUT}.weight", np.nan), "mlp.fc2.weight has 2 NaN or infinite", id="nan"),
        pytest.param(fill("classifier.bias", -np.inf), "classifier.bias has 2 NaN or infinite", id="inf"),
        pytest.param(
            change_weights(lambda state: state.update({"classifier.weight": torch.zeros(4, 32)})),
            r"classifier.weight has shape \[4, 32\] but config.json implies \[5, 32\]",
            id="shape",
        ),
        pytest.param(index({"weight_map": {"a": "../evil"}}), r"'\.\./evil' outside its folder", id="index-outside"),
        pytest.param(index({"weight_map": {"a": "/etc/passwd"}}), "'/etc/passwd' outside", id="index-absolute"),
        pytest.param(index({"weight_map": {"a": "b.safetensors"}}), "lacks the weight shard b.safe", id="shard-gone"),
        pytest.param(index({"weight_map": {}}), f"{INDEX} is not a valid shard index", id="index-empty"),
        pytest.param(
            index({"weight_map": {"a": 5, "b": "c"}}), f"{INDEX} is not a valid shard index", id="index-number"
        ),
        pytest.param(index([]), f"{INDEX} is not a valid shard index", id="index-list"),
        pytest.param(index({}), f"{INDEX} is not a valid shard index", id="index-without-map"),
        pytest.param(index({"weight_map": {"a": "config.json"}}), "'config.json'.* not a safetensors", id="index-json"),
        pytest.param(remove("preprocessor_config.json"), "has no preprocessor_config.json", id="no-processor"),
    ],
)
@pytest.mark.field_case("llama.cpp 6733", "airllm 137", "volleyball_analytics 18", "VideoMAEv2 58", "vformer 102")
def test_a_damaged_checkpoint(checkpoints: Checkpoints, tmp_path: Path, damage: Damage, sentence: str) -> None:
    folder = checkpoints.copy(tmp_path / "damaged")
    damage(folder)
    said = refusal(folder)
    assert re.search(sentence.format(folder=re.escape(str(folder))), said), said


def test_a_config_with_fewer_layers_than_the_weights(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.copy(tmp_path / "deep", num_hidden_layers=2)
    edit_config(folder, num_hidden_layers=1)
    assert re.search(r"no place for 16 .*layers\.1\.attention\.k_proj\.bias", refusal(folder))


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"image_size": 20}, "height=20"), ({"num_frames": 5}, "num_frames=5"), ({"image_size": [16, 12]}, "width=12")],
)
def test_sizes_that_the_tubelet_does_not_divide(
    checkpoints: Checkpoints, tmp_path: Path, fields: dict[str, Any], named: str
) -> None:
    folder = checkpoints.copy(tmp_path / "odd")
    edit_config(folder, **fields)
    with pytest.raises(InputError, match=rf"{named} is not a positive multiple of the tubelet's"):
        load_checkpoint(str(folder))


# --- code in checkpoints -----------------------------------------------------------------------


class Payload:
    """Leaves a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._path),)


def as_pickle(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def test_a_pickle_is_read_only_where_allowed(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.copy(tmp_path / "pickled")
    as_pickle(folder)
    assert re.search(r"pickle \(pytorch_model\.bin\), .* allow_pickle", refusal(folder))
    loaded = load_checkpoint(str(folder), allow_pickle=True)
    assert set(loaded.weights_sha256) == {"pytorch_model.bin"}
    assert_same_bits(loaded, checkpoints.load(), normal_pixels(loaded, 2))


def test_a_malicious_pickle_is_refused_even_where_pickles_are_allowed(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder, mark = checkpoints.copy(tmp_path / "evil"), tmp_path / "mark"
    (folder / WEIGHTS).unlink()
    torch.save({"classifier.bias": Payload(mark)}, folder / "pytorch_model.bin")
    said = refusal(folder, allow_pickle=True)
    assert re.search(r"pytorch_model\.bin holds more than tensors, which may be code", said)
    assert "weights_only" not in said, "torch's own advice is to load it unsafely"
    assert not mark.exists()


def test_an_index_of_safetensors_cannot_smuggle_a_pickle_in(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.copy(tmp_path / "smuggled")
    names = load_file(folder / WEIGHTS).keys()
    as_pickle(folder)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, "pytorch_model.bin")}))
    assert re.search(r"'pytorch_model\.bin'.* not a safetensors", refusal(folder))


def test_code_of_a_checkpoint_is_never_imported(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder, mark = checkpoints.copy(tmp_path / "remote"), tmp_path / "mark"
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(mark)!r})\nclass Evil: pass\n")
    names = ("AutoConfig", "AutoModel", "AutoModelForVideoClassification", "AutoImageProcessor")
    edit_config(folder, auto_map=dict.fromkeys(names, "evil.Evil"))
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(
        json.dumps({**processor, "auto_map": {"AutoImageProcessor": "evil.Evil"}})
    )
    loaded = load_checkpoint(str(folder))
    assert type(loaded.network) is transformers.VivitForVideoClassification
    assert not mark.exists()
