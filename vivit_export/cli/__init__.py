"""The command line: parse, call, report. Heavy imports live inside the commands."""

from __future__ import annotations

import click

from vivit_export import __version__
from vivit_export.cli.bench import bench
from vivit_export.cli.card import card
from vivit_export.cli.check import check
from vivit_export.cli.command import Group
from vivit_export.cli.convert import convert
from vivit_export.cli.deploy import deploy
from vivit_export.cli.doctor import doctor
from vivit_export.cli.export import build, calibrate, vivit_export
from vivit_export.cli.hub import pull, push
from vivit_export.cli.sign import sign, verify
from vivit_export.cli.use import inspect, predict

__all__ = ["vivit", "vivit_export"]


@click.group(cls=Group)
@click.version_option(__version__, prog_name="vivit")
def vivit() -> None:
    """Export, build, check and run ViViT bundles."""


vivit.add_command(vivit_export, "export")
for _command in (
    calibrate,
    build,
    inspect,
    predict,
    check,
    bench,
    sign,
    verify,
    card,
    push,
    pull,
    deploy,
    convert,
    doctor,
):
    vivit.add_command(_command)
