"""Signed bundles that were altered or signed by somebody else, and what is given in the place of keys."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from attacked import make, within_limits
from bundles import need
from console import console, tree

need("cryptography")
from forged_signatures import BY_CERTIFICATE, BY_KEY, HARMLESS, SOUND, Attack, set_scene  # noqa: E402
from made_chains import ROOT  # noqa: E402
from made_keys import certify, make_key, write_certificates, write_pair, write_private  # noqa: E402

from vivit_export.bundle import read_bundle  # noqa: E402
from vivit_export.bundle.signatures.sign import verify_bundle  # noqa: E402
from vivit_export.bundle.signatures.trust import read_trust  # noqa: E402
from vivit_export.bundle.signatures.verify import signature_text, verify_signature  # noqa: E402
from vivit_export.deploy.cpp.deploy import deploy_cpp  # noqa: E402
from vivit_export.deploy.triton.deploy import deploy_triton  # noqa: E402
from vivit_export.errors import VivitExportError  # noqa: E402
from vivit_export.runtime.select import open_session  # noqa: E402


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("attacked") / "bundle")


def contents(folder: Path) -> dict[str, bytes | None]:
    """Files of a folder that are not huge."""
    if any(path.is_file() and path.stat().st_size > 1 << 30 for path in folder.rglob("*")):
        return {}
    return tree(folder)


READERS: dict[str, Callable[[Path, Path, Path], object]] = {
    "open_session": lambda folder, key, _: open_session(folder, device="cpu", require_signature=key),
    "verify": lambda folder, key, _: verify_bundle(folder, key),
    "deploy_cpp": lambda folder, key, home: deploy_cpp(folder, home / "app", require_signature=key),
    "deploy_triton": lambda folder, key, home: deploy_triton(folder, home / "models", require_signature=key),
}


def refused(attack: Attack, bundle: Path, home: Path, reader: str) -> str:
    """Attack a bundle and read it; return what is said."""
    scene = set_scene(bundle, home)
    attack(scene)
    before = contents(home)
    with within_limits(), pytest.raises(VivitExportError) as error:
        READERS[reader](scene.bundle, scene.trusted, home)
    assert error.value.exit_code == 3
    assert len(str(error.value)) < 2000
    assert contents(home) == before
    return str(error.value)


@pytest.mark.parametrize("attack", [name for name in BY_KEY if name not in HARMLESS])
def test_a_forged_signature_opens_nothing(bundle: Path, tmp_path: Path, attack: str) -> None:
    said = refused(BY_KEY[attack], bundle, tmp_path, "open_session")
    assert "root:" not in said  # nothing of a file that a link leads to


@pytest.mark.parametrize("attack", BY_CERTIFICATE)
def test_a_certificate_that_does_not_count_opens_nothing(bundle: Path, tmp_path: Path, attack: str) -> None:
    refused(BY_CERTIFICATE[attack], bundle, tmp_path, "open_session")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("attack", ["a file that was altered", "another key with the signer's mark", "no signature"])
def test_every_reader_requires_what_it_is_told_to(bundle: Path, tmp_path: Path, attack: str, reader: str) -> None:
    refused(BY_KEY[attack], bundle, tmp_path, reader)


@pytest.mark.parametrize("attack", SOUND)
def test_the_same_way_of_signing_opens_if_it_is_right(bundle: Path, tmp_path: Path, attack: str) -> None:
    scene = set_scene(bundle, tmp_path)
    SOUND[attack](scene)
    assert verify_bundle(scene.bundle, scene.trusted)


@pytest.mark.parametrize("attack", HARMLESS)
def test_what_no_signature_covers_decides_nothing(bundle: Path, tmp_path: Path, attack: str) -> None:
    scene = set_scene(bundle, tmp_path)
    BY_KEY[attack](scene)
    assert verify_bundle(scene.bundle, scene.trusted)


def test_no_bit_of_a_signature_can_be_flipped(bundle: Path, tmp_path: Path) -> None:
    scene = set_scene(bundle, tmp_path)
    trust, found = read_trust(scene.trusted), read_bundle(scene.bundle)
    made = scene.made
    for field, place in (("payload", made["dsseEnvelope"]), ("sig", made["dsseEnvelope"]["signatures"][0])):
        good = place[field]
        data = base64.b64decode(good)
        for bit in range(0, 8 * len(data), 1 if field == "sig" else 97):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            place[field] = base64.b64encode(flipped).decode()
            scene.put(made)
            with pytest.raises(VivitExportError):
                verify_signature(found, trust)
        place[field] = good
    scene.put(made)
    assert verify_signature(found, trust)


@pytest.mark.parametrize("attack", BY_KEY)
def test_without_a_requirement_it_is_told_and_not_refused(bundle: Path, tmp_path: Path, attack: str) -> None:
    scene = set_scene(bundle, tmp_path)
    BY_KEY[attack](scene)
    if attack == "a signature that is listed":
        return  # that is not a bundle
    with within_limits():
        told = signature_text(read_bundle(scene.bundle))
    assert told is None or told.startswith(("does not hold: ", "by a key, not verified"))


def test_a_file_that_is_not_listed_is_never_read_and_is_told(bundle: Path, tmp_path: Path) -> None:
    scene = set_scene(bundle, tmp_path)
    (scene.bundle / "model.onnx.data").write_bytes(b"weights")
    with pytest.raises(VivitExportError, match=r"model\.onnx\.data is not listed in bundle\.json"):
        verify_bundle(scene.bundle, scene.trusted)
    open_session(scene.bundle, "onnxruntime-cpu", require_signature=scene.trusted).close()


# --- deployments -------------------------------------------------------------------------------


def pose(folder: Path, kind: str, source: Path) -> None:
    """Make a folder a deployment with a proof that is sound, of a bundle that is not in it."""
    (folder / "deployment.json").write_text(
        json.dumps({"format": "vivit-deployment/1", "kind": kind, "model": "demo", "files": {}})
    )
    shutil.copytree(source, folder / "source", ignore=lambda _, names: set(names) - {"bundle.json", "model.sig"})


@pytest.mark.parametrize("kind", ["cpp", "triton", "bundle", "\x1b[2J"])
@pytest.mark.parametrize("what", ["a bundle", "an empty folder", "a folder of models", "a folder with a bundle"])
def test_the_proof_of_another_bundle_vouches_for_nothing(bundle: Path, tmp_path: Path, kind: str, what: str) -> None:
    """Not even if a folder poses as a deployment, of which a signature covers less than of a bundle."""
    scene = set_scene(bundle, tmp_path)
    folder = tmp_path / "posing"
    shutil.copytree(bundle, folder) if what == "a bundle" else folder.mkdir()
    if what == "a folder of models":
        (folder / "1").mkdir()
        (folder / "1/model.onnx").write_bytes(b"other")
    if what == "a folder with a bundle":
        shutil.copytree(bundle, folder / "bundle")
        (folder / "bundle/golden.safetensors").write_bytes(b"other")
    pose(folder, kind, scene.bundle)
    before = tree(tmp_path)
    done = console("vivit", "verify", folder, "--key", scene.trusted, "-q", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, ""), done.stdout
    assert done.stderr.startswith("error: ") and "\x1b" not in done.stderr
    assert tree(tmp_path) == before


# --- keys and certificates ---------------------------------------------------------------------


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(1000))


def many(path: Path) -> None:
    """More than four megabytes of certificates."""
    write_certificates(path, *[ROOT] * 10_000)


KEYS: dict[str, Callable[[Path], object]] = {
    "a private key": lambda path: write_private(make_key(), path),
    "an encrypted private key": lambda path: write_private(make_key(), path, "word"),
    "garbage": garbage,
    "an empty file": Path.touch,
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "nothing": lambda path: path.symlink_to("nothing"),
    "a bundle's own signature": lambda path: path.symlink_to(path.parent / "bundle/model.sig"),
    "four megabytes": many,
    "a certificate for a key": lambda path: write_certificates(path, ROOT),
    "half a certificate": lambda path: path.write_text("-----BEGIN CERTIFICATE-----\nMIIB"),
    "a key of no length": lambda path: path.write_text("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"),
    "a thousand kinds": lambda path: path.write_text("-----BEGIN PUBLIC KEY-----\n" * 1000),
}


@pytest.mark.parametrize("kind", KEYS)
def test_what_is_no_key_opens_nothing(bundle: Path, tmp_path: Path, kind: str) -> None:
    scene = set_scene(bundle, tmp_path)
    KEYS[kind](tmp_path / "x")
    with within_limits(), pytest.raises(VivitExportError) as error:
        open_session(scene.bundle, device="cpu", require_signature=tmp_path / "x")
    assert error.value.exit_code == 3
    assert len(str(error.value)) < 2000


def test_names_in_certificates_are_shown_and_never_obeyed(bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    me = certify("\x1b[2J\x07me\n\u202e", ROOT)
    key = write_private(me.key, tmp_path / "me.pem")
    chain = write_certificates(tmp_path / "chain.pem", me)
    ca = write_certificates(tmp_path / "ca.pem", ROOT)
    commands: list[list[str | Path]] = [
        ["sign", folder, "--key", key, "--certificate", chain],
        ["verify", folder, "--certificate", ca],
        ["verify", folder, "--certificate", ca, "--identity", "me"],
        ["inspect", folder],
    ]
    for command in commands:
        done = console("vivit", *command, "-q", cwd=tmp_path)
        said = done.stdout + done.stderr
        assert "\\x1b[2J\\x07me\\n\\u202e" in said, said
        assert not set("\x1b\x07\u202e") & set(said)


def test_a_hostile_environment_is_no_traceback(bundle: Path, tmp_path: Path) -> None:
    scene = set_scene(bundle, tmp_path)
    write_pair(tmp_path)
    for value in ("", ":", "nowhere", "signer.pem", "signer.pub:", "/dev/zero", "x" * 5000, "bundle"):
        environment = {**os.environ, "VIVIT_REQUIRE_SIGNATURE": value}
        done = console("vivit", "check", scene.bundle, "-q", cwd=tmp_path, env=environment)
        assert done.returncode in (2, 3), value
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
