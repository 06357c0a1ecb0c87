"""How the commands present themselves: options in groups, examples, and every summary in full.

The text is plain; on a terminal, titles are bold, unless ``NO_COLOR`` is set (https://no-color.org).
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from vivit_export.cli.color import is_plain

GROUPS: dict[str, tuple[str, ...]] = {
    "Result": ("output", "force", "dry_run", "sbom", "report", "save", "embedding", "plan_onnx"),
    "Precision": (
        "precision", "fp32", "fp16", "bf16", "int8", "fp8", "fp8_attention", "keep_fp16", "keep_fp32", "fix",
    ),
    "Engines to build": (
        "targets", "sms", "min_batch", "opt_batch", "max_batch", "timing_cache", "allow_unfused",
    ),
    "Graph": ("input_mode", "frame_size", "outputs", "attention", "skip_rewrites", "opset"),
    "Engine to run": ("engine", "engines", "device", "cpu_precision", "no_self_test"),
    "Clips": (
        "sampling", "stride", "short", "views", "window", "hop", "clips", "num_clips", "num_frames", "video", "decode",
        "readers",
    ),
    "Live video": ("on_late", "timeout", "reconnect"),
    "Events": ("spans", "span_on", "span_off", "span_shortest", "span_bridge"),
    "Labels": ("labels", "classes", "top_k"),
    "Check": ("gate", "no_check", "per_block", "baseline", "compare"),
    "Reference model": ("against", "checkpoint"),
    "Calibration": (
        "data", "method", "calibration_clips", "calibration_seed", "calibration_cache", "smooth", "ranges",
        "sensitivity",
    ),
    "Hub": ("private", "branch", "pull_request", "message"),
    "Model card": ("license_id", "no_card"),
    "Checkpoint": ("revision", "allow_pickle"),
    "Timing": ("batches", "rounds", "warmup", "anyway", "in_flight", "seconds"),
    "Model repository": ("name", "backend", "instances", "delay_us", "ensemble"),
    "Many videos on Ray": ("ray", "gpu_share"),
    "Signature": ("key", "keys", "certificates", "password_file", "require_signature", "identity"),
    "Printing": ("form", "as_json", "quiet", "verbose", "log_file", "log_level"),
    "Help": ("config", "show_config", "help", "version"),
}  # fmt: skip
"""Title of each group, in the order of the help, and the parameters of all commands that belong in it."""


class Presented(click.Command):
    """A command whose help has groups and examples.

    Args:
        examples: commands to show, each as it would be typed.
    """

    def __init__(self, *args: object, examples: Sequence[str] = (), **attributes: object) -> None:
        super().__init__(*args, **attributes)  # type: ignore[arg-type]
        self.context_settings.setdefault("help_option_names", ["-h", "--help"])
        self.examples = tuple(examples)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the description and, right after it, the examples: they are what most people look for."""
        super().format_help_text(ctx, formatter)
        if self.examples:
            with formatter.section(_title("Examples")):
                for example in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{example}\n")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, group by group."""
        options = [p for p in self.get_params(ctx) if isinstance(p, click.Option)]
        # Versions of click name the option of the help itself differently.
        shown = {"help" if "--help" in p.opts else str(p.name): p.get_help_record(ctx) for p in options}
        left = {name: record for name, record in shown.items() if record is not None}
        for title, names in GROUPS.items():
            records = [left.pop(name) for name in list(left) if name in names]
            if records:
                with formatter.section(_title(title)):
                    formatter.write_dl(records)
        if left:
            with formatter.section(_title("Options")):
                formatter.write_dl(list(left.values()))


class PresentedGroup(Presented, click.Group):
    """A group of commands, in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the work."""
        return list(self.commands)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then each command with the first sentence of its help."""
        super().format_options(ctx, formatter)
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                rows.append((name, command.get_short_help_str(limit=1000)))
        with formatter.section(_title("Commands")):
            formatter.write_dl(rows)


def _title(text: str) -> str:
    return text if is_plain() else click.style(text, bold=True)
