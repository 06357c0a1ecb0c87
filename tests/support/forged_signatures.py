"""What somebody without the signer's key may make of a signed bundle; nothing of it must open."""

from __future__ import annotations

import base64
import copy
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attacked import edit
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from made_chains import BAD, GOOD, ROOT
from made_keys import (
    HASHES,
    Key,
    Made,
    certify,
    digests_of,
    encode,
    envelope,
    make_key,
    sign_bytes,
    sign_statement,
    statement,
    write_certificates,
    write_public,
    write_signature,
)


@dataclass(frozen=True)
class Scene:
    """A signed bundle, and what the attacker has.

    Attributes:
        bundle: its folder, which the attack changes.
        key: the signer's key: what it signed elsewhere may be used, too.
        trusted: file with the key or the certificates that the victim trusts.
    """

    bundle: Path
    key: Key
    trusted: Path

    @property
    def signature(self) -> Path:
        return self.bundle / "model.sig"

    @property
    def made(self) -> dict[str, Any]:
        return dict(json.loads(self.signature.read_text()))

    @property
    def payload(self) -> bytes:
        return base64.b64decode(self.made["dsseEnvelope"]["payload"])

    def put(self, made: object) -> None:
        self.signature.write_text(json.dumps(made))

    def sign(self, **changes: Any) -> None:
        """Put a signature by the signer on another statement about this bundle."""
        self.put(sign_statement(self.key, statement(digests_of(self.bundle), **changes)))


Attack = Callable[[Scene], object]


def set_scene(bundle: Path, home: Path) -> Scene:
    """Sign a copy of a bundle with a key."""
    folder = Path(shutil.copytree(bundle, home / "bundle"))
    key = make_key()
    write_signature(folder, sign_statement(key, statement(digests_of(folder))))
    return Scene(folder, key, write_public(key, home / "key.pub"))


def change(*path: str | int, value: Any) -> Attack:
    """Change one value of the file."""

    def attack(scene: Scene) -> None:
        made: Any = copy.deepcopy(scene.made)
        place = made
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        scene.put(made)

    return attack


def alter_file(scene: Scene) -> None:
    """Another model, with all hashes right."""
    (scene.bundle / "golden.safetensors").write_bytes(b"other")
    edit(scene.bundle, lambda manifest: manifest["files"].pop("model.sig", None))


def alter_manifest(scene: Scene) -> None:
    path = scene.bundle / "bundle.json"
    path.write_text(path.read_text() + " ")


def alter_statement(scene: Scene) -> None:
    alter_file(scene)
    payload = json.dumps(statement(digests_of(scene.bundle))).encode()
    change("dsseEnvelope", "payload", value=base64.b64encode(payload).decode())(scene)


def by_another_key(scene: Scene) -> None:
    alter_file(scene)
    made = sign_statement(make_key(), statement(digests_of(scene.bundle)))
    made["verificationMaterial"]["publicKey"] = scene.made["verificationMaterial"]["publicKey"]
    scene.put(made)


def of_another_bundle(scene: Scene) -> None:
    files = {**digests_of(scene.bundle), "bundle.json": "0" * 64}
    scene.put(sign_statement(scene.key, statement(files)))


def as_another_type(scene: Scene) -> None:
    """The signer signed these bytes once, as something else."""
    kind = "application/json"
    scene.put(envelope(scene.payload, sign_bytes(scene.key, encode(scene.payload, kind))))


def with_its_own_type(scene: Scene) -> None:
    kind = "application/json"
    scene.put(envelope(scene.payload, sign_bytes(scene.key, encode(scene.payload, kind)), kind=kind))


def without_encoding(scene: Scene) -> None:
    scene.put(envelope(scene.payload, sign_bytes(scene.key, scene.payload)))


def as_version_0_2(scene: Scene) -> None:
    """As a bug of model-signing 0.2 encoded it, which model-signing still accepts."""
    encoded = f"DSSEV1 28 application/vnd.in-toto+json {len(scene.payload)} {scene.payload!r}"
    scene.put(envelope(scene.payload, sign_bytes(scene.key, encoded.encode())))


def with_a_weaker_hash(scene: Scene) -> None:
    scene.put(envelope(scene.payload, sign_bytes(scene.key, encode(scene.payload), hashes.SHA1())))


def of_provenance(scene: Scene) -> None:
    scene.sign(predicateType="https://slsa.dev/provenance/v1")


def names(**renamed: str) -> Attack:
    def attack(scene: Scene) -> None:
        files = {renamed.get(name.replace(".", "_"), name): sha256 for name, sha256 in digests_of(scene.bundle).items()}
        scene.put(sign_statement(scene.key, statement(files)))

    return attack


def twice(scene: Scene) -> None:
    """Two hashes of the manifest, of which readers may take either."""
    made = statement(digests_of(scene.bundle))
    made["predicate"]["resources"].append({"name": "bundle.json", "algorithm": "sha256", "digest": "0" * 64})
    scene.put(sign_statement(scene.key, made))


def keys_twice(scene: Scene) -> None:
    text = scene.signature.read_text()
    scene.signature.write_text(text.replace('{"mediaType"', '{"dsseEnvelope": {}, "mediaType"', 1))


def keys_twice_inside(scene: Scene) -> None:
    payload = json.dumps(statement(digests_of(scene.bundle))).replace('{"_type"', '{"subject": [], "_type"', 1).encode()
    scene.put(envelope(payload, sign_bytes(scene.key, encode(payload))))


def two_signatures(scene: Scene) -> None:
    made = scene.made
    forged = sign_statement(make_key(), statement(digests_of(scene.bundle)))
    made["dsseEnvelope"]["signatures"] += forged["dsseEnvelope"]["signatures"]
    scene.put(made)


def listed(scene: Scene) -> None:
    """A manifest that lists the signature, and so seems to vouch for it."""
    edit(scene.bundle, lambda manifest: None)


def replaced(make: Callable[[Path], object]) -> Attack:
    def attack(scene: Scene) -> None:
        scene.signature.unlink()
        make(scene.signature)

    return attack


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


TEXTS = {
    "no signature": None,
    "an empty file": "",
    "a list": "[]",
    "100,000 levels": "[" * 100_000,
    "levels in its material": '{"mediaType": ' + "[" * 65 + "]" * 65 + "}",
    "a number beyond all": '{"mediaType": 1e999}',
    "half a character": '{"mediaType": "\\ud800"}',
    "the text of a key": "-----BEGIN PUBLIC KEY-----",
}


def text(content: str | None) -> Attack:
    def attack(scene: Scene) -> None:
        scene.signature.unlink()
        if content is not None:
            scene.signature.write_text(content)

    return attack


SIG = ("dsseEnvelope", "signatures", 0, "sig")
BY_KEY: dict[str, Attack] = {
    "a manifest that was altered": alter_manifest,
    "a file that was altered": alter_file,
    "a statement that was altered": alter_statement,
    "another key with the signer's mark": by_another_key,
    "a signature of another bundle": of_another_bundle,
    "the same bytes signed as another type": as_another_type,
    "another type": with_its_own_type,
    "bytes signed as they are": without_encoding,
    "the encoding of version 0.2": as_version_0_2,
    "a weaker hash": with_a_weaker_hash,
    "another predicate": of_provenance,
    "another kind of statement": lambda scene: scene.sign(_type="https://in-toto.io/Statement/v0.1"),
    "a manifest by another name": names(bundle_json="./bundle.json"),
    "a manifest in capitals": names(bundle_json="Bundle.json"),
    "a model by another name": names(model_onnx="model.onnx "),
    "two hashes of the manifest": twice,
    "a key of the file twice": keys_twice,
    "a key of the statement twice": keys_twice_inside,
    "a second signature": two_signatures,
    "no signatures": change("dsseEnvelope", "signatures", value=[]),
    "an empty signature": change(*SIG, value=""),
    "zeros as a signature": change(*SIG, value=base64.b64encode(bytes(70)).decode()),
    "r and s of zero": change(*SIG, value="MAYCAQACAQA="),
    "a signature in another alphabet": change(*SIG, value="-_-_"),
    "a signature that is a number": change(*SIG, value=0),
    "an algorithm of the attacker's choice": change(
        "verificationMaterial", "publicKey", value={"rawBytes": "AA==", "keyDetails": "NONE"}
    ),
    "no material": change("verificationMaterial", value={}),
    "a certificate of Sigstore": change("verificationMaterial", value={"certificate": {"rawBytes": "AA=="}}),
    "an unknown field": change("trust", value=True),
    "a signature that is listed": listed,
    "a pipe": replaced(os.mkfifo),
    "a folder": replaced(Path.mkdir),
    "a link to a device": replaced(lambda path: path.symlink_to("/dev/zero")),
    "a link to itself": replaced(lambda path: path.symlink_to(path.name)),
    "a link to nothing": replaced(lambda path: path.symlink_to("nothing")),
    "a link to a secret": replaced(lambda path: path.symlink_to("/etc/passwd")),
    "a terabyte": replaced(huge),
    **{name: text(content) for name, content in TEXTS.items()},
}
# Its signature stays what it was: only what nobody verifies is changed.
HARMLESS = {"an algorithm of the attacker's choice"}


def certified(scene: Scene, chain: list[Made], trusted: list[Made]) -> None:
    """Sign the bundle with the first certificate of a chain, for a victim who trusts others."""
    key = chain[0].key
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in HASHES:
        key = make_key()  # the certificate's own makes no such signature
    payload = json.dumps(statement(digests_of(scene.bundle))).encode()
    signature = sign_bytes(key, encode(payload))
    scene.put(envelope(payload, signature, [one.der for one in chain]))
    write_certificates(scene.trusted, *trusted)


def with_chain(make: Callable[[], tuple[list[Made], list[Made]]]) -> Attack:
    return lambda scene: certified(scene, *make())


def key_of_another(scene: Scene) -> None:
    """The attacker knows the signer's certificate, but not its key."""
    certified(scene, [Made(certify("me", ROOT).found, make_key())], [ROOT])


BY_CERTIFICATE: dict[str, Attack] = {
    "the key of another": key_of_another,
    "a bare key": lambda scene: write_certificates(scene.trusted, certify("me", key=scene.key)),
    **{name: with_chain(make) for name, (make, _) in BAD.items()},
}
SOUND = {name: with_chain(make) for name, make in GOOD.items()}
