"""Measure everything that needs a GPU in one command: the speed of ViViT against PyTorch and against the limit.

    python tools/make_checkpoint.py /tmp/vivit-b
    python benchmarks/gpu.py /tmp/vivit-b
    python benchmarks/gpu.py /tmp/vivit-b --resume      # resumes an interrupted run

The rate of matrix products; PyTorch eager, SDPA and compiled, each in fp32 (without TF32), fp16 and bf16, and our
bundles in every engine that runs there, in turns, batch by batch in processes of their own; our fp16 against SDPA in
the other families; the drift of the demo in every precision and engine; training as the Transformers documentation
times it; and the kernels of the fastest. Writes ``results/gpu.json`` after each part; what could not be measured is
listed there with its reason, and until the end the file says that it is partial.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from common import RESULTS, environment, write_results
from gpu_bundles import FLAVOURS, compile_engines, contenders, engines_on, make_bundle, make_family, pytorch
from plan import FAMILIES
from sdpa import DOCUMENTED, KINDS, train_in_child

from vivit_export.demo import checkpoint_path
from vivit_export.errors import VivitExportError
from vivit_export.precision import Precision
from vivit_export.progress import Console
from vivit_export.records import to_json
from vivit_export.runtime.bench.run import take_turns

WORKER = str(Path(__file__).with_name("gpu_worker.py"))
AGAINST = ",".join(kind + half for half in ("", "-fp16", "-bf16") for kind in ("sdpa", "eager", "compile"))
OURS = (Precision.FP16, Precision.BF16, Precision.FP32, Precision.INT8)
FAMILY_BATCHES = {"cuda": 8, "cpu": 1}
_CUT = ", interrupted"


@click.command()
@click.argument("checkpoint")
@click.option("--device", type=click.Choice(("cuda", "cpu")), default="cuda", show_default=True)
@click.option("--batch", "batches", default="1,2,4,8,16,32", show_default=True)
@click.option("--rounds", default=20, show_default=True, help="Timed calls of each.")
@click.option("--warmup", default=1, show_default=True)
@click.option("--steps", default=100, show_default=True, help="Timed training steps; 0: no training.")
@click.option("--against", default=AGAINST, show_default=True, help="PyTorch's contenders.")
@click.option(
    "--drift", "precisions", default=",".join(Precision), show_default=True, help="Precisions of the demo to check."
)
@click.option("--ours", default=",".join(OURS), show_default=True, help="Precisions of our bundles.")
@click.option("--family", "families", multiple=True, type=click.Choice(list(FAMILIES)), help="Only this one.")
@click.option("--families/--no-families", "others", default=True, show_default=True, help="Time the other families.")
@click.option("--bundles", type=click.Path(path_type=Path), help="Folder of our bundles; made where there are none.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, help="Folder to write to.")
@click.option("--resume", is_flag=True, help="Keep what was measured, and measure the rest.")
def main(
    checkpoint: str,
    device: str,
    batches: str,
    precisions: str,
    ours: str,
    families: tuple[str, ...],
    others: bool,
    bundles: Path | None,
    results: Path,
    resume: bool,
    **given: Any,
) -> None:
    """Measure on CHECKPOINT, a ViViT-B/16x2 folder (or ``demo``)."""
    if device == "cuda" and not torch.cuda.is_available():
        raise click.UsageError(f"PyTorch {torch.__version__} sees no GPU here; --device cpu tries the script out")
    folder = checkpoint_path() if checkpoint == "demo" else Path(checkpoint)
    if not folder.is_dir():
        raise click.UsageError(
            f"{folder} is not a checkpoint folder; make one with: python tools/make_checkpoint.py {folder}"
        )
    # The driver's name for it, else PyTorch's, which would take memory of the GPU to ask.
    where = environment()
    where["gpu"] = where["gpu"] or (torch.cuda.get_device_name() if device == "cuda" else "")
    book = Book(
        results, where, {"checkpoint": Path(checkpoint).name, "device": device, "rounds": given["rounds"]}, resume
    )
    sizes = [int(batch) for batch in batches.split(",") if batch]
    with book.open(), tempfile.TemporaryDirectory() as work:
        book.part("model", partial(ask_child, ["facts", str(folder)]))
        book.part("gemm_gflops", partial(ask_child, ["gemm", str(folder), device, str(max(sizes, default=1))]))
        commands = pytorch(folder, given["against"].split(","), device)
        made = bundles or Path(work)
        for precision in ours.split(",") if ours else ():
            commands |= our_commands(book, folder, made / precision, (precision, f"ours {precision}"), device)
        for size in sizes:
            book.part(f"batch {size}", partial(compete, book, f"batch {size}", commands, size, given))
        for title in (families or FAMILIES) if others else ():
            book.part(family_part(title, device), partial(compete_family, book, title, made, given, device))
        for precision in precisions.split(",") if precisions else ():
            book.part(
                f"drift {precision}", partial(check_demo, book, Path(work, f"demo-{precision}"), precision, device)
            )
        for kind in KINDS if given["steps"] else ():
            book.part(f"training {kind}", partial(train, folder, kind, given["steps"], device))
        for whose in ("pytorch", *(("ours",) if device == "cuda" else ())):  # the profiler sees kernels of GPUs alone
            book.part(f"kernels {whose}", partial(split_fastest, book, commands, whose, device))
    print(f"wrote {results / 'gpu.json'}")


class Book:
    """The results, on disk after each part.

    Args:
        folder: to write ``gpu.json`` to.
        where: machine, versions and command.
        setting: what all parts have in common.
        resume: keep the parts that an earlier run measured, on the same GPU in the same setting.
    """

    def __init__(self, folder: Path, where: dict[str, Any], setting: dict[str, Any], resume: bool) -> None:
        self._folder = folder
        path = folder / "gpu.json"
        self.content: dict[str, Any] = {
            **setting,
            "environment": where,
            "documented": DOCUMENTED,
            "partial": True,
            "not_measured": {},
            "parts": {},
        }
        if resume and path.exists():
            before = json.loads(path.read_text())
            for name, now in {**setting, "environment": where}.items():
                then = before[name]
                if name == "environment":
                    then, now = ({key: e[key] for key in ("gpu", "cpu", "packages")} for e in (then, now))
                if then != now:
                    raise click.UsageError(f"{path} was measured with {name} {then}, now it is {now}; drop --resume")
            self.content["parts"] = {name: part for name, part in before["parts"].items() if _CUT not in name}

    @property
    def parts(self) -> dict[str, Any]:
        """What was measured, by part."""
        parts: dict[str, Any] = self.content["parts"]
        return parts

    @contextmanager
    def open(self) -> Iterator[None]:
        """Label the results whole when the block ends, and partial when it is interrupted."""
        try:
            yield
        except KeyboardInterrupt:
            write_results("gpu", self.content, self._folder)
            click.echo(f"interrupted: {self._folder / 'gpu.json'} is partial; go on with --resume", err=True)
            sys.exit(130)
        self.content["partial"] = False
        write_results("gpu", self.content, self._folder)

    def part(self, name: str, measure: Callable[[], Any]) -> None:
        """Measure a part that is not there yet; a failure is written down and stops nothing else."""
        if name in self.parts:
            return
        click.echo(name, err=True)
        try:
            self.parts[name] = measure()
        except (VivitExportError, RuntimeError, OSError) as e:
            self.leave_out(name, str(e))
        write_results("gpu", self.content, self._folder)

    def leave_out(self, name: str, reason: str) -> None:
        """Say why something was not measured."""
        self.content["not_measured"][name] = reason


def ask_child(arguments: list[str]) -> dict[str, Any]:
    """What `gpu_worker` prints last.

    Raises:
        RuntimeError: it failed; its last words.
    """
    done = subprocess.run([sys.executable, WORKER, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise RuntimeError(said[-1] if said else f"its process ended with status {done.returncode}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def our_commands(
    book: Book, checkpoint: Path, target: Path, named: tuple[str, str], device: str
) -> dict[str, list[str]]:
    """Our bundle with an engine of each flavour that compiles here, as contenders; empty where it cannot be made.

    ``named`` is its precision, and what the results call it.
    """
    precision, title = named
    try:
        verified = make_bundle(
            checkpoint, target, precision, device, lambda what, why: book.leave_out(f"{title}, {what}", why)
        )
    except (VivitExportError, ImportError) as e:
        book.leave_out(title, str(e))
        return {}
    for name, found in verified.items():
        book.part(f"verified {title}, {name}", partial(to_json, found))
    return contenders(title, target, device)


def compete(book: Book, part: str, commands: dict[str, list[str]], batch: int, given: dict[str, Any]) -> dict[str, Any]:
    """Time one batch size for a part; facts and figures by contender."""
    rounds, warmup = given["rounds"], given["warmup"]
    report = take_turns(commands, batches=(batch,), rounds=rounds, warmup=warmup, anyway=True, progress=Console())
    told = report.to_json()["contenders"]
    for name, contender in told.items():
        if "error" in contender:  # one that does not even load is out at every batch, for the first reason known
            at = f", batch {batch}" if contender["error"].startswith("at batch") else ""
            book.content["not_measured"].setdefault(f"{name}{at}", contender["error"])
    found = {
        name: {**{key: fact for key, fact in c.items() if key not in ("batches", "error")}, **c["batches"][str(batch)]}
        for name, c in told.items()
        if c["batches"]
    }
    if report.interrupted:
        book.parts[f"{part}{_CUT}"] = found
        raise KeyboardInterrupt
    return found


def compete_family(book: Book, title: str, bundles: Path, given: dict[str, Any], device: str) -> dict[str, Any]:
    """Time another family in fp16 against SDPA; facts and figures by contender."""
    name = title.lower().replace(" ", "-").replace("/", "-")
    checkpoint = make_family(title, bundles / f"{name}-checkpoint")
    commands = pytorch(checkpoint, ("sdpa", "sdpa-fp16"), device)
    commands |= our_commands(book, checkpoint, bundles / name, ("fp16", f"ours fp16, {title}"), device)
    return compete(book, family_part(title, device), commands, FAMILY_BATCHES[device], given)


def family_part(title: str, device: str) -> str:
    """The part of the results that holds a family's figures."""
    return f"family {title}, batch {FAMILY_BATCHES[device]}"


def check_demo(book: Book, target: Path, precision: str, device: str) -> dict[str, Any]:
    """Export the demo in a precision, and check its golden clips in every engine of the device.

    Raises:
        RuntimeError: the check failed to run.
    """
    import vivit_export as ve

    ve.export_model(
        "demo", target, precision=Precision(precision), targets=("onnx",), attention="pattern", progress=Console()
    )
    compile_engines(target, device, lambda what, why: book.leave_out(f"drift {precision}, {what}", why))
    made = {str(engine.flavour) for engine in ve.read_bundle(target).engines.values()}
    return ask_child(["drift", str(target), *(e for e in engines_on(device) if e in made or e not in FLAVOURS)])


def train(checkpoint: Path, kind: str, steps: int, device: str) -> dict[str, Any]:
    """Train with one attention.

    Raises:
        RuntimeError: it ended early.
    """
    found = train_in_child(checkpoint, kind, steps, device)
    if "error" in found:
        raise RuntimeError(found["error"])
    return {**found, "steps": steps}


def split_fastest(book: Book, commands: dict[str, list[str]], whose: str, device: str) -> dict[str, Any]:
    """Where the time of the fastest of ``ours`` or ``pytorch`` goes, at the batch where it is fastest.

    Raises:
        RuntimeError: nothing was timed, or the profiler failed.
    """
    per_clip = [
        (f.get("compute_ms", f["p50_ms"]) / int(part.split()[1]), name, part.split()[1])
        for part, contenders in book.parts.items()
        if part.startswith("batch ") and _CUT not in part
        for name, f in contenders.items()
        if name.startswith(whose) and name in commands and not f.get("beyond_gate")
    ]
    if not per_clip:
        raise RuntimeError("there is no contender that was timed")
    _, name, batch = min(per_clip)
    _, _, *arguments = commands[name]
    of = [whose, *(arguments[1:3] if whose == "pytorch" else arguments[:2])]
    return {"contender": name, "batch": int(batch), **ask_child(["kernels", batch, device, *of])}


if __name__ == "__main__":
    main()
