"""Names of the files of a bundle."""

from __future__ import annotations

FORMAT = "vivit-bundle/2"
MANIFEST = "bundle.json"
MODEL = "model.onnx"
MODEL_DATA = "model.onnx.data"
GOLDEN = "golden.safetensors"
RANGES = "ranges.json"
RECIPE = "recipe.toml"
REPORT = "report.json"
REPORT_HTML = "report.html"
ENGINES = "engines"
SBOM = "sbom.cdx.json"
SIGNATURE = "model.sig"
"""Signs the manifest and all that it lists, and so is not listed itself. Its name is that of OpenSSF Model Signing."""
