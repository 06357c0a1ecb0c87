"""What a session returns for one clip, and what its logits mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vivit_export.arguments import whole
from vivit_export.contract import Contract, Task
from vivit_export.errors import BundleError, UsageError
from vivit_export.printing import one_line
from vivit_export.runtime.session.backend import Float32


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Prediction:
    """The model's prediction for one clip.

    Attributes:
        logits: float32 (num_labels,), or None for a bundle without that output.
        embedding: float32 (hidden,), or None for a bundle without that output.
        labels: name of each logit.
        task: what the logits mean; see `Contract`.
    """

    logits: Float32 | None
    embedding: Float32 | None
    labels: tuple[str, ...]
    task: Task = "single_label_classification"

    def __repr__(self) -> str:
        return f"<Prediction: {self.told()}>"

    def told(self, k: int = 3) -> str:
        """Return the k best labels with their scores, for people."""
        if self.logits is None:
            return "an embedding" if self.embedding is None else f"an embedding of {len(self.embedding)} numbers"
        is_value = self.task == "regression"
        shown = [
            f"{one_line(name)} {score:.4g}" if is_value else f"{one_line(name)} {100 * score:.1f} %"
            for name, score in self.top(k)
        ]
        return ", ".join([*shown, *([f"{len(self.labels) - k} more"] if len(self.labels) > k else [])])

    @classmethod
    def from_outputs(cls, outputs: dict[str, Float32], contract: Contract) -> Prediction:
        """Make a prediction from the outputs of one clip, each without a batch dimension.

        Raises:
            BundleError: an output is not finite; no label can be told from it.
        """
        for name, array in outputs.items():
            if not np.isfinite(array).all():
                raise BundleError(
                    f"the model computed {name} that are not finite numbers, so they say nothing; measure it with: "
                    "vivit check, and export it in another precision if it overflows"
                )
        return cls(outputs.get("logits"), outputs.get("embedding"), contract.labels, contract.task)

    @property
    def scores(self) -> Float32:
        """What the task makes of the logits, float32 (num_labels,), computed in float64.

        Their softmax if one label is right, the sigmoid of each if any number of labels may be, and the logits
        themselves for a regression, as in transformers' pipeline for video classification.

        Raises:
            UsageError: the bundle has no logits.
        """
        if self.logits is None:
            raise UsageError("this bundle has an embedding but no logits; export it with --outputs logits,embedding")
        if self.task == "regression":
            return self.logits
        logits = self.logits.astype(np.float64)
        with np.errstate(under="ignore"):  # a chance may be as good as none; programs make NumPy raise at that
            if self.task == "multi_label_classification":
                chances = np.exp(-np.logaddexp(0, -logits))  # 1 / (1 + exp(-x)) without overflow
            else:
                powers = np.exp(logits - logits.max())
                chances = powers / powers.sum()
            rounded: Float32 = chances.astype(np.float32)
        return rounded

    @property
    def probabilities(self) -> Float32:
        """The scores of a classification: float32 (num_labels,) in [0, 1].

        Raises:
            UsageError: the bundle has no logits, or is a regression.
        """
        if self.task == "regression" and self.logits is not None:
            raise UsageError("the outputs of this bundle are values of a regression, not probabilities; take scores")
        return self.scores

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return k labels with their scores: the most probable, best first; of a regression the first k, in order.

        Raises:
            UsageError: the bundle has no logits, or ``k`` is not a whole number.
        """
        k, scores = whole("k", k), self.scores
        order = range(len(scores)) if self.task == "regression" else np.argsort(-scores, kind="stable")
        return [(self.labels[i], float(scores[i])) for i in order[: max(0, k)]]
