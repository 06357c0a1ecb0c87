"""The models in front of the engine as they are written: an ensemble whose parts fit together."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_bundle import make_bundle
from triton_repository import read_config

from vivit_export.contract import Tensor
from vivit_export.deploy.triton.deploy import TritonOptions, deploy_triton
from vivit_export.deploy.wheel import wheel_name
from vivit_export.errors import UsageError
from vivit_export.runtime.predict import adapt_contract


def test_the_ensemble_as_it_is_written(tmp_path: Path) -> None:
    deploy_triton(make_bundle(tmp_path / "bundle"), tmp_path / "r", TritonOptions(name="m", ensemble=True))
    configs = {path.parent.name: read_config(path.parent) for path in (tmp_path / "r").glob("*/config.pbtxt")}
    assert set(configs) == {"m", "m-frames", "m-video"}
    steps = configs["m-video"].ensemble_scheduling.step
    assert [(step.model_name, dict(step.input_map), dict(step.output_map)) for step in steps] == [
        ("m-frames", {"video": "video"}, {"frames": "frames"}),
        ("m", {"frames": "frames"}, {"logits": "logits", "embedding": "embedding"}),
    ]
    (made,), (taken,) = configs["m-frames"].output, configs["m"].input
    assert (made.name, made.data_type, made.dims) == (taken.name, taken.data_type, taken.dims)
    assert (tmp_path / "r/m-video/labels.txt").read_bytes() == (tmp_path / "r/m/labels.txt").read_bytes()
    assert (tmp_path / "r/m-video/1").is_dir()
    readme = (tmp_path / "r/m/README.md").read_text()
    assert f"pip install --no-cache-dir /tmp/{wheel_name()}" in readme
    assert '.infer("m-video", [video]' in readme and "@" not in readme


def test_views_need_a_model_that_crops(tmp_path: Path) -> None:
    source = Tensor("frames", "uint8", ("batch", 32, 360, 640, 3))
    bundle = make_bundle(tmp_path / "bundle", mode="frames", inputs=(source,), frame_size=(360, 640), golden=False)
    views = adapt_contract(bundle.contract, stride=2, views=(4, 3))
    with pytest.raises(UsageError, match="3 spatial views need a crop to move"):
        deploy_triton(bundle, tmp_path / "r", TritonOptions(contract=views, ensemble=True))
    assert not (tmp_path / "r").exists()
