"""Galileo against the outputs of the authors' implementation (../shared/data/open/galileo_nano)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file  # noqa: E402

from mmedge.edge.models.galileo import Galileo, Inputs, resized_kernel  # noqa: E402

PUBLISHED = Path(__file__).parents[4] / "shared/data/open/galileo_nano"


@pytest.fixture(scope="module")
def galileo() -> Galileo:
    if not PUBLISHED.is_dir():
        pytest.skip(f"the published weights are not here: {PUBLISHED}")
    model = Galileo()
    model.load_state_dict(load_file(PUBLISHED / "encoder.safetensors"))
    return model.eval()


@pytest.mark.parametrize("case", ["a", "b"])
def test_equals_the_published_implementation(galileo: Galileo, case: str) -> None:
    """Case a: everything present, patches of 4 px. Case b: patches of 8 px, missing groups, times and patches."""
    ref = np.load(PUBLISHED / "reference_io.npz")
    t = {k.removeprefix(f"{case}_"): torch.from_numpy(ref[k]) for k in ref.files if k.startswith(case)}
    kinds = ("s_t", "sp", "t", "st")
    with torch.no_grad():
        out, mean = galileo(
            Inputs(*(t[f"in_{k}_x"] for k in kinds)),
            Inputs(*(t[f"in_{k}_m"] for k in kinds)),
            t["in_months"],
            patch_px=int(t["patch_size"]),
            resolution_m=float(t["input_resolution_m"]),
        )
    for kind, mine in zip(kinds, out, strict=True):
        assert (mine - t[f"out_{kind}_x"]).abs().max() < 1e-4, kind
    assert (mean - t["out_mean"]).abs().max() < 1e-4


def test_tables_are_the_published_ones(galileo: Galileo) -> None:
    fresh = Galileo()
    torch.testing.assert_close(fresh.pos_embed, galileo.pos_embed, atol=1e-5, rtol=0)
    torch.testing.assert_close(fresh.month_embed.weight, galileo.month_embed.weight, atol=1e-5, rtol=0)


def test_resized_kernel_answers_alike_to_an_enlarged_patch() -> None:
    """FlexiViT: the small kernel on a patch equals the stored one on the patch enlarged."""
    rng = torch.Generator().manual_seed(0)
    kernel, patch = torch.randn(5, 2, 8, 8, generator=rng), torch.randn(2, 4, 4, generator=rng)
    unit = torch.eye(64).view(64, 1, 8, 8)
    shrink = torch.nn.functional.interpolate(unit, (4, 4), mode="bicubic", antialias=True).view(64, 16)
    enlarged = (patch.flatten(1) @ torch.linalg.pinv(shrink)).view(2, 8, 8)
    expected = (kernel * enlarged).sum((1, 2, 3))
    torch.testing.assert_close((resized_kernel(kernel, 4) * patch).sum((1, 2, 3)), expected, atol=1e-3, rtol=1e-4)
