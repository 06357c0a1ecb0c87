"""What a signature says: the hash of every file of a folder, as an in-toto statement of OpenSSF Model Signing 1.0."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vivit_export.bundle.names import MANIFEST, SIGNATURE
from vivit_export.bundle.signatures.envelope import AGAIN
from vivit_export.errors import InputError, SignatureError
from vivit_export.files import json_text
from vivit_export.records import from_json, parse_json, shown

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"

_HASH = "sha256"
_METHOD = "files"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_IGNORED = (".git", ".gitattributes", ".github", ".gitignore", SIGNATURE)


@dataclass(frozen=True, slots=True)
class _Serialization:
    method: str
    hash_type: str
    allow_symlinks: bool
    shard_size: object = None  # 3.0 in model-signing's own
    ignore_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Resource:
    name: str
    digest: str
    algorithm: str


@dataclass(frozen=True, slots=True)
class _Predicate:
    resources: tuple[object, ...]  # the format tells readers to ignore what they do not know in one
    serialization: _Serialization


@dataclass(frozen=True, slots=True)
class _Statement:
    _type: str
    subject: tuple[object, ...]
    predicateType: str  # noqa: N815 - as the format spells it
    predicate: _Predicate


def statement_bytes(name: str, digests: Mapping[str, str]) -> bytes:
    """Return the statement on a folder.

    Args:
        name: name of the folder, for people.
        digests: SHA-256 by name of the file, hexadecimal.
    """
    resources = [{"name": file, "algorithm": _HASH, "digest": digests[file]} for file in sorted(digests)]
    root = hashlib.sha256(b"".join(bytes.fromhex(digests[file]) for file in sorted(digests))).hexdigest()
    serialization = {
        "method": _METHOD,
        "hash_type": _HASH,
        "allow_symlinks": False,
        "ignore_paths": list(_IGNORED),
    }
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {_HASH: root}}],
        "predicateType": PREDICATE,
        "predicate": {"resources": resources, "serialization": serialization},
    }
    return json_text(statement).encode("utf-8")


def parse_statement(payload: bytes, path: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that a signature covers, by its name.

    Args:
        payload: the statement.
        path: the signature, for messages.

    Raises:
        SignatureError: it is not a statement on a folder whose files were hashed one by one with SHA-256.
    """
    try:
        return _parse(parse_json(payload.decode("utf-8")))
    except (ValueError, RecursionError) as e:
        raise SignatureError(f"{path}: its payload cannot be read as JSON ({e}); {AGAIN}") from e
    except InputError as e:
        raise SignatureError(f"{path}: {e}; {AGAIN}") from e


def _parse(data: Any) -> dict[str, str]:
    statement = from_json(_Statement, data, "payload")
    if statement._type != STATEMENT:
        raise InputError(f"payload._type must be {STATEMENT}, got {shown(statement._type)}")
    if statement.predicateType != PREDICATE:
        raise InputError(f"payload.predicateType must be {PREDICATE}, got {shown(statement.predicateType)}")
    if len(statement.subject) != 1:
        raise InputError(f"payload.subject must be one subject, got {len(statement.subject)}")
    serialization = statement.predicate.serialization
    if (serialization.method, serialization.hash_type) != (_METHOD, _HASH):
        raise InputError(
            f"it must have {_HASH} of {_METHOD}, got {shown(serialization.hash_type)} of {shown(serialization.method)}"
        )
    digests: dict[str, str] = {}
    for i, item in enumerate(statement.predicate.resources):
        resource = _resource(item, f"payload.predicate.resources[{i}]")
        if resource.name in digests:
            raise InputError(f"it names {shown(resource.name)} twice")
        digests[resource.name] = resource.digest
    return digests


def _resource(item: object, where: str) -> _Resource:
    known = {name: item[name] for name in _Resource.__slots__ if name in item} if isinstance(item, dict) else item
    found = from_json(_Resource, known, where)
    if found.algorithm != _HASH or not _DIGEST.fullmatch(found.digest):
        raise InputError(f"{where} must have a {_HASH} of 64 hexadecimal digits, got {shown(found.digest)}")
    return found


def require_statement_on(
    digests: Mapping[str, str], manifest_sha256: str, files: Mapping[str, str], path: Path
) -> None:
    """Refuse a statement on another state of a bundle, or on another bundle.

    Args:
        digests: what the signature covers.
        manifest_sha256: SHA-256 of the manifest that was read.
        files: SHA-256 of each file that this manifest lists.
        path: the signature, for messages.

    Raises:
        SignatureError: the manifest is not the one that was signed, or lists a file that was not.
    """
    if digests.get(MANIFEST) != manifest_sha256:
        raise SignatureError(
            f"{path} does not sign this {MANIFEST}: the bundle was changed after it was signed, or the signature is of "
            f"another one; {AGAIN}"
        )
    for name, sha256 in files.items():
        if digests.get(name) != sha256:
            raise SignatureError(f"{path} does not sign {name}, which {MANIFEST} lists; {AGAIN}")
