"""Who signed a bundle is verified in C++ as in Python: the same signers, the same sentences."""

from __future__ import annotations

import os
import shutil
import subprocess
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from attacked import make
from bundles import Bundles, need
from cpp_project import Cpp

need("cryptography")
from cryptography import x509  # noqa: E402
from forged_signatures import BY_CERTIFICATE, BY_KEY, SOUND, Attack, set_scene  # noqa: E402
from made_chains import ROOT, me  # noqa: E402
from made_keys import (  # noqa: E402
    digests_of,
    make_key,
    sign_statement,
    statement,
    write_certificates,
    write_pair,
    write_private,
    write_public,
    write_signature,
)

from vivit_export.bundle import read_bundle  # noqa: E402
from vivit_export.bundle.signatures.sign import sign_bundle  # noqa: E402
from vivit_export.bundle.signatures.verify import require_signature  # noqa: E402
from vivit_export.errors import VivitExportError  # noqa: E402

pytestmark = pytest.mark.needs_onnxruntime

# Each reader of JSON says in its own words what is not JSON.
OWN_WORDS = {"a link to a secret", "an empty file", "a number beyond all", "half a character", "the text of a key"}


def in_python(folder: Path, files: list[Path], identity: str | None = None) -> dict[str, Any]:
    try:
        signer = require_signature(read_bundle(folder), files, identity)
    except VivitExportError as e:
        return {"error": str(e), "code": e.exit_code}
    assert signer is not None
    return {"key": signer.key, "names": list(signer.names), "title": signer.title}


def request(folder: Path, files: list[Path], identity: str | None = None) -> dict[str, Any]:
    return {"do": "signer", "bundle": str(folder), "files": list(map(str, files)), "identity": identity or ""}


def compare(cpp: Cpp, cases: dict[str, tuple[Path, list[Path], str | None]]) -> dict[str, dict[str, Any]]:
    """Ask both, and return the answers, which are the same but for what is not JSON."""
    answers = dict(zip(cases, cpp.ask([request(*case) for case in cases.values()]), strict=True))
    for name, answer in answers.items():
        expected = in_python(*cases[name])
        if name in OWN_WORDS:
            said = f"{cases[name][0] / 'model.sig'} cannot be read as JSON ("
            assert answer["error"].startswith(said) and expected["error"].startswith(said)
            assert answer["code"] == expected["code"]
        else:
            assert answer == expected, name
    return answers


def test_forged_signatures_are_refused_with_pythons_own_sentence(cpp: Cpp, tmp_path: Path) -> None:
    bundle = make(tmp_path / "bundle")
    attacks: dict[str, Attack] = {**BY_KEY, **BY_CERTIFICATE, **{f"sound: {name}": a for name, a in SOUND.items()}}
    cases: dict[str, tuple[Path, list[Path], str | None]] = {}
    for i, (name, attack) in enumerate(attacks.items()):
        (tmp_path / str(i)).mkdir()
        scene = set_scene(bundle, tmp_path / str(i))
        attack(scene)
        cases[name] = (scene.bundle, [scene.trusted], None)
    answers = compare(cpp, cases)
    opened = {name for name, answer in answers.items() if "error" not in answer}
    assert opened == {"an algorithm of the attacker's choice", *(f"sound: {name}" for name in SOUND)}


def test_names_and_several_keys_as_in_python(cpp: Cpp, tmp_path: Path) -> None:
    bundle = make(tmp_path / "bundle")
    names = [x509.RFC822Name("me@example.com"), x509.DNSName("a.example"), x509.IPAddress(ip_address(1))]
    signers = {"named": me(names=names), "plain": me(), "odd": me(subject="ñ\x1b[2J\n")}
    ca, keys = write_certificates(tmp_path / "ca.pem", ROOT), [write_pair(tmp_path, str(i))[1] for i in range(2)]
    cases: dict[str, tuple[Path, list[Path], str | None]] = {}
    for name, signer in signers.items():
        folder = Path(shutil.copytree(bundle, tmp_path / name))
        write_signature(folder, sign_statement(signer.key, statement(digests_of(folder)), [signer]))
        own = write_public(signer.key, tmp_path / f"{name}.pub")
        for identity in (None, "me@example.com", "a.example", "me", "nobody"):
            cases[f"{name} as {identity}"] = (folder, [ca], identity)
        cases[f"{name} by its key"] = (folder, [*keys, own], None)
        cases[f"{name} by its key or an authority"] = (folder, [keys[0], ca], None)
        cases[f"{name} by others"] = (folder, keys, None)
        cases[f"{name} as a key"] = (folder, [own], "me")
    answers = compare(cpp, cases)
    assert sum("error" not in answer for answer in answers.values()) == 3 + 2 + 1 + 3 + 3


def test_what_is_no_key_is_refused_as_in_python(cpp: Cpp, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    scene = set_scene(make(tmp_path / "bundle"), tmp_path / "home")
    os.mkfifo(tmp_path / "pipe")
    write_private(make_key(), tmp_path / "private.pem")
    write_private(make_key(), tmp_path / "secret.pem", "word")
    (tmp_path / "empty").touch()
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "garbage").write_bytes(bytes(range(256)))
    (tmp_path / "begun.pem").write_text("-----BEGIN PUBLIC KEY-----\n")
    (tmp_path / "half.pem").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    (tmp_path / "both.pem").write_bytes(scene.trusted.read_bytes() * 2)
    (tmp_path / "windows.pem").write_bytes(scene.trusted.read_bytes().replace(b"\n", b"\r\n"))
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 33)
    kinds = ("pipe", "private.pem", "secret.pem", "empty", "device", "garbage", "begun.pem", "half.pem", "both.pem")
    files = [tmp_path / name for name in (*kinds, "windows.pem", "large", "nowhere", ".")]
    cases: dict[str, tuple[Path, list[Path], str | None]]
    cases = {path.name: (scene.bundle, [path], None) for path in files}
    answers = compare(cpp, cases | {"none": (scene.bundle, [], None)})
    assert {name for name, answer in answers.items() if "error" not in answer} == {"windows.pem"}


def test_a_session_requires_what_it_is_told_to_and_runs_what_was_signed(
    cpp: Cpp, bundles: Bundles, tmp_path: Path
) -> None:
    folder = bundles.copy(tmp_path / "bundle")
    private, public = write_pair(tmp_path)
    other = write_pair(tmp_path, "other")[1]
    ask: dict[str, Any] = {"do": "open", "bundle": str(folder), "engine": "onnxruntime-cpu"}
    said = f"{folder} is not signed: it has no model.sig; sign it with: vivit sign {folder} --key FILE"
    assert cpp.ask([{**ask, "files": [str(public)]}]) == [{"error": said, "code": 3}]
    sign_bundle(folder, private)
    first, second, third, last = cpp.ask(
        [
            {**ask, "files": [str(public)]},
            ask,
            {**ask, "files": [str(other)]},
            {**ask, "files": [str(public)], "flip": "model.onnx"},
        ]
    )
    assert first == second == {"engine": "onnxruntime-cpu"}
    assert third["error"] == f"{folder / 'model.sig'} was not made with the key of {other}, or was altered since"
    assert last["error"].endswith("model.onnx is not the file that bundle.json describes: it was altered or cut short")


def test_the_environment_holds_in_any_case(cpp: Cpp, bundles: Bundles, tmp_path: Path) -> None:
    folder = bundles.copy(tmp_path / "bundle")
    private, public = write_pair(tmp_path)
    other = write_pair(tmp_path, "other")[1]
    ca = write_certificates(tmp_path / "ca.pem", ROOT)
    sign_bundle(folder, private)

    def vivit_run(variables: dict[str, str], *options: str | Path) -> tuple[int, str]:
        command = [cpp.vivit_run, folder, cpp.video, "--repeat", "1", *options]
        environment = {**os.environ, **variables}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
        return done.returncode, done.stderr

    files, identity = "VIVIT_REQUIRE_SIGNATURE", "VIVIT_REQUIRE_IDENTITY"
    not_made = f"error: {folder / 'model.sig'} was not made with the key of {other}, or was altered since\n"
    assert vivit_run({files: str(public)}) == (0, "")
    assert vivit_run({files: f"{other}:{public}"}, "--require-signature", public) == (0, "")
    assert vivit_run({files: str(other)}) == (3, not_made)
    assert vivit_run({files: str(other)}, "--require-signature", public) == (3, not_made)
    assert vivit_run({files: str(public)}, "--require-signature", other) == (3, not_made)
    empty = f"error: the environment variable {files} is empty; give it a value, or unset it\n"
    assert vivit_run({files: ""}) == (2, empty)
    assert vivit_run({identity: "me"}) == (2, f"error: the environment variable {identity} is for {files}; set both\n")
    code, said = vivit_run({files: str(ca), identity: "me"})
    assert code == 3 and "was made with a key, but" in said
    assert vivit_run({files: f"{public}:"})[0] == 3
