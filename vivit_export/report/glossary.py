"""The terms that a page explains: those of docs/glossary.md, word for word, which a test compares."""

from __future__ import annotations

TERMS = {
    "bundle": (
        "The folder that an export writes. It holds the graph, the engines, the contract, the checks and the hash "
        "of every file."
    ),
    "calibration": "Running real clips through the model to find the ranges that INT8 and FP8 codes must cover.",
    "clear flip": (
        "A decision that changed although the reference was clear: the top-1 class of a clip or, for a multi-label "
        "task, whether a label of it is present. Gates allow none by default."
    ),
    "contender": (
        "Anything that vivit bench or a benchmark times against the others: an engine, or PyTorch in one of its modes."
    ),
    "cosine": (
        "How far two lists of numbers point in the same direction, whatever their size: 1 is exactly, 0 is not at "
        "all. A check reports the lowest of all clips."
    ),
    "drift": "How far results are from those of the eager float32 model on the same clips.",
    "engine": (
        "A compiled model: the file engines/NAME.plan in a bundle. An engine runs on the version of TensorRT and "
        "the GPUs that it was compiled for."
    ),
    "gate": "The limits that drift must meet. Exceeding one fails the command with exit code 5.",
    "golden clips": (
        "The clips of the check at export, or some of many, stored in the bundle with their eager float32 results. "
        "They let you measure drift without torch."
    ),
    "KL divergence": (
        "How far the probabilities of a clip are from those of the reference, in nats: 0 if they are equal. A "
        "check reports the largest of all clips."
    ),
    "logit range": (
        "The largest logit of the reference on all clips minus the smallest. Logits have no unit, so differences "
        "are given as a share of it."
    ),
    "near flip": "A decision that changed, but for which the reference itself was close to a tie.",
    "parity": "Whether two ways of preprocessing produce the same pixel values, compared bit by bit.",
    "plan": (
        "The compiled layer plan: which kernels an engine runs, in order and in which type. The file is the engine."
    ),
    "profile": (
        "The smallest, the typical and the largest batch that an engine accepts. Its kernels are tuned for the "
        "typical one."
    ),
    "proof": (
        "What the plan of an engine shows: fused attention in each block, and the type of each GEMM. If it is less "
        "than the export promised, the export fails."
    ),
    "rewrite": "A change of the graph that computes the same function in real arithmetic.",
    "rounding emulated": (
        "A run on the CPU that computes in float32 and rounds every result that the graph types as fp16 or bf16. "
        "It shows the drift of the types without a GPU."
    ),
}
"""What a term means, in plain text."""
