"""Real data for tests: the example scene that ships with the project, and ../shared where it is there."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from small_bundle import write_bundle

ROOT = Path(__file__).parents[1]
TORCH_SIDE = re.compile(r"^(import|from) (torch|safetensors|sklearn|mmedge\.edge\.(models|training|export))", re.M)


def needs_torch() -> list[str]:
    """Test files of the training side."""
    return sorted(str(path) for path in Path(__file__).parent.rglob("test_*.py") if TORCH_SIDE.search(path.read_text()))


collect_ignore = [] if find_spec("torch") else needs_torch()


def pytest_report_header() -> str:
    """Say what is left out where torch is not installed: the core has to work there."""
    return (
        f"torch is not installed, left out: {len(collect_ignore)} files of the training side" if collect_ignore else ""
    )


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Say where two files differ: pytest's own comparison of megabytes, which CI=true asks for, takes hours."""
    if op != "==" or not isinstance(left, bytes) or not isinstance(right, bytes):
        return None
    first = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    return [f"{len(left)} bytes == {len(right)} bytes", f"they differ from byte {first}"]


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
