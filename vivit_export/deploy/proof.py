"""The proof that a deployment came from a signed bundle: its manifest and signature, unchanged, in ``source/``.

The signature covers what the bundle lists: the graph, the weights and the engines. What ``vivit deploy`` writes itself
(configuration, labels, README, library) is listed in ``deployment.json`` with its hash, but nobody signed it. A graph
whose attention is fused for Triton is made again from the signed one, which is kept beside the proof, and compared.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vivit_export.bundle import MANIFEST, MODEL, SIGNATURE, Bundle
from vivit_export.bundle.reading import read_manifest, read_without_files
from vivit_export.bundle.signatures.trust import Trust
from vivit_export.bundle.signatures.verify import Signer, read_signature, verify_signature
from vivit_export.deploy.listing import BUNDLE, LISTING, Deployment, read_deployment
from vivit_export.errors import BundleError, SignatureError
from vivit_export.files import sha256_of

SOURCE = "source"
_PROOF = f"{SOURCE}/{SIGNATURE}"


@dataclass(frozen=True, slots=True)
class Proof:
    """What is proven about a deployment.

    Attributes:
        signer: who signed the bundle that it came from.
        kind: what the deployment is for.
        signed: files with bytes that the signer signed.
        derived: graphs that are a signed one with fused attention, and nothing else.
        unsigned: the others, which ``vivit deploy`` wrote.
    """

    signer: Signer
    kind: str
    signed: tuple[str, ...]
    derived: tuple[str, ...]
    unsigned: tuple[str, ...]


def keep_proof(bundle: Bundle, folder: Path, originals: Iterable[str] = ()) -> bool:
    """Copy manifest and signature of a bundle to ``folder/source``, if it has a signature.

    Args:
        bundle: a verified bundle.
        folder: of the deployment.
        originals: files of the bundle to copy too, because the deployment has what was made from them.

    Returns:
        Whether it has.

    Raises:
        BundleError: it changed since it was read.
        SignatureError: the signature cannot be read.
    """
    signature = read_signature(bundle.path)
    if signature is None:
        return False
    source = folder / SOURCE
    source.mkdir()
    shutil.copyfile(bundle.path / MANIFEST, source / MANIFEST)
    (source / SIGNATURE).write_bytes(signature)
    if sha256_of(source / MANIFEST) != bundle.manifest_sha256:
        raise BundleError(f"{bundle.path} changed while it was copied; run again on a bundle that nobody writes to")
    for name in originals:
        (source / name).write_bytes(bundle.read(name))
    return True


def verify_deployment(folder: Path, trust: Trust) -> Proof:
    """Verify every file of a deployment, and who signed the bundle that it came from.

    Args:
        folder: with the ``deployment.json``: that of the model, in a repository of Triton.
        trust: whom to trust.

    Raises:
        SignatureError: there is no proof, or it does not hold for the model that is deployed.
        BundleError: a file is missing or was altered since it was deployed.
    """
    made = read_deployment(folder)
    if made.kind not in ("cpp", "triton"):
        raise BundleError(f"{folder} is a deployment of the kind {made.kind!r}, which is not known here")
    root = folder.parent if made.kind == "triton" else folder
    _require_files(root, folder / LISTING, made)
    signer = require_signed_model(folder, trust) if made.kind == "triton" else _require_signed_copy(folder, made, trust)
    known = set(signer.files.values())
    hashes = {name: file.sha256 for name, file in sorted(made.files.items()) if not name.endswith(_PROOF)}
    signed = tuple(name for name, sha256 in hashes.items() if sha256 in known)
    others = [name for name in hashes if name not in signed]
    # All of a model's own files were found to be signed, or made from what is.
    derived = tuple(name for name in others if made.kind == "triton" and name.startswith(f"{folder.name}/1/"))
    return Proof(signer, made.kind, signed, derived, tuple(name for name in others if name not in derived))


def _require_signed_copy(folder: Path, made: Deployment, trust: Trust) -> Signer:
    """Refuse a deployment whose copy of the bundle, which has graphs for C++ besides, is not of the signed one."""
    signer = _verify_source(folder, trust)
    with _readable(folder):
        own, signed = (read_manifest(folder / name).content for name in (BUNDLE, SOURCE))
    one, other = (dataclasses.replace(content, cpu_graph=None, cuda_graph=None) for content in (own, signed))
    if one != other:
        _require_known([folder / BUNDLE / MANIFEST], folder)
    copies = {f"{BUNDLE}/{name}": sha256 for name, sha256 in signer.files.items() if name != MANIFEST}
    listed = {name: file.sha256 for name, file in made.files.items()}
    _require_known((folder / name for name, sha256 in copies.items() if listed.get(name) != sha256), folder)
    return signer


def require_signed_model(folder: Path, trust: Trust) -> Signer:
    """Refuse a model of a Triton repository whose files are not those of a bundle that somebody trusted signed.

    Args:
        folder: that of the model.
        trust: whom to trust.

    Raises:
        SignatureError: says why.
    """
    signer = _verify_source(folder, trust)
    known = set(signer.files.values())
    with _readable(folder):
        files = sorted(path for path in (folder / "1").rglob("*") if not path.is_dir())
        if not files:
            raise SignatureError(f"{folder} has no model in the folder 1; deploy the bundle again")
        unknown = [path for path in files if sha256_of(path) not in known]
        _require_known((path for path in unknown if not _is_fused_from(path, folder / SOURCE, known)), folder)
    return signer


def _is_fused_from(path: Path, source: Path, known: Collection[str]) -> bool:
    """Return whether a file is the graph of a signed bundle with fused attention, and nothing else."""
    original = source / MODEL
    if path.name != MODEL or not original.is_file():
        return False
    content = original.read_bytes()
    if hashlib.sha256(content).hexdigest() not in known:
        return False
    # Here, because most deployments have no such graph, and reading one needs onnx.
    from vivit_export.runtime.session.multi_head_attention import is_made_from

    return is_made_from(path.read_bytes(), content)


def _verify_source(folder: Path, trust: Trust) -> Signer:
    source = folder / SOURCE
    if not (folder / _PROOF).is_file():
        raise SignatureError(
            f"{folder} is not from a signed bundle: it has no {_PROOF}; sign the bundle and deploy it again"
        )
    with _readable(folder):
        found = read_without_files(source)
    return verify_signature(found, trust)


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise SignatureError(f"{e.filename or folder} cannot be read: {e.strerror}; deploy the bundle again") from e


def _require_known(unknown: Iterable[Path], folder: Path) -> None:
    for path in unknown:
        raise SignatureError(f"{path} is not in the bundle that {folder / _PROOF} signs; deploy it again")


def _require_files(root: Path, listing: Path, made: Deployment) -> None:
    for name, file in made.files.items():
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or "\\" in name:
            raise BundleError(f"{listing} lists {name!r}, which lies outside the deployment")
        path = root / name
        try:
            if path.stat().st_size != file.size or sha256_of(path) != file.sha256:
                raise BundleError(f"{path} is not the file that {LISTING} describes: it was altered or cut short")
        except (OSError, ValueError) as e:
            raise BundleError(f"{path} is missing (or not a file); deploy the bundle again") from e
