"""Write a CMake project that runs a bundle from C++: headers, an example, the bundle, and exact commands.

The library is in ``project/`` beside this module, ready to be copied; only the README is rendered.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from vivit_export.bundle import Bundle, read_bundle, write_manifest
from vivit_export.bundle.graph import require_sound_graph
from vivit_export.bundle.manifest import PreparedGraph
from vivit_export.bundle.signatures.trust import Files
from vivit_export.bundle.signatures.verify import require_signature as require_signer
from vivit_export.contract import Contract
from vivit_export.deploy.listing import (
    BUNDLE,
    README,
    Deployment,
    as_markdown,
    copy_bundle,
    deploying,
    read_deployment,
)
from vivit_export.deploy.proof import keep_proof
from vivit_export.files import as_path
from vivit_export.printing import code_span
from vivit_export.progress import Progress, Silent

if TYPE_CHECKING:
    from onnx import ModelProto

PROJECT = Path(__file__).with_name("project")
CPU_GRAPH, CUDA_GRAPH = "model.cpu.onnx", "model.cuda.onnx"


def deploy_cpp(
    bundle: Bundle | str | Path,
    target: str | Path,
    *,
    force: bool = False,
    require_signature: Files | None = None,
    identity: str | None = None,
    progress: Progress | None = None,
) -> Deployment:
    """Write the project to a folder.

    Args:
        bundle: a bundle or its folder; its files are verified before and after they are copied. The
            copy also has the graphs that ONNX Runtime runs on the CPU and on a GPU, and so is not signed as the bundle
            is: its signature is kept beside it as a proof (`vivit_export.deploy.proof`).
        target: the folder; afterward it is complete, or as it was.
        force: replace an existing deployment, but never one with other files in it, such as a build
            folder.
        require_signature: see `vivit_export.open_session`, as for ``identity``.
        identity: see `vivit_export.open_session`.
        progress: receives the stages, what an interrupted run left, and a note if the copy is to be signed again.

    Raises:
        BundleError: the bundle is damaged.
        SignatureError: it is not signed by whom it must be signed by.
        OutputError: the target exists or cannot be written.
    """
    progress, target = progress or Silent(), as_path(target, "target")
    with progress.stage("verify the bundle"):
        source = read_bundle(bundle.path if isinstance(bundle, Bundle) else bundle)
        require_signer(source, require_signature, identity)
        require_sound_graph(source)
    with deploying("cpp", source, target, force, progress.note) as work, progress.stage("write the project"):
        shutil.copytree(PROJECT, work, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        readme = work / README
        readme.write_text(_rendered(readme.read_text(encoding="utf-8"), source), encoding="utf-8")
        copy_bundle(source, work / BUNDLE)
        _add_graphs(source, work / BUNDLE)
        kept = keep_proof(source, work)
    if kept:
        progress.note(
            f"{target / BUNDLE} has graphs for ONNX Runtime that nobody signed; sign it with: vivit sign "
            f"{target / BUNDLE} --key FILE"
        )
    return read_deployment(target)


def _add_graphs(source: Bundle, folder: Path) -> None:
    """Add the graphs that the Python session makes when it opens the bundle; C++ reads them from files."""
    from vivit_export.runtime.session.onnxruntime import prepare_for_cpu, prepare_for_cuda

    def add(name: str, model: ModelProto, details: str) -> PreparedGraph:
        (folder / name).write_bytes(model.SerializeToString(deterministic=True))
        return PreparedGraph(name, details)

    cpu_graph = add(CPU_GRAPH, *prepare_for_cpu(source))
    model, fused = prepare_for_cuda(source)
    cuda_graph = add(CUDA_GRAPH, model, fused) if fused else None
    content = dataclasses.replace(source.manifest.content, cpu_graph=cpu_graph, cuda_graph=cuda_graph)
    write_manifest(folder, content)


def _rendered(template: str, bundle: Bundle) -> str:
    """Fill in the README's facts about this bundle."""
    values = {
        "MODEL": as_markdown(bundle.manifest.model.id),
        "INPUT": _input(bundle.contract),
        "ENGINES": _engines(bundle),
    }
    for name, value in values.items():
        template = template.replace(f"@{name}@", value)
    return template


def _input(contract: Contract) -> str:
    clip, tensor = contract.clip, contract.io.inputs[0]
    shape = ", ".join(map(str, tensor.shape))
    return f"{clip.num_frames} frames, sampling {clip.sampling}, as {tensor.dtype} `{tensor.name}` ({shape})"


def _engines(bundle: Bundle) -> str:
    lines = [
        f"- {code_span(name)}: {as_markdown(engine.compiler)}, {', '.join(f'sm_{sm}' for sm in engine.sms)}, "
        f"batches from {engine.profile.min} to {engine.profile.max}"
        for name, engine in sorted(bundle.engines.items())
    ]
    return "\n".join(lines) or "- none compiled; `model.onnx` runs on ONNX Runtime"
