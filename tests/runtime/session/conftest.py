from __future__ import annotations

import pytest
from bundles import Bundles


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """Exported demo bundles, shared by all tests."""
    return Bundles(tmp_path_factory.mktemp("bundles"))
