"""The commands that prepare a bundle for another program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

import click

from vivit_export.choices import ServerBackend
from vivit_export.cli.command import Command, Group
from vivit_export.cli.options import SamplingChoice, output_options, sampling_options, signature_options
from vivit_export.cli.show import show_deployment
from vivit_export.cli.values import BUNDLE, FILE, PATH

if TYPE_CHECKING:
    from vivit_export.progress import Silent


@click.group(cls=Group)
def deploy() -> None:
    """Prepare a bundle for another program to run."""


@deploy.command("cpp", cls=Command, examples=("vivit deploy cpp out/demo out/app",))
@click.argument("bundle", type=BUNDLE)
@click.argument("target", metavar="DIR", type=PATH)
@click.option("--force", is_flag=True, help="Replace an existing deployment.")
@signature_options
@output_options
def deploy_cpp(
    bundle: Path,
    target: Path,
    force: bool,
    require_signature: tuple[Path, ...],
    identity: str | None,
    as_json: bool,
    progress: Silent,
) -> None:
    """Write a CMake project to DIR: BUNDLE, a C++17 library that runs it, and an example."""
    from vivit_export.deploy.cpp.deploy import deploy_cpp

    signed_by = require_signature or None
    made = deploy_cpp(bundle, target, force=force, require_signature=signed_by, identity=identity, progress=progress)
    show_deployment(made, as_json)


@deploy.command(
    "triton",
    cls=Command,
    examples=(
        "vivit deploy triton out/demo out/triton",
        "vivit deploy triton out/demo out/triton --ensemble --instances 2",
    ),
)
@click.argument("bundle", type=BUNDLE)
@click.argument("target", metavar="REPO", type=PATH)
@click.option("--name", metavar="NAME", help="Name of the served model.  [default: the last part of the model's id]")
@click.option(
    "--backend", type=click.Choice(("auto", *get_args(ServerBackend))), default="auto", show_default=True,
    help="Triton back end. auto: TensorRT if BUNDLE has a TensorRT engine, else ONNX Runtime.",
)  # fmt: skip
@click.option("--instances", type=int, metavar="K", help="Copies of the engine on each GPU.  [default: 1]")
@click.option(
    "--max-delay-us", "delay_us", type=int, metavar="D", help="Longest wait to fill a batch.  [default: see above]"
)
@click.option("--labels", type=FILE, help="File with the label of each logit: one per line, or JSON.")
@click.option("--ensemble", is_flag=True, help="Also serve NAME-video, which accepts encoded videos.")
@sampling_options
@click.option("--force", is_flag=True, help="Replace an existing model of the same name.")
@signature_options
@output_options
def deploy_triton(
    bundle: Path,
    target: Path,
    name: str | None,
    backend: str,
    instances: int | None,
    delay_us: int | None,
    labels: Path | None,
    ensemble: bool,
    sampling: SamplingChoice,
    force: bool,
    require_signature: tuple[Path, ...],
    identity: str | None,
    as_json: bool,
    progress: Silent,
) -> None:
    """Add BUNDLE as a model to REPO, a model repository for Triton Inference Server.

    An existing repository keeps its other models; --force replaces only the model of the same name.
    Requests wait up to --max-delay-us to share a batch. By default this is a tenth of the time for one clip if
    vivit bench --save has measured that, else 1000 µs.
    """
    from vivit_export.bundle import read_bundle
    from vivit_export.deploy.triton.deploy import TritonOptions, deploy_triton
    from vivit_export.runtime.predict import adapt_contract

    own = read_bundle(bundle, verify=False).contract  # the files are verified when it is deployed
    contract = adapt_contract(own, labels=labels, **sampling._asdict())
    chosen = cast("ServerBackend | None", None if backend == "auto" else backend)
    options = TritonOptions(name, chosen, instances, delay_us, contract, ensemble)
    signed_by = require_signature or None
    made = deploy_triton(
        bundle, target, options, force=force, require_signature=signed_by, identity=identity, progress=progress
    )
    show_deployment(made, as_json)
