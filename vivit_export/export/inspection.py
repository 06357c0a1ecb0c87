"""What is in a bundle, verified: its facts, its signature, and the plans of its engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vivit_export.bundle import Bundle, read_bundle
from vivit_export.bundle.signatures.verify import signature_text
from vivit_export.export.engine.table import EnginePlan, plan_text, read_plan
from vivit_export.printing import one_line
from vivit_export.records import JsonObject
from vivit_export.report.text import contents_text, summary_json, summary_text


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found; ``print`` shows it as ``vivit inspect`` does.

    Attributes:
        bundle: verified.
        plans: the compiled layer plan of each engine, by its name.
        signature: who signed the bundle, not verified; None: nobody.
    """

    bundle: Bundle
    plans: Mapping[str, EnginePlan]
    signature: str | None

    def __str__(self) -> str:
        signed = f"  signature  {one_line(self.signature or 'none')}"
        plans = map(plan_text, self.plans.values())
        return "\n".join([summary_text(self.bundle), *contents_text(self.bundle), signed, *plans])

    def __repr__(self) -> str:
        return f"<Inspection of {self.bundle!r}>"

    def to_json(self) -> JsonObject:
        """Return JSON types: the manifest, the signature, and every layer of the plans."""
        plans = {name: plan.to_json() for name, plan in self.plans.items()}
        return {**summary_json(self.bundle, None), "signature": self.signature, "plans": plans}


def inspect(bundle: Bundle | str | Path) -> Inspection:
    """Verify a bundle and read what is in it.

    Args:
        bundle: its folder, or what `read_bundle` returned.

    Raises:
        BundleError: not a bundle, or one that was altered; a plan cannot be read.
        UsageError: it is not a path.
    """
    found = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
    return Inspection(found, {name: read_plan(found, name) for name in found.engines}, signature_text(found))
