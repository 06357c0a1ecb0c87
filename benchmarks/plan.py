"""Read the plans that TensorRT for RTX compiles, on the CPU, to count what the rewrites gain.

    python tools/make_checkpoint.py /tmp/vivit-b
    python benchmarks/plan.py /tmp/vivit-b

For ViViT-B/16x2 and the demo: the plain Hugging Face graph (no rewrites, ``pixels`` in, attention as
the pattern and as the op), and ours (all rewrites, uint8 ``crops`` in). For other geometries, two
blocks each with random weights: ours. With ``--families``, instead, the base sizes of the other model families, with
random weights too, for SM89: plain and ours. Nothing is executed: the compiler decides the kernels, fused attention,
GEMM types and scratch memory at the largest batch. Writes ``results/plan.json`` or ``results/plan_families.json``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click
import onnx_ir as ir
from common import environment, load_tool, write_results

from vivit_export.bundle import MODEL
from vivit_export.choices import AttentionForm
from vivit_export.contract import InputMode
from vivit_export.export.checkpoint.load import Checkpoint, load_checkpoint
from vivit_export.export.engine.compile import BuiltEngine, EngineRequest, build_engine
from vivit_export.export.engine.plan import prove
from vivit_export.export.graph.build import build_graph, save_graph
from vivit_export.flavour import Flavour
from vivit_export.precision import Precision
from vivit_export.rewrite import REWRITE_NAMES, merged_linears

SMS = (89, 120)
BATCHES = (1, 4, 8)
OPSET = 23

# Name, precision, form of attention, input, rewrites left out.
GRAPHS: tuple[tuple[str, Precision, AttentionForm, InputMode, tuple[str, ...]], ...] = (
    ("plain fp16", Precision.FP16, "pattern", "pixels", REWRITE_NAMES),
    ("plain fp16, Attention op", Precision.FP16, "fused-op", "pixels", REWRITE_NAMES),
    ("ours fp16", Precision.FP16, "pattern", "crops", ()),
    ("ours bf16", Precision.BF16, "pattern", "crops", ()),
)

# Fields of VivitConfig; what is not named is as in the first.
GEOMETRIES: dict[str, dict[str, Any]] = {
    "heads of 32": {
        "hidden_size": 384,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "num_hidden_layers": 2,
        "image_size": 112,
        "num_frames": 16,
    },
    "heads of 80": {"hidden_size": 640, "num_attention_heads": 8, "intermediate_size": 2560},
    "heads of 128": {"hidden_size": 512, "num_attention_heads": 4, "intermediate_size": 2048},
    "one head": {"hidden_size": 128, "num_attention_heads": 1, "intermediate_size": 512},
    "112 x 160 pixels": {"image_size": [112, 160]},
    "8 frames": {"num_frames": 8, "image_size": 224},
}


# Family, and fields of its config that differ from the defaults of transformers, which are the base size.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "ViViT-B/16x2 factorised encoder": ("vivit_factorised", {}),
    "ViViT-B/16x2 factorised self-attention": ("vivit_factorised", {"factorisation": "self_attention"}),
    "ViViT-B/16x2 factorised dot product": ("vivit_factorised", {"factorisation": "dot_product"}),
    "VideoMAE-B 16x224": ("videomae", {}),
    "TimeSformer-B 8x224": ("timesformer", {}),
    "V-JEPA 2-L 16x256": ("vjepa2", {"frames_per_clip": 16}),
}


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True), required=False)
@click.option("--families", is_flag=True, help="Compile other model families instead.")
def main(checkpoint: Path | None, families: bool) -> None:
    """Compile CHECKPOINT, a ViViT-B/16x2 folder, the demo and other geometries."""
    if families:
        compile_families()
        return
    if checkpoint is None:
        raise click.UsageError("give a CHECKPOINT, or --families")
    results: dict[str, Any] = {"environment": environment(), "batches": BATCHES}
    for title, model in (("ViViT-B/16x2", str(checkpoint)), ("demo", "demo")):
        loaded = load_checkpoint(model)
        results[title] = {graph[0]: measure(loaded, *graph[1:]) for graph in GRAPHS}
        print_table(title, results[title])
    results["geometries"] = {}
    for title, fields in GEOMETRIES.items():
        made = make_checkpoint({**GEOMETRIES["heads of 32"], **fields})
        results["geometries"][title] = {g[0]: measure(made, *g[1:]) for g in GRAPHS if g[0].startswith("ours")}
        print_table(f"{title}, {made.anatomy.tokens} tokens", results["geometries"][title])
    print(f"wrote {write_results('plan', results)}")


def compile_families() -> None:
    """Compile the other families in fp16."""
    results: dict[str, Any] = {"environment": environment(), "batches": BATCHES}
    for title, (family, fields) in FAMILIES.items():
        with tempfile.TemporaryDirectory() as folder:
            load_tool("make_checkpoint").make_other(family, Path(folder), **fields)
            made = load_checkpoint(folder)
        graphs = [graph for graph in GRAPHS if graph[0] in ("plain fp16", "ours fp16")]
        results[title] = {graph[0]: measure(made, *graph[1:], sms=SMS[:1]) for graph in graphs}
        print_table(title, results[title])
    print(f"wrote {write_results('plan_families', results)}")


def make_checkpoint(fields: dict[str, Any]) -> Checkpoint:
    """Make and load a checkpoint with random weights."""
    with tempfile.TemporaryDirectory() as folder:
        load_tool("make_checkpoint").make(Path(folder), **fields)
        return load_checkpoint(folder)


def measure(
    checkpoint: Checkpoint,
    precision: Precision,
    form: AttentionForm,
    input_mode: InputMode,
    skip: tuple[str, ...],
    sms: tuple[int, ...] = SMS,
) -> dict[str, dict[str, Any]]:
    """Compile one graph for each compute capability; figures of the plan by ``sm89`` and so on."""
    made = build_graph(
        checkpoint,
        precision=Precision(precision),
        form=form,
        opset=OPSET,
        input_mode=input_mode,
        outputs=("logits", "embedding"),
        skip_rewrites=skip,
    )
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        save_graph(made.model, work)
        anatomy, merged = checkpoint.anatomy, merged_linears(made.facts.rewrites)
        for sm in sms:
            built = compile_graph(made.model, work, sm)
            plan = built.plan
            figures[f"sm{sm}"] = {
                "kernels": plan.kernels,
                "layers": plan.layers,
                "attention_fused": plan.attention_fused,
                "attention": anatomy.num_attentions,
                "gemms": plan.gemms,
                "copies": plan.copies,
                "activation_bytes": plan.activation_bytes,
                "weight_bytes": plan.weight_bytes,
                "seconds": round(built.build_seconds, 1),
                "evidence": prove(
                    plan,
                    precision=precision,
                    num_attention=anatomy.num_attentions,
                    num_gemms=anatomy.num_gemms - merged,
                    allow_unfused=True,
                ),
            }
    return figures


def compile_graph(model: ir.Model, folder: Path, sm: int) -> BuiltEngine:
    """Compile a graph that `save_graph` wrote to a folder, with TensorRT for RTX and without a GPU."""
    source = model.graph.inputs[0]
    assert source.shape is not None
    shape = tuple(int(d) for d in source.shape[1:])  # type: ignore[arg-type]
    request = EngineRequest(Flavour.TENSORRT_RTX, folder / MODEL, str(source.name), shape, BATCHES, (sm,))
    return build_engine(request, folder / "engine.plan", folder / "build.log")


def print_table(title: str, graphs: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Print the figures as the README shows them."""
    print(f"| {title}, batch {'/'.join(map(str, BATCHES))} | kernels | fused attention | GEMMs | activation MB |")
    print("|---|---|---|---|---|")
    for name, by_sm in graphs.items():
        for sm, plan in by_sm.items():
            gemms = ", ".join(f"{count} {dtype}" for dtype, count in plan["gemms"].items())
            fused = f"{plan['attention_fused']} of {plan['attention']}"
            row = (f"{name}, {sm}", plan["kernels"], fused, gemms, f"{plan['activation_bytes'] / 1e6:.1f}")
            print(f"| {' | '.join(map(str, row))} |")
    print()


if __name__ == "__main__":
    main()
