"""Anatomies for records that need one."""

from __future__ import annotations

from vivit_export.anatomy import Anatomy
from vivit_export.families.vivit import Vivit


def vivit(blocks: int = 1, **fields: object) -> Anatomy:
    """Return that of a ViViT with the sizes of ViViT-B/16x2, except for those given."""
    config = {"num_hidden_layers": blocks, **fields}
    family = Vivit()
    return family.anatomy(config, family.clip(config, "config.json"))
