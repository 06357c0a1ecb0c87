"""A session of a bundle that must be signed: what was verified is what runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from bundles import Bundles, need
from console import tree
from noted import Noted

need("cryptography")
from made_chains import ROOT, me  # noqa: E402
from made_keys import write_certificates, write_pair, write_private  # noqa: E402

from vivit_export.bundle import read_bundle  # noqa: E402
from vivit_export.bundle.signatures.sign import sign_bundle  # noqa: E402
from vivit_export.errors import BundleError, SignatureError, UsageError  # noqa: E402
from vivit_export.progress import Silent  # noqa: E402
from vivit_export.runtime.predict import read_source  # noqa: E402
from vivit_export.runtime.select import open_session  # noqa: E402

pytestmark = pytest.mark.needs_onnxruntime
CPU = "onnxruntime-cpu"


@pytest.fixture
def place(bundles: Bundles, tmp_path: Path) -> Path:
    """A folder with a bundle ``b`` that is signed, and the keys of its signer and of another."""
    bundles.copy(tmp_path / "b")
    write_pair(tmp_path, "other")
    sign_bundle(tmp_path / "b", write_pair(tmp_path)[0])
    return tmp_path


def test_it_opens_if_one_of_those_who_are_named_signed_it(place: Path) -> None:
    for files in (place / "signer.pub", str(place / "signer.pub"), [place / "other.pub", place / "signer.pub"]):
        open_session(place / "b", CPU, require_signature=files).close()
    with pytest.raises(SignatureError, match=r"was not made with the key of .*other\.pub, or was altered since"):
        open_session(place / "b", CPU, require_signature=place / "other.pub")


def test_a_name_may_be_required(place: Path) -> None:
    signer = me()
    key = write_private(signer.key, place / "me.pem")
    own, ca = write_certificates(place / "own.pem", signer), write_certificates(place / "ca.pem", ROOT)
    sign_bundle(place / "b", key, certificates=own, force=True)
    open_session(place / "b", CPU, require_signature=ca, identity="me").close()
    with pytest.raises(SignatureError, match="was made by me, not by you"):
        open_session(place / "b", CPU, require_signature=ca, identity="you")
    with pytest.raises(UsageError, match="identity is for require_signature; give both"):
        open_session(place / "b", CPU, identity="me")


def test_an_unsigned_bundle_opens_unless_a_signature_is_required(place: Path) -> None:
    (place / "b/model.sig").unlink()
    open_session(place / "b", CPU).close()
    with pytest.raises(SignatureError, match=r"b is not signed: it has no model\.sig"):
        open_session(place / "b", CPU, require_signature=place / "signer.pub")


def test_the_environment_requires_it_of_every_session(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIVIT_REQUIRE_SIGNATURE", str(place / "signer.pub"))
    open_session(place / "b", CPU).close()
    monkeypatch.setenv("VIVIT_REQUIRE_SIGNATURE", str(place / "other.pub"))
    with pytest.raises(SignatureError, match=r"was not made with the key of .*other\.pub"):
        open_session(place / "b", CPU, require_signature=place / "signer.pub")


def test_what_was_read_before_it_was_replaced_is_what_is_verified_and_runs(bundles: Bundles, place: Path) -> None:
    """Another bundle in the same place, and then its files alone: neither runs as if it were the signed one."""
    seen = read_bundle(place / "b")
    shutil.copyfile(bundles.demo(precision="fp16").model, place / "b/model.onnx")
    with pytest.raises(BundleError, match=r"model\.onnx is not the file that bundle\.json describes"):
        open_session(seen, CPU, require_signature=place / "signer.pub")
    shutil.copyfile(bundles.demo(precision="fp16").path / "bundle.json", place / "b/bundle.json")
    with pytest.raises(BundleError, match=r"model\.onnx is not the file that bundle\.json describes"):
        open_session(seen, CPU, require_signature=place / "signer.pub")
    for name, content in tree(bundles.demo(precision="fp16").path).items():
        if content is not None:
            (place / "b" / name).write_bytes(content)
    with pytest.raises(SignatureError, match=r"does not sign this bundle\.json"):
        open_session(read_bundle(place / "b"), CPU, require_signature=place / "signer.pub")


def test_a_served_model_is_for_its_server_to_verify(place: Path) -> None:
    address = "triton://localhost:1/demo"
    with pytest.raises(UsageError, match=f"require_signature is for a bundle on this machine, but {address} runs on a"):
        open_session(address, require_signature=place / "signer.pub")
    with pytest.raises(UsageError, match=f"require_signature is for a bundle on this machine; drop it for {address}"):
        read_source(address, Silent(), place / "signer.pub")
    with pytest.raises(SignatureError, match=r"was not made with the key of .*other\.pub"):
        open_session(place / "b", address, require_signature=place / "other.pub")


def test_details_tell_who_signed(place: Path) -> None:
    told = Noted()
    read_source(place / "b", told)
    read_source(place / "b", told, place / "signer.pub")
    (place / "b/model.sig").unlink()
    read_source(place / "b", told)
    assert told.details[0].startswith("signature: by a key, not verified; verify it with: vivit verify ")
    assert told.details[1].startswith("signature: by key ") and told.details[1].endswith("…, verified")
    assert told.details[2] == "signature: none"
