"""``vivit deploy cpp``: what is written, what may be replaced, and that a failure leaves nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from bundles import Bundles, add_plan
from click.testing import Result
from console import tree

from vivit_export.bundle import read_bundle
from vivit_export.bundle.manifest import PreparedGraph
from vivit_export.deploy import listing as deployment
from vivit_export.deploy.cpp.deploy import PROJECT, deploy_cpp
from vivit_export.deploy.listing import read_deployment
from vivit_export.errors import BundleError, OutputError
from vivit_export.files import sha256_of

Cli = Callable[..., Result]


@pytest.fixture
def bundle(bundles: Bundles, tmp_path: Path) -> Path:
    """A copy of the demo's bundle with a made-up engine."""
    folder = bundles.copy(tmp_path / "bundles/demo")
    add_plan(folder, "rtx", b"plan", flavour="tensorrt-rtx", version="1.7.1.116", sms=[86, 89])
    return folder


def test_everything_is_there_and_listed(cli: Cli, bundle: Path) -> None:
    result = cli("deploy", "cpp", bundle, "app", "-q")
    app = Path("app")
    assert result.stdout.splitlines()[1].split() == ["next", "app/README.md", "has", "the", "commands"]
    copied = tree(app / "bundle")
    assert copied.pop("model.cpu.onnx") and copied.pop("model.cuda.onnx")
    assert {**copied, "bundle.json": b""} == {**tree(bundle), "bundle.json": b""}
    made = read_bundle(app / "bundle").manifest
    assert made.cpu_graph == PreparedGraph("model.cpu.onnx", "fp32, 3 MultiHeadAttention ops")
    assert made.cuda_graph == PreparedGraph("model.cuda.onnx", "3 fused attention layers")
    sources = {name: data for name, data in tree(PROJECT).items() if "__pycache__" not in name}
    written = tree(app)
    assert {name: written[name] for name in sources if name != "README.md"} == {
        name: data for name, data in sources.items() if name != "README.md"
    }
    listed = read_deployment(app).files
    assert set(listed) | {"deployment.json"} == {name for name, data in written.items() if data is not None}
    assert all(sha256_of(app / name) == entry.sha256 for name, entry in listed.items())


def test_the_readme_speaks_of_this_bundle(cli: Cli, bundle: Path) -> None:
    cli("deploy", "cpp", bundle, "app", "-q")
    text = Path("app/README.md").read_text()
    assert text.startswith("# demo in C++")
    assert "8 frames, sampling uniform, as uint8 `frames` (batch, 8, 64, 64, 3)" in text
    assert "- `rtx`: tensorrt-rtx 1.7.1.116, sm_86, sm_89, batches from 1 to 4" in text
    assert "@" not in text


def test_json_says_the_same(cli: Cli, bundle: Path) -> None:
    facts = json.loads(cli("deploy", "cpp", bundle, "app", "-q", "--json").stdout)
    assert facts["folder"] == "app"
    assert facts["kind"] == "cpp"
    assert facts["files"] == json.loads(Path("app/deployment.json").read_text())["files"]


def test_the_same_bundle_gives_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    assert tree(deploy_cpp(bundle, tmp_path / "a").path) == tree(deploy_cpp(read_bundle(bundle), tmp_path / "b").path)


def test_only_a_deployment_is_replaced_and_only_by_force(cli: Cli, bundle: Path) -> None:
    cli("deploy", "cpp", bundle, "app", "-q")
    assert "app exists; pass --force to replace that deployment" in cli("deploy", "cpp", bundle, "app", code=3).stderr
    cli("deploy", "cpp", bundle, "app", "-q", "--force")
    Path("app/main.cpp").write_text("int main() {}")
    refusal = cli("deploy", "cpp", bundle, "app", "--force", code=3).stderr
    assert "app holds main.cpp, which is not part of the deployment and would be lost" in refusal
    Path("mine").mkdir()
    Path("mine/deployment.json").write_text("{}")
    refusal = cli("deploy", "cpp", bundle, "mine", "--force", code=3).stderr
    assert "mine exists and is not a deployment, so it is left alone" in refusal
    assert "is not a deployment" in cli("deploy", "cpp", bundle, bundle, "--force", code=3).stderr


def test_no_folder_inside_the_bundle(cli: Cli, bundle: Path) -> None:
    assert "lies inside the bundle" in cli("deploy", "cpp", bundle, bundle / "cpp", code=3).stderr


def test_a_damaged_bundle_is_refused(cli: Cli, bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"x")
    refusal = cli("deploy", "cpp", bundle, "app", code=3).stderr
    assert "model.onnx is not the file that bundle.json describes: it was altered or cut short" in refusal


def test_a_bundle_that_changes_while_it_is_copied_is_refused(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy_badly(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[: 100 if source.name == "model.onnx" else None])

    monkeypatch.setattr(deployment, "shutil", SimpleNamespace(copyfile=copy_badly))
    before = tree(tmp_path)
    with pytest.raises(BundleError, match=r"model\.onnx is not the file"):
        deploy_cpp(bundle, tmp_path / "app")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("listing", ["{", "[]", '{"format": "vivit-deployment/1"}', '{"format": 1}'])
def test_a_listing_that_is_none_is_no_deployment(bundle: Path, tmp_path: Path, listing: str) -> None:
    target = tmp_path / "app"
    target.mkdir()
    (target / "deployment.json").write_text(listing)
    with pytest.raises(OutputError, match="exists and is not a deployment"):
        deploy_cpp(bundle, target, force=True)
