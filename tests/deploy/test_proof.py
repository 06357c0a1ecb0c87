"""A deployment keeps the proof that it came from a signed bundle, and is verified by it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from attacked import make
from bundles import Bundles, need
from click.testing import Result
from console import tree
from noted import Noted

need("cryptography")
from made_keys import write_pair  # noqa: E402

from vivit_export.bundle import read_bundle  # noqa: E402
from vivit_export.bundle.signatures.sign import sign_bundle, verify_bundle  # noqa: E402
from vivit_export.bundle.signatures.trust import Trust, read_trust  # noqa: E402
from vivit_export.deploy.cpp.deploy import deploy_cpp  # noqa: E402
from vivit_export.deploy.proof import keep_proof, require_signed_model, verify_deployment  # noqa: E402
from vivit_export.deploy.triton.deploy import TritonOptions, deploy_triton  # noqa: E402
from vivit_export.errors import BundleError, SignatureError  # noqa: E402

Cli = Callable[..., Result]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed bundle ``b`` with ``signer.pub``, deployed as ``app`` and as the model ``m`` of ``models``."""
    home = tmp_path_factory.mktemp("deployed")
    make(home / "b")
    sign_bundle(home / "b", write_pair(home)[0])
    write_pair(home, "other")
    deploy_cpp(home / "b", home / "app")
    deploy_triton(home / "b", home / "models", TritonOptions(name="m", ensemble=True))
    return home


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "place"))


def trusted(place: Path, name: str = "signer") -> Trust:
    return read_trust(place / f"{name}.pub")


def reseal(listing: Path, root: Path) -> None:
    """Make ``deployment.json`` right for the files that are there now, as whoever altered them would."""
    data = json.loads(listing.read_text())
    for name in data["files"]:
        content = (root / name).read_bytes()
        data["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    listing.write_text(json.dumps(data))


def test_manifest_and_signature_are_kept_as_they_are(made: Path) -> None:
    for source in (made / "app/source", made / "models/m/source"):
        assert tree(source) == {name: (made / "b" / name).read_bytes() for name in ("bundle.json", "model.sig")}
    assert not (made / "app/bundle/model.sig").exists(), "which does not hold for the copy with another graph"


def test_an_unsigned_bundle_leaves_no_proof(place: Path, tmp_path: Path) -> None:
    (place / "b/model.sig").unlink()
    deploy_cpp(place / "b", tmp_path / "app")
    deploy_triton(place / "b", tmp_path / "models", TritonOptions(name="m"))
    for folder in (tmp_path / "app", tmp_path / "models/m"):
        assert not (folder / "source").exists()
        said = f"^{folder} is not from a signed bundle: it has no source/model.sig; sign the bundle"
        with pytest.raises(SignatureError, match=said):
            verify_deployment(folder, trusted(place))


def test_a_deployment_for_cpp_is_verified(place: Path) -> None:
    proof = verify_deployment(place / "app", trusted(place))
    listed = {f"bundle/{name}" for name in read_bundle(place / "b").manifest.files}
    assert (proof.kind, proof.signer.files) == ("cpp", verify_bundle(place / "b", place / "signer.pub").files)
    assert set(proof.signed) == {*listed, "source/bundle.json"}
    assert {"bundle/bundle.json", "bundle/model.cpu.onnx", "README.md"} <= set(proof.unsigned)


def test_a_deployment_for_triton_is_verified(place: Path) -> None:
    proof = verify_deployment(place / "models/m", trusted(place))
    assert set(proof.signed) == {"m/1/model.plan", "m/source/bundle.json"}
    assert {"m/config.pbtxt", "m-frames/1/model.py", "m/README.md"} <= set(proof.unsigned)
    assert require_signed_model(place / "models/m", trusted(place)) == proof.signer


def test_another_signer_is_refused(place: Path) -> None:
    for folder in (place / "app", place / "models/m"):
        with pytest.raises(SignatureError, match=r"source/model\.sig was not made with the key of .*other\.pub"):
            verify_deployment(folder, trusted(place, "other"))


@pytest.mark.parametrize(
    ("name", "folder", "root", "said"),
    [
        (
            "app/bundle/model.onnx",
            "app",
            "app",
            r"app/bundle/model\.onnx is not in the bundle that .*source/model\.sig",
        ),
        (
            "app/bundle/engines/rtx.plan",
            "app",
            "app",
            r"engines/rtx\.plan is not in the bundle that .*source/model\.sig",
        ),
        ("app/source/bundle.json", "app", "app", r"source/model\.sig does not sign this bundle\.json"),
        (
            "models/m/1/model.plan",
            "models/m",
            "models",
            r"m/1/model\.plan is not in the bundle that .*source/model\.sig",
        ),
        ("models/m/source/bundle.json", "models/m", "models", r"source/model\.sig does not sign this bundle\.json"),
    ],
)
def test_a_file_that_was_altered_with_its_listing_is_refused(
    place: Path, name: str, folder: str, root: str, said: str
) -> None:
    (place / name).write_bytes((place / name).read_bytes() + b" ")
    with pytest.raises(BundleError, match=r"is not the file that deployment\.json describes: it was altered or cut"):
        verify_deployment(place / folder, trusted(place))
    reseal(place / folder / "deployment.json", place / root)
    with pytest.raises(SignatureError, match=said):
        verify_deployment(place / folder, trusted(place))


def test_another_contract_in_the_copy_is_refused(place: Path) -> None:
    copy = place / "app/bundle/bundle.json"
    data = json.loads(copy.read_text())
    data["contract"]["labels"].reverse()
    copy.write_text(json.dumps(data))
    reseal(place / "app/deployment.json", place / "app")
    with pytest.raises(SignatureError, match=r"bundle/bundle\.json is not in the bundle that"):
        verify_deployment(place / "app", trusted(place))


def test_a_file_that_the_listing_leaves_out_is_refused(place: Path) -> None:
    listing = place / "app/deployment.json"
    data = json.loads(listing.read_text())
    del data["files"]["bundle/model.onnx"]
    listing.write_text(json.dumps(data))
    with pytest.raises(SignatureError, match=r"bundle/model\.onnx is not in the bundle that"):
        verify_deployment(place / "app", trusted(place))
    (place / "models/m/1/more.onnx").write_bytes(b"x")
    for check in (verify_deployment, require_signed_model):
        with pytest.raises(SignatureError, match=r"m/1/more\.onnx is not in the bundle that"):
            check(place / "models/m", trusted(place))


def list_one_more(place: Path, name: str) -> None:
    """Let the deployment's listing name another file."""
    listing = place / "app/deployment.json"
    data = json.loads(listing.read_text())
    data["files"][name] = {"sha256": "0" * 64, "size": 1}
    listing.write_text(json.dumps(data))


@pytest.mark.parametrize("name", ["../b/model.onnx", "/etc/passwd", "a\\b"])
def test_a_listing_leads_nowhere_else(place: Path, name: str) -> None:
    list_one_more(place, name)
    with pytest.raises(BundleError, match=r"deployment\.json lists .*, which lies outside the deployment"):
        verify_deployment(place / "app", trusted(place))


@pytest.mark.parametrize("name", ["gone", "a\0b", "x" * 5000])
def test_a_file_that_is_missing(place: Path, name: str) -> None:
    list_one_more(place, name)
    with pytest.raises(BundleError, match=r"is missing \(or not a file\); deploy the bundle again"):
        verify_deployment(place / "app", trusted(place))


def test_a_bundle_that_changed_leaves_no_wrong_proof(place: Path, tmp_path: Path) -> None:
    seen = read_bundle(place / "b")
    (place / "b/bundle.json").write_text((place / "b/bundle.json").read_text() + " ")
    with pytest.raises(BundleError, match="b changed while it was copied"):
        keep_proof(seen, tmp_path)


def test_the_copy_for_cpp_is_to_be_signed_by_who_deploys_it(place: Path) -> None:
    """It has a graph that the signer of the bundle never saw."""
    copy, told = place / "app/bundle", Noted()
    deploy_cpp(place / "b", place / "app", force=True, progress=told)
    sign = f"vivit sign {copy} --key FILE"
    assert told.notes == [f"{copy} has graphs for ONNX Runtime that nobody signed; sign it with: {sign}"]
    sign_bundle(copy, place / "other.pem")
    assert verify_bundle(copy, place / "other.pub")
    assert verify_deployment(place / "app", trusted(place))
    deploy_cpp(place / "b", place / "app", force=True)
    assert not (copy / "model.sig").exists()


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory, bundles: Bundles) -> Path:
    """The demo in fp16, signed, as the model ``m`` of ``models``, which Triton's ONNX Runtime runs."""
    home = tmp_path_factory.mktemp("fused")
    folder = bundles.copy(home / "b", precision="fp16", attention="pattern")
    sign_bundle(folder, write_pair(home)[0])
    deploy_triton(folder, home / "models", TritonOptions(name="m"))
    return home


def test_a_graph_with_fused_attention_is_proven_by_making_it_again(fused: Path) -> None:
    proof = verify_deployment(fused / "models/m", trusted(fused))
    assert proof.derived == ("m/1/model.onnx",)
    assert {"m/source/model.onnx", "m/source/bundle.json"} <= set(proof.signed)
    assert (fused / "models/m/source/model.onnx").read_bytes() == (fused / "b/model.onnx").read_bytes()
    assert require_signed_model(fused / "models/m", trusted(fused)) == proof.signer


def change_a_weight(model: Path) -> None:
    graph = onnx.load(model)
    weight = next(tensor for tensor in graph.graph.initializer if len(tensor.raw_data) > 1000)
    weight.raw_data = bytes([weight.raw_data[0] ^ 1]) + weight.raw_data[1:]
    onnx.save(graph, model)


@pytest.mark.parametrize("damage", ["deployed", "both", "rubbish", "original", "gone", "other name"])
def test_a_graph_that_is_not_the_signed_one_is_refused(fused: Path, tmp_path: Path, damage: str) -> None:
    place = Path(shutil.copytree(fused, tmp_path / "place"))
    model, original = (place / "models/m" / name for name in ("1/model.onnx", "source/model.onnx"))
    if damage in ("deployed", "both"):
        change_a_weight(model)
    if damage in ("original", "both"):
        change_a_weight(original)
    if damage == "rubbish":
        model.write_bytes(b"\xff" * 100)
    if damage == "gone":
        original.rename(place / "kept")
    if damage == "other name":
        shutil.copy(model, model.with_name("more.onnx"))
    with pytest.raises(SignatureError, match=r"m/1/(model|more)\.onnx is not in the bundle that .* signs"):
        require_signed_model(place / "models/m", trusted(place))


def test_the_command_says_what_is_signed_and_what_was_made_from_it(cli: Cli, fused: Path) -> None:
    command = ["verify", str(fused / "models/m"), "--key", str(fused / "signer.pub"), "-q"]
    _, signed, derived, unsigned = cli(*command).stdout.splitlines()
    assert signed == "  signed     2 files: m/source/bundle.json, m/source/model.onnx"
    assert derived == "  derived    m/1/model.onnx: the signed graph with fused attention"
    assert unsigned.startswith("  unsigned   ")
    told = json.loads(cli(*command, "--json").stdout)
    assert told["derived"] == ["m/1/model.onnx"] and "m/config.pbtxt" in told["unsigned"]
