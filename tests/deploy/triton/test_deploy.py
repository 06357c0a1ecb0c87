"""The model repository: byte for byte, derived from the bundle, whole or not there."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import need
from google.protobuf import text_format
from made_bundle import LABELS, contract, engine, make_bundle

from vivit_export.bundle import Bundle, read_bundle, sha256_of
from vivit_export.contract import Contract, Tensor
from vivit_export.deploy.triton.deploy import TritonOptions, deploy_triton
from vivit_export.errors import BundleError, InputError, OutputError, UsageError
from vivit_export.runtime.clips.preprocess import Preprocessor
from vivit_export.runtime.predict import adapt_contract

need("tritonclient")
from tritonclient.grpc import model_config_pb2  # noqa: E402

DATA = Path(__file__).with_name("data")
NAME = "vivit-b-16x2-kinetics400"


def deploy(bundle: Bundle, target: Path, **options: Any) -> Path:
    return deploy_triton(bundle, target, TritonOptions(**options)).path / (options.get("name") or NAME)


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below, hidden files too: bytes of files, None for folders."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    return {name: path.read_bytes() if path.is_file() else None for name, path in paths.items()}


def read_config(model: Path) -> Any:
    return text_format.Parse((model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


@pytest.mark.parametrize(
    ("golden", "engines", "options"),
    [
        ("onnxruntime", {}, {}),
        ("onnxruntime_tensorrt", {}, {"backend": "onnxruntime-tensorrt"}),
        ("tensorrt", {"tensorrt": engine()}, {"instances": 2, "delay_us": 500}),
        ("tensorrt_two_gpus", {"hopper": engine(), "ada": engine(sms=[89])}, {"name": "vivit"}),
    ],
)
def test_the_configuration_is_this_byte_for_byte(
    tmp_path: Path, golden: str, engines: dict[str, dict[str, Any]], options: dict[str, Any]
) -> None:
    model = deploy(make_bundle(tmp_path / "bundle", engines), tmp_path / "repository", **options)
    assert (model / "config.pbtxt").read_bytes() == (DATA / f"{golden}.pbtxt").read_bytes()
    read = read_config(model)
    assert read.name == model.name
    assert Contract.from_json(json.loads(read.parameters["vivit_contract"].string_value)) == contract()


def test_the_same_bundle_gives_the_same_bytes(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", {"tensorrt": engine()})
    trees = [deploy_triton(bundle, tmp_path / name).files for name in ("a", "b")]
    assert trees[0] == trees[1]


def test_every_file_is_there_and_listed(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", {"hopper": engine(), "ada": engine(sms=[89])})
    done = deploy_triton(bundle, tmp_path / "r", TritonOptions(name="m"))
    assert done.kind == "triton"
    assert set(done.files) == {
        *("m/README.md", "m/1/model_sm89.plan", "m/1/model_sm90.plan", "m/config.pbtxt", "m/labels.txt"),
        "m/warmup/frames",
    }
    for name, entry in done.files.items():
        assert entry == {"sha256": sha256_of(done.path / name), "size": (done.path / name).stat().st_size}
    assert (done.path / "m/1/model_sm89.plan").read_bytes() == b"plan ada"
    assert (done.path / "m/labels.txt").read_text(encoding="utf-8").splitlines() == list(LABELS)


def test_the_graph_goes_with_its_weights(tmp_path: Path) -> None:
    model = deploy(make_bundle(tmp_path / "bundle"), tmp_path / "r")
    assert (model / "1/model.onnx").read_bytes() == b"graph"
    assert (model / "1/model.onnx.data").read_bytes() == b"weights"


def test_warm_up_runs_a_real_clip_at_every_size(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", {"tensorrt": engine(profiles=[{"min": 1, "opt": 2, "max": 6}])})
    model = deploy(bundle, tmp_path / "r")
    read = read_config(model)
    assert read.max_batch_size == 6
    assert [sample.batch_size for sample in read.model_warmup] == [1, 2, 6]
    assert [spec.batch_size for spec in read.optimization.cuda.graph_spec] == [1, 2, 6]
    clip = np.fromfile(model / "warmup/frames", np.uint8)
    assert clip.size == 32 * 224 * 224 * 3
    assert (clip[:300] == np.arange(300, dtype=np.uint64).astype(np.uint8)).all()


def test_a_bundle_that_was_not_checked_warms_up_with_random_data(tmp_path: Path) -> None:
    model = deploy(make_bundle(tmp_path / "bundle", batches=(), golden=False), tmp_path / "r")
    read = read_config(model)
    assert [sample.batch_size for sample in read.model_warmup] == [1, 8]
    assert all(sample.inputs["frames"].random_data for sample in read.model_warmup)
    assert not (model / "warmup").exists()


def test_pixels_are_warmed_up_as_pixels(tmp_path: Path) -> None:
    source = Tensor("pixel_values", "float32", ("batch", 32, 3, 224, 224))
    bundle = make_bundle(tmp_path / "bundle", mode="pixels", inputs=(source,))
    model = deploy(bundle, tmp_path / "r")
    read = read_config(model)
    assert (read.input[0].data_type, list(read.input[0].dims)) == (model_config_pb2.TYPE_FP32, [32, 3, 224, 224])
    pixels = np.fromfile(model / "warmup/pixel_values", np.float32).reshape(1, 32, 3, 224, 224)
    crops = np.arange(32 * 224 * 224 * 3, dtype=np.uint64).astype(np.uint8).reshape(1, 32, 224, 224, 3)
    np.testing.assert_array_equal(
        pixels, Preprocessor(bundle.contract.clip, bundle.contract.preprocess).to_pixels(crops)
    )


def test_several_engines_share_the_batches_that_all_of_them_take(tmp_path: Path) -> None:
    small = engine(sms=[89], profiles=[{"min": 1, "opt": 2, "max": 4}])
    model = deploy(make_bundle(tmp_path / "bundle", {"hopper": engine(), "ada": small}), tmp_path / "r")
    read = read_config(model)
    assert dict(read.cc_model_filenames) == {"8.9": "model_sm89.plan", "9.0": "model_sm90.plan"}
    assert read.max_batch_size == 4
    assert [sample.batch_size for sample in read.model_warmup] == [1, 2, 4]


@pytest.mark.parametrize(
    ("engines", "timed", "delay"),
    [
        ({}, {}, 1000),
        ({}, {"onnxruntime-cpu": {"batches": {"1": {"p50_ms": 812.34}, "4": {"p50_ms": 1.0}}}}, 81234),
        ({}, {"onnxruntime-cpu": {"batches": {"4": {"p50_ms": 1.0}}}}, 1000),
        ({"a": engine()}, {"onnxruntime-cpu": {"batches": {"1": {"p50_ms": 812.0}}}}, 1000),
        ({"a": engine()}, {"tensorrt": {"batches": {"1": {"p50_ms": 4.567}}}}, 457),
    ],
)
def test_the_delay_is_a_tenth_of_what_the_engine_was_timed_at(
    tmp_path: Path, engines: dict[str, Any], timed: dict[str, Any], delay: int
) -> None:
    bundle = make_bundle(tmp_path / "bundle", engines)
    manifest = json.loads((bundle.path / "bundle.json").read_text())
    (bundle.path / "bundle.json").write_text(json.dumps({**manifest, "bench": {"contenders": timed}}))
    read = read_config(deploy(bundle, tmp_path / "r"))
    assert read.dynamic_batching.max_queue_delay_microseconds == delay
    given = read_config(deploy(bundle, tmp_path / "given", delay_us=0))
    assert given.dynamic_batching.max_queue_delay_microseconds == 0


def test_other_labels_reach_server_and_client(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("one\ntwo\nthree\n")
    bundle = make_bundle(tmp_path / "bundle")
    model = deploy(bundle, tmp_path / "r", contract=adapt_contract(bundle.contract, labels=names))
    assert (model / "labels.txt").read_text() == "one\ntwo\nthree\n"
    assert json.loads(read_config(model).parameters["vivit_contract"].string_value)["labels"] == ["one", "two", "three"]


def test_the_readme_has_the_commands(tmp_path: Path) -> None:
    onnx = deploy(make_bundle(tmp_path / "a"), tmp_path / "onnx") / "README.md"
    assert "nvcr.io/nvidia/tritonserver:25.11-py3 tritonserver --model-repository=/models" in onnx.read_text()
    assert f"vivit predict triton://localhost:8001/{NAME} video.mp4" in onnx.read_text()
    plan = deploy(make_bundle(tmp_path / "b", {"tensorrt": engine()}), tmp_path / "plan") / "README.md"
    assert "image with TensorRT 11.4.0.106" in plan.read_text()
    assert "@" not in onnx.read_text() + plan.read_text()


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize(("engines", "tag"), [({}, "25.11-py3"), ({"tensorrt": engine()}, "11.4-py3")])
def test_the_start_line_is_one_that_a_shell_takes(
    tmp_path: Path, engines: dict[str, Any], tag: str, ensemble: bool
) -> None:
    """With a docker that writes down what it was told."""
    made = deploy_triton(make_bundle(tmp_path / "b", engines), tmp_path / "a b", TritonOptions(ensemble=ensemble))
    (start,) = re.findall(r"^```\n(.*?)^```$", made.readme.read_text(), re.DOTALL | re.MULTILINE)[:1]
    docker = tmp_path / "bin/docker"
    docker.parent.mkdir()
    docker.write_text('#!/bin/sh\n[ "$1" = build ] && cat\nprintf "%s|" "$@"\necho\n')
    docker.chmod(0o755)
    environment = {"PATH": f"{docker.parent}:{os.environ['PATH']}", "TAG": "11.4-py3"}
    done = subprocess.run(
        ["bash", "-euc", start], env=environment, cwd=made.path, capture_output=True, text=True, check=True, timeout=20
    )
    run = done.stdout.splitlines()[-1].split("|")
    assert f"{made.path}:/models:ro" in run
    image = run[run.index("tritonserver") - 1]
    assert run[run.index("tritonserver") + 1 :] == ["--model-repository=/models", "--disable-auto-complete-config", ""]
    if not ensemble:
        assert image == f"nvcr.io/nvidia/tritonserver:{tag}"
        return
    assert image == "vivit-triton"
    base, _, install, told = done.stdout.splitlines()[:4]
    assert base == f"FROM nvcr.io/nvidia/tritonserver:{tag}"
    assert install.startswith("RUN pip install av numpy pillow && pip install --no-deps vivit-export==")
    assert told.startswith("build|-t|vivit-triton|-|")


RTX = {"rtx": engine(flavour="tensorrt-rtx", version="1.7.1.116")}


@pytest.mark.parametrize(
    ("engines", "options", "error", "said"),
    [
        ({}, {"backend": "tensorrt"}, BundleError, "has no full TensorRT engine for Triton; add one with: vivit build"),
        (RTX, {"backend": "tensorrt"}, BundleError, r"for Triton \(its rtx is not what that back end loads\)"),
        ({"a": engine(profiles=[{"min": 2, "opt": 2, "max": 4}])}, {}, BundleError, "a takes batches of 2 or more"),
        ({"a": engine(), "b": engine(version="10.13.0")}, {}, BundleError, "TensorRT 10.13.0 and 11.4.0.106"),
        ({}, {"backend": "openvino"}, UsageError, "--backend openvino is unknown"),
        ({}, {"name": "a/b"}, UsageError, "'a/b' is not a model name"),
        ({}, {"instances": 0}, UsageError, "--instances 0 must be 1 or more"),
        ({}, {"delay_us": -1}, UsageError, "--max-delay-us -1 must be 0 or more"),
    ],
)
def test_refusals_leave_nothing(
    tmp_path: Path, engines: dict[str, Any], options: dict[str, Any], error: type[Exception], said: str
) -> None:
    bundle = make_bundle(tmp_path / "bundle", engines)
    with pytest.raises(error, match=said):
        deploy(bundle, tmp_path / "r", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("backend", ["onnxruntime", "onnxruntime-tensorrt"])
def test_a_graph_for_single_clips(tmp_path: Path, backend: str) -> None:
    read = read_config(deploy(make_bundle(tmp_path / "bundle", batches=(1,)), tmp_path / "r", backend=backend))
    assert read.max_batch_size == 1
    assert [sample.batch_size for sample in read.model_warmup] == [1]
    for accelerator in read.optimization.execution_accelerators.gpu_execution_accelerator:
        for size in ("min", "opt", "max"):
            assert accelerator.parameters.get(f"trt_profile_{size}_shapes", "frames:1x").startswith("frames:1x")


def test_the_tensorrt_provider_has_no_mode_for_bf16(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    path = bundle.path / "bundle.json"
    path.write_text(path.read_text().replace('"name": "fp16"', '"name": "bf16"'))
    with pytest.raises(BundleError, match="is in bf16, which ONNX Runtime's TensorRT provider has no mode for"):
        deploy(bundle, tmp_path / "r", backend="onnxruntime-tensorrt")


def test_an_rtx_engine_is_passed_over(tmp_path: Path) -> None:
    assert read_config(deploy(make_bundle(tmp_path / "bundle", RTX), tmp_path / "r")).backend == "onnxruntime"


def test_a_label_of_two_lines_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    path = bundle.path / "bundle.json"
    path.write_text(path.read_text().replace("abseiling", "ab\\nseiling"))
    with pytest.raises(InputError, match=r"label 'ab\\nseiling' cannot be one line of labels.txt"):
        deploy(bundle, tmp_path / "r")


def test_a_damaged_bundle_and_labels_that_do_not_match_the_head_are_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    manifest = bundle.path / "bundle.json"
    whole = manifest.read_text()
    manifest.write_text(whole.replace('"abseiling",', ""))
    with pytest.raises(BundleError, match="2 labels for 3 logits"):
        deploy(bundle, tmp_path / "r")
    manifest.write_text(whole)
    (bundle.path / "model.onnx").write_bytes(b"grape")
    with pytest.raises(BundleError, match=r"model\.onnx is not the file that bundle.json describes"):
        deploy(bundle, tmp_path / "r")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


# --- a repository with several models ----------------------------------------------------------


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A repository with ``m`` and the models in front of it, and with one of somebody else."""
    repository = tmp_path / "r"
    deploy_triton(make_bundle(tmp_path / "bundle"), repository, TritonOptions(name="m", ensemble=True))
    (repository / "theirs/1").mkdir(parents=True)
    (repository / "theirs/config.pbtxt").write_text('name: "theirs"')
    return repository


def test_a_model_is_added_beside_others(tmp_path: Path, shared: Path) -> None:
    before = tree(tmp_path)
    done = deploy_triton(read_bundle(tmp_path / "bundle"), shared, TritonOptions(name="n", ensemble=True))
    after = tree(tmp_path)
    assert {folder.name for folder in shared.iterdir()} == {
        f"{name}{end}" for name in ("m", "n") for end in ("", "-frames", "-video")
    } | {"theirs"}
    assert {name: after[name] for name in before} == before
    assert {f"r/{name}" for name in (*done.files, "n/deployment.json")} == {
        name for name in after.keys() - before.keys() if after[name] is not None
    }


def test_one_model_is_replaced_with_all_its_folders(tmp_path: Path, shared: Path) -> None:
    bundle = read_bundle(tmp_path / "bundle")
    deploy_triton(bundle, shared, TritonOptions(name="n"))
    before = tree(shared)
    with pytest.raises(OutputError, match="r/m exists; pass --force to replace that deployment, or choose another"):
        deploy(bundle, shared, name="m")
    assert tree(shared) == before
    deploy_triton(bundle, shared, TritonOptions(name="m", delay_us=7), force=True)
    assert {folder.name for folder in shared.iterdir()} == {"m", "n", "theirs"}  # none in front of it this time
    assert read_config(shared / "m").dynamic_batching.max_queue_delay_microseconds == 7
    kept = {name: data for name, data in tree(shared).items() if not name.startswith("m")}
    assert kept == {name: data for name, data in before.items() if not name.startswith("m")}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "r"]


@pytest.mark.parametrize(
    ("change", "name", "said"),
    [
        (
            lambda r: None,
            "theirs",
            "theirs exists and is not a deployment of theirs, so it is left alone; choose another",
        ),
        (lambda r: (r / "n-video").mkdir(), "n", "n-video exists and is not a deployment of n, so it is left alone"),
        (lambda r: (r / "n").symlink_to("nowhere"), "n", "r/n exists and is not a deployment of n"),
        (lambda r: (r / "m/2").write_text("mine"), "m", "m/2 is not part of the deployment and would be lost; move it"),
        (lambda r: (r / "m-video/x").write_text("mine"), "m", "m-video/x is not part of the deployment"),
        (lambda r: (r / "m/deployment.json").write_text("{}"), "m", "r/m exists and is not a deployment of m"),
        (lambda r: (r / "bundle.json").write_text("{}"), "n", "has a bundle.json, so it is no model repository"),
        (
            lambda r: (r / "deployment.json").write_text("{}"),
            "n",
            "has a deployment.json, so it is no model repository",
        ),
    ],
)
def test_nothing_that_is_not_ours_is_replaced(
    tmp_path: Path, shared: Path, change: Callable[[Path], object], name: str, said: str
) -> None:
    change(shared)
    before = tree(tmp_path)
    with pytest.raises(OutputError, match=said):
        deploy_triton(tmp_path / "bundle", shared, TritonOptions(name=name, ensemble=True), force=True)
    assert tree(tmp_path) == before


def test_a_listing_does_not_reach_out_of_its_deployment(tmp_path: Path, shared: Path) -> None:
    listing = shared / "m/deployment.json"
    content = json.loads(listing.read_text())
    for name in ("../bundle/model.onnx", "/etc/hostname", "theirs/config.pbtxt"):
        content["files"][name] = {"size": 1}
    listing.write_text(json.dumps(content))
    deploy_triton(tmp_path / "bundle", shared, TritonOptions(name="m"), force=True)
    assert (shared / "theirs/config.pbtxt").is_file() and (tmp_path / "bundle/model.onnx").is_file()


@pytest.mark.parametrize("failing", range(1, 7))  # three folders that go, three that come
def test_a_move_that_fails_is_undone(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    before, rename, calls = tree(tmp_path), Path.rename, iter(range(1, 100))

    def limited(self: Path, target: Path) -> Path:
        if next(calls) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", limited)
    with pytest.raises(OutputError, match="r was not written: the disk is full"):
        deploy_triton(tmp_path / "bundle", shared, TritonOptions(name="m", ensemble=True), force=True)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("target", ["loop", "loop/r", "/proc/r", "n" * 300])
def test_a_place_that_cannot_be_written(tmp_path: Path, target: str) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OutputError, match=r"exists and is not a folder|cannot be written"):
        deploy(bundle, tmp_path / target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "loop"]


def test_a_mounted_volume_is_filled_without_leaving_its_disk(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose parent cannot be written; what would leave the disk is refused as the kernel does."""
    rename, access = Path.rename, os.access

    def on_one_disk(self: Path, target: Path) -> Path:
        assert shared in self.parents and shared in Path(target).parents
        return rename(self, target)

    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == shared)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and access(path, mode))
    monkeypatch.setattr(Path, "rename", on_one_disk)
    bundle = read_bundle(tmp_path / "bundle")
    deploy(bundle, shared, name="n")
    deploy_triton(bundle, shared, TritonOptions(name="m"), force=True)
    with pytest.raises(OutputError, match="pass --force"):
        deploy(bundle, shared, name="m")
    assert sorted(path.name for path in shared.iterdir()) == ["m", "n", "theirs"]


def test_a_file_is_no_repository(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("mine")
    with pytest.raises(OutputError, match="r exists and is not a folder; choose another name"):
        deploy(make_bundle(tmp_path / "bundle"), tmp_path / "r")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("m/inner", "m/inner lies inside the model .*/r/m; choose a folder outside of it"),
        ("theirs/1/inner", "theirs/1/inner lies inside the model .*/r/theirs"),
        ("m", "m has a deployment.json, so it is no model repository"),
        ("theirs", "theirs has a config.pbtxt, so it is no model repository"),
    ],
)
def test_a_model_is_no_repository(tmp_path: Path, shared: Path, target: str, said: str) -> None:
    before = tree(tmp_path)
    with pytest.raises(OutputError, match=said):
        deploy_triton(tmp_path / "bundle", shared / target, force=True)
    assert tree(tmp_path) == before


def test_an_empty_folder_and_a_link_to_a_repository_are_filled(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "link").symlink_to("r")
    bundle = make_bundle(tmp_path / "bundle")
    for name in ("one", "two"):
        deploy(bundle, tmp_path / "link", name=name)
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == ["one", "two"]
    assert (tmp_path / "link").is_symlink()
    with pytest.raises(OutputError, match="lies inside the bundle"):
        deploy(bundle, bundle.path / "r")
