"""``vivit deploy triton``, and ``predict`` and ``check`` on what then is served, as a user meets them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from bundles import Bundles
from click.testing import Result
from command_line import Cli
from triton_server import Served, free_port

from vivit_export.demo import clip_labels, clips_path

pytestmark = pytest.mark.needs_onnxruntime
LEFT = clips_path() / "left_320x240_25fps.mp4"


def lines(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_folder_is_predicted_by_the_server_in_order(cli: Cli, served: Served, protocol: str) -> None:
    here = lines(cli("predict", served.bundle.path, clips_path(), "-q", "--engine", "onnxruntime-cpu"))
    there = lines(cli("predict", served.server.url("demo", protocol), clips_path(), "-q"))
    assert [row["video"] for row in there] == [row["video"] for row in here]
    for row, expected in zip(there, here, strict=True):
        assert [e["label"] for e in row["top"]] == [e["label"] for e in expected["top"]]  # type: ignore[attr-defined]
        chances = [[e["probability"] for e in r["top"]] for r in (row, expected)]  # type: ignore[attr-defined]
        assert chances[0] == pytest.approx(chances[1], abs=1e-5)
    assert {Path(str(row["video"])).name: row["top"][0]["label"] for row in there} == clip_labels()  # type: ignore[index]


def test_windows_views_and_faults_as_anywhere_else(cli: Cli, served: Served, tmp_path: Path) -> None:
    url = served.server.url("demo")
    windows = cli("predict", url, LEFT, "--window", "0.8", "--top-k", "1", "-q").stdout.splitlines()
    assert windows[0].startswith("    0.00 s to     0.80 s   ")
    views = cli("predict", url, LEFT, "--stride", "4", "--views", "4x3", "--short", "repeat", "--top-k", "1", "-q")
    assert views.stdout.splitlines()[1].startswith("  left ")
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    assert "is a text file" in cli("predict", url, text, "-q", code=3).stderr


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_files_are_sent_to_a_model_that_takes_videos(cli: Cli, served: Served, tmp_path: Path, protocol: str) -> None:
    url = served.server.url("demo-video", protocol)
    here = lines(cli("predict", served.bundle.path, clips_path(), "-q", "--engine", "onnxruntime-cpu"))
    there = lines(cli("predict", url, clips_path(), "-q"))
    assert [row["video"] for row in there] == [row["video"] for row in here]
    for row, expected in zip(there, here, strict=True):
        assert [e["label"] for e in row["top"]] == [e["label"] for e in expected["top"]]  # type: ignore[attr-defined]
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    assert f"error: {text} is a text file; give a video file" in cli("predict", url, text, "-q", code=3).stderr


def test_what_a_model_that_takes_videos_cannot_do(cli: Cli, served: Served) -> None:
    url = served.server.url("demo-video")
    for options in (("--stride", "1"), ("--views", "4x3"), ("--window", "0.8"), ("--engine", "openvino")):
        assert len(cli("predict", url, LEFT, *options, "-q", code=2).stderr.splitlines()) == 1
    for verb in ("check", "bench"):
        refused = cli(verb, served.bundle.path, "--engine", url, "-q", code=7).stderr
        assert refused.endswith("to send clips, use the model demo\n")
    named = lines(cli("predict", url, LEFT, "--json", "-q", "--embedding", "e.safetensors"))
    assert Path("e.safetensors").is_file() and named[0]["top"][0]["label"] == "left"  # type: ignore[index]


def test_a_served_model_under_load(cli: Cli, served: Served) -> None:
    load = ("--in-flight", "1,2", "--seconds", "0.2", "-q")
    url = served.server.url("demo")
    assert list(json.loads(cli("bench", url, *load, "--json").stdout)["in_flight"]) == ["1", "2"]
    assert cli("bench", served.server.url("demo-video"), *load).stdout.startswith("in flight  videos  videos/s")
    for given in (("--engine", "openvino"), ("--batch", "1"), ("--save",), ("--device", "cpu"), ("--rounds", "10")):
        said = cli("bench", url, *load, *given, code=2).stderr
        assert said == f"error: {given[0]} is for a bundle; drop it for a served model\n"
    for given in (("--in-flight", "1"), ("--seconds", "20")):
        said = cli("bench", served.bundle.path, *given, code=2).stderr
        assert said == f"error: {given[0]} is for a served model; give its address in place of {served.bundle.path}\n"
    refused = cli("bench", url, "--seconds", "-1", code=2).stderr
    assert "--in-flight must be 1 or more, and --seconds -1.0 above 0" in refused


def test_what_runs_is_said(cli: Cli, served: Served) -> None:
    said = cli("predict", served.server.url("demo"), LEFT).stderr.splitlines()
    assert said[0].startswith("ask the server ")
    assert said[1].startswith("  runs on Triton 2.51.0 at 127.0.0.1:")


@pytest.mark.field_case("server 2231")
def test_the_drift_of_a_running_server(cli: Cli, served: Served) -> None:
    shown = cli("check", served.bundle.path, "--engine", served.server.url("demo"), "-q").stdout
    for batch in (1, 8):
        assert f"fp32, batch {batch}: top-1 100.0 %" in shown
    assert shown.count("Triton 2.51.0 at 127.0.0.1:") == 2
    assert "gate       passed" in shown


def test_another_bundle_than_the_one_served_is_not_checked(cli: Cli, served: Served, bundles: Bundles) -> None:
    other = bundles.demo(check=True, num_clips=3, precision="fp16").path
    refused = cli("check", other, "--engine", served.server.url("demo"), "-q", code=3)
    assert "was deployed from another graph than" in refused.stderr


@pytest.mark.parametrize(
    ("address", "code", "said"),
    [
        ("triton://127.0.0.1:PORT/nonsense", 7, "has no model 'nonsense'; it has: demo, demo-frames, "),
        ("triton://127.0.0.1:FREE/demo?timeout=5", 7, "no Triton server answers at 127.0.0.1:FREE (gRPC)"),
        ("triton+http://127.0.0.1:FREE/demo?timeout=5", 7, "no Triton server answers at 127.0.0.1:FREE (HTTP)"),
        ("triton://127.0.0.1", 2, "is not the address of a served model; write triton://HOST:"),
        ("grpcs://127.0.0.1:PORT/demo", 2, "is not the address of a served model; write triton://HOST:"),
        ("triton://127.0.0.1:PORT/demo?retry=3", 2, "retry=3 cannot follow an address"),
    ],
)
def test_bad_addresses(cli: Cli, served: Served, address: str, code: int, said: str) -> None:
    ports = {"PORT": str(served.server.grpc), "FREE": str(free_port())}
    for name, port in ports.items():
        address, said = address.replace(name, port), said.replace(name, port)
    for verb in (("predict", address, LEFT), ("check", served.bundle.path, "--engine", address)):
        result = cli(*verb, "-q", code=code)
        assert said in result.stderr and len(result.stderr.splitlines()) == 1


def test_deploy(cli: Cli, bundles: Bundles) -> None:
    bundle = bundles.demo(check=True, num_clips=3).path
    shown = cli("deploy", "triton", bundle, "repository", "-q").stdout
    assert shown.splitlines()[1] == "  next       repository/demo/README.md has the commands"
    facts = json.loads(cli("deploy", "triton", bundle, "repository", "--name", "m", "--force", "--json", "-q").stdout)
    assert (facts["kind"], facts["model"]) == ("triton", "demo")
    assert "m/config.pbtxt" in facts["files"] and "demo/config.pbtxt" not in facts["files"]
    assert Path("repository/m/1/model.onnx").is_file() and Path("repository/demo/1/model.onnx").is_file()
    assert "pass --force to replace" in cli("deploy", "triton", bundle, "repository", code=3).stderr


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--backend", "tensorrt"), 3, "has no full TensorRT engine for Triton; add one with: vivit build"),
        (("--backend", "openvino"), 2, "'openvino' is not one of"),
        (("--name", "a b"), 2, "'a b' is not a model name"),
        (("--instances", "0"), 2, "--instances 0 must be 1 or more"),
        (("--labels", "none.txt"), 3, "the labels in none.txt cannot be read"),
    ],
)
def test_deploy_refuses(cli: Cli, bundles: Bundles, options: tuple[str, ...], code: int, said: str) -> None:
    bundle = bundles.demo(check=True, num_clips=3).path
    assert said in cli("deploy", "triton", bundle, "repository", *options, code=code).stderr


@pytest.mark.parametrize(("bundle", "repository"), [("", "repository"), ("BUNDLE", "")])
def test_an_empty_path_is_not_the_current_folder(cli: Cli, bundles: Bundles, bundle: str, repository: str) -> None:
    given = bundle and bundles.demo(check=True, num_clips=3).path
    assert "an empty path names nothing" in cli("deploy", "triton", given, repository, code=2).stderr


def test_a_damaged_bundle_is_not_deployed(cli: Cli, bundles: Bundles, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundles.demo(check=True, num_clips=3).path, tmp_path / "copy"))
    with (copy / "model.onnx").open("r+b") as f:
        f.seek(-1, 2)
        f.write(b"\1")
    assert "model.onnx is not the file" in cli("deploy", "triton", copy, "repository", "-q", code=3).stderr
