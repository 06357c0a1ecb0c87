"""Draw ``docs/report.png`` from the report of a demo bundle.

    make demo
    python tools/make_report_picture.py out/vivit-demo-fp16/report.html

Chromium is fetched if there is none (``tools/fetch_chromium.py``).
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import fetch_chromium
from PIL import Image

PICTURE = Path(__file__).parents[1] / "docs/report.png"
WIDTH, HEIGHT, COLORS = 1040, 1290, 48


def draw(report: Path, picture: Path = PICTURE) -> None:
    """Render a report to a PNG with few colors, which keeps the file small."""
    browser = str(fetch_chromium.fetch())
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "report.png"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--screenshot={shot}"]
        address = report.resolve().as_uri()
        subprocess.run([browser, *options, f"--window-size={WIDTH},{HEIGHT}", address], check=True, timeout=120)
        with Image.open(shot) as image:
            image.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(picture, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="report.html of a bundle")
    draw(parser.parse_args().report)
    print(f"wrote {PICTURE}")
