"""Real data for tests: the example scene that ships with the project, and ../shared where it is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_bundle import write_bundle

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def chile() -> Path:
    """Folder of the example scene: scene.tif, its sources, its land cover."""
    return ROOT / "examples" / "chile"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The shared data bundle, which is not part of the project."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data, which is not here")
    return folder


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolutional bundle that sees 2 pixels to each side."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "small")
