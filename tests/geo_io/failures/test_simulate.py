"""Simulated failures lie where their mask says, and nowhere else; the seed decides everything."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from failure_crops import crop
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge.errors import BandError, OutputError, SceneError, UsageError
from mmedge.geo_io.failure import detect
from mmedge.geo_io.failures.causes import CAUSES, DECLARED, Cause
from mmedge.geo_io.failures.clouds import cloud_shapes, draw_clouds
from mmedge.geo_io.failures.injection import Levels, flipped, hashed
from mmedge.geo_io.failures.simulate import draw, inject
from mmedge.geo_io.failures.simulate_scene import TAG, simulate_failure
from mmedge.grid import Window

WHOLE = ("dropped_band",)


def scene(path: Path, *, nodata: float | None = None) -> Path:
    """Sentinel-2 and DEM bands of the crops as one int16 scene with tags, as `mmedge stack` writes them."""
    data = np.concatenate([crop("s2")[0], crop("dem")[0]]).astype(np.int16)
    profile = {"driver": "GTiff", "dtype": "int16", "count": 5, "height": 160, "width": 160, "compress": "deflate"}
    where = {"crs": "EPSG:32718", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 6e6), "nodata": nodata}
    with rasterio.open(path, "w", tiled=True, blockxsize=64, blockysize=64, **profile, **where) as out:
        out.write(data)
        out.descriptions = ["optical:B02", "optical:B03", "optical:B04", "optical:B08", "dem:elevation"]
        out.scales, out.units = [1e-4] * 4 + [1.0], ["1"] * 4 + ["m"]
        out.update_tags(ACQUIRED="2020-04-11")
        out.update_tags(1, wavelength="490")
    return path


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("name", ["s2", "s1"])
def test_only_the_mask_changes(name: str, cause: Cause) -> None:
    data, valid = crop(name)
    data = data.astype(np.int16) if name == "s2" else data
    valid[:9, :7] = False
    before = data.copy(), valid.copy()
    injected = inject(data, valid, cause, np.random.default_rng(3), fraction=0.2)
    assert np.array_equal(data, before[0])
    assert np.array_equal(valid, before[1])
    assert injected.data.dtype == data.dtype
    assert np.array_equal(injected.data[:, ~injected.mask], data[:, ~injected.mask])
    assert not (injected.mask & ~valid).any()
    assert np.array_equal(injected.valid[~injected.mask], valid[~injected.mask])
    assert (injected.data[:, injected.mask] != data[:, injected.mask]).any(axis=0).mean() > 0.6
    if cause in DECLARED:
        assert np.array_equal(injected.valid, valid & ~injected.mask)
    elif cause != "border_noise":
        assert np.array_equal(injected.valid, valid)
    assert injected.mask.mean() > 0.9 if cause in WHOLE else 0.1 < injected.mask.mean() < 0.32


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(CAUSES),
    st.integers(0, 2**32 - 1),
    st.floats(0.01, 1.0),
    st.integers(0, 120),
    st.integers(0, 120),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_windows_give_what_the_whole_gives(
    cause: Cause, seed: int, fraction: float, row: int, col: int, height: int, width: int
) -> None:
    data, valid = crop("s1")
    levels = Levels.of(data, valid, fraction)
    failure = draw(cause, valid.shape, levels, np.random.default_rng(seed), fraction=fraction)
    whole = failure.apply(data, valid, Window(0, 0, *valid.shape))
    window = Window(row, col, height, width)
    cut = window.within(Window(0, 0, *valid.shape))
    part = failure.apply(data[(slice(None), *cut)], valid[cut], window)
    assert np.array_equal(part.data, whole.data[(slice(None), *cut)], equal_nan=True)
    assert np.array_equal(part.valid, whole.valid[cut])
    assert np.array_equal(part.mask, whole.mask[cut])


@pytest.mark.parametrize("cause", CAUSES)
def test_the_seed_decides(cause: Cause) -> None:
    data, valid = crop("s1")
    first, again, other = (inject(data, valid, cause, np.random.default_rng(s), fraction=0.1) for s in (1, 1, 2))
    assert np.array_equal(first.data, again.data, equal_nan=True)
    assert np.array_equal(first.mask, again.mask)
    assert not np.array_equal(first.data, other.data, equal_nan=True)


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("shape", [(40, 60), (300, 500), (2000, 100)])
def test_clouds_cover_what_they_should(shape: tuple[int, int], fraction: float) -> None:
    shares = [
        draw_clouds(shape, fraction, np.random.default_rng(s)).mask(Window(0, 0, *shape)).mean() for s in range(5)
    ]
    assert np.mean(shares) == pytest.approx(fraction, abs=0.06)


def test_the_cloud_shapes_are_the_real_ones() -> None:
    shapes = cloud_shapes()
    assert shapes.shape == (19, 101, 100)
    assert shapes.any(axis=(1, 2)).all()
    assert not shapes.all(axis=(1, 2)).any()
    assert shapes.mean() == pytest.approx(0.3629, abs=5e-5)  # of the 19 dates, from cloud_fraction of the source


def test_hashed_numbers_are_uniform_and_placed() -> None:
    rows, cols = np.arange(200)[:, None], np.arange(300)[None, :]
    values = hashed(rows, cols, 7)
    assert np.histogram(values, 10, (0, 1))[0] == pytest.approx(6000, rel=0.06)
    assert abs(np.corrcoef(values[:, 1:].ravel(), values[:, :-1].ravel())[0, 1]) < 0.02
    assert np.array_equal(values[50:60, 70:], hashed(rows[50:60], cols[:, 70:], 7))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_flipped_bits_are_the_high_ones(dtype: str) -> None:
    values = np.arange(100, 110).astype(dtype)
    out = flipped(values, np.arange(10, dtype=np.uint64) * np.uint64(0x1357))
    assert out.dtype == values.dtype
    assert out[0] == values[0]
    assert (np.abs(out.astype(float) - values) > 4)[np.arange(10) * 0x1357 % 8 != 0].all()
    assert np.isfinite(out.astype(float)).all()


def test_drawing_refuses_nonsense() -> None:
    data, valid = crop("s1")
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="cause must be one of"):
        inject(data, valid, "rust", rng)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fraction"):
        inject(data, valid, "cloud", rng, fraction=0.0)
    with pytest.raises(ValueError, match="no valid pixel"):
        inject(data, np.zeros_like(valid), "cloud", rng)


@pytest.mark.parametrize("cause", CAUSES)
def test_a_scene_is_copied_with_its_failure(tmp_path: Path, cause: Cause) -> None:
    source = scene(tmp_path / "scene.tif")
    record = simulate_failure(source, tmp_path / "out.tif", sensor="optical", cause=cause, seed=4, block_px=50)
    with rasterio.open(source) as before, rasterio.open(tmp_path / "out.tif") as after:
        a, b = before.read(), after.read()
        assert np.array_equal(a[4], b[4])
        changed = (a[:4] != b[:4]).any(axis=0)
        assert 0 < changed.mean() <= record["lost"]
        assert after.descriptions == before.descriptions
        assert (after.scales, after.units, after.crs) == (before.scales, before.units, before.crs)
        assert (after.transform, after.tags(1)) == (before.transform, before.tags(1))
        assert after.tags()["ACQUIRED"] == "2020-04-11"
        assert json.loads(after.tags()[TAG]) == [record]
        if record["declared"]:
            assert after.nodata == -32768
            assert (after.read_masks(1) == 0).mean() == pytest.approx(record["lost"])
            assert (after.read_masks(5) == 255).all()
    assert list(tmp_path.glob("*.part")) == []


def test_blocks_and_repetition_give_the_same_bytes(tmp_path: Path) -> None:
    source = scene(tmp_path / "scene.tif", nodata=-9999)
    names = []
    for i, block_px in enumerate((1024, 1024, 64)):
        names.append(tmp_path / f"{i}.tif")
        simulate_failure(source, names[-1], sensor="optical", cause="cloud", fraction=0.4, seed=9, block_px=block_px)
    first, again, blocks = (path.read_bytes() for path in names)
    assert first == again
    with rasterio.open(names[0]) as a, rasterio.open(names[2]) as b:
        assert np.array_equal(a.read(), b.read())
        assert (a.read(1) == -9999).mean() == pytest.approx(0.4, abs=0.1)
    assert len(blocks) == pytest.approx(len(first), rel=0.2)


def test_failures_add_up(tmp_path: Path) -> None:
    source = scene(tmp_path / "scene.tif")
    simulate_failure(source, tmp_path / "a.tif", sensor="optical", cause="dead_line", seed=1)
    simulate_failure(tmp_path / "a.tif", tmp_path / "b.tif", sensor="dem", cause="lidar_void", seed=2)
    with rasterio.open(tmp_path / "b.tif") as out:
        assert [entry["cause"] for entry in json.loads(out.tags()[TAG])] == ["dead_line", "lidar_void"]
        optical, valid = out.read([1, 2, 3, 4], out_dtype="float32"), out.read_masks(1) > 0
        void = out.read_masks(5) == 0
    assert detect(optical, valid, kind="optical").share["dead_line"] == pytest.approx(0.1)
    assert void.mean() == pytest.approx(0.1, abs=0.05)


def test_a_float_scene_gets_nan(tmp_path: Path) -> None:
    data, _ = crop("s1")
    with rasterio.open(
        tmp_path / "s.tif", "w", driver="GTiff", dtype="float32", count=2, height=160, width=160,
        crs="EPSG:32718", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 6e6),
    ) as out:  # fmt: skip
        out.write(data)
        out.descriptions = ["sar:VV", "sar:VH"]
    record = simulate_failure(tmp_path / "s.tif", tmp_path / "o.tif", sensor="sar", cause="missing_swath", fraction=1.0)
    with rasterio.open(tmp_path / "o.tif") as got:
        assert np.isnan(got.read()).all()
    assert record["lost"] == 1.0


def test_the_rim_of_border_noise_is_nodata_and_the_noise_is_found_beside_it(tmp_path: Path) -> None:
    data, _ = crop("s1")
    with rasterio.open(
        tmp_path / "s.tif", "w", driver="GTiff", dtype="float32", count=2, height=160, width=160,
        crs="EPSG:32718", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 6e6),
    ) as out:  # fmt: skip
        out.write(data)
        out.descriptions = ["sar:VV", "sar:VH"]
    simulate_failure(tmp_path / "s.tif", tmp_path / "o.tif", sensor="sar", cause="border_noise", fraction=0.2, seed=3)
    with rasterio.open(tmp_path / "o.tif") as got:
        noisy, valid = got.read(), got.read_masks(1) > 0
    rim = ~valid
    assert 0.05 < rim.mean() < 0.1  # 0.6 / 2 of the fraction
    assert rim[:, 0].all()
    noise = (noisy != data).any(axis=0) & valid
    found = detect(noisy, valid, kind="sar").masks["border_noise"]
    assert (found & noise).sum() >= 0.8 * noise.sum()


def test_mistakes_are_named_and_nothing_is_left(tmp_path: Path) -> None:
    source, target = scene(tmp_path / "scene.tif"), tmp_path / "out.tif"
    target.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        simulate_failure(source, target, sensor="optical", cause="cloud")
    with pytest.raises(OutputError, match="is the input"):
        simulate_failure(source, source, sensor="optical", cause="cloud", overwrite=True)
    with pytest.raises(BandError, match="`lidar`, only of: dem, optical"):
        simulate_failure(source, target, sensor="lidar", cause="cloud", overwrite=True)
    with pytest.raises(UsageError, match="rust"):
        simulate_failure(source, target, sensor="dem", cause="rust", overwrite=True)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="fraction"):
        simulate_failure(source, target, sensor="dem", cause="cloud", fraction=2, overwrite=True)
    with pytest.raises(SceneError, match="cannot open"):
        simulate_failure(target, tmp_path / "x.tif", sensor="dem", cause="cloud")
    with pytest.raises(OutputError, match="does not exist"):
        simulate_failure(source, tmp_path / "no" / "x.tif", sensor="dem", cause="cloud")
    assert target.read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.tif", "scene.tif"]
    simulate_failure(source, target, sensor="dem", cause="cloud", overwrite=True)
    with rasterio.open(target) as out:
        assert out.count == 5


def test_a_nodata_value_in_use_is_not_taken(tmp_path: Path) -> None:
    source = scene(tmp_path / "scene.tif")
    with rasterio.open(source, "r+") as out:
        out.write(np.full((1, 3, 3), -32768, np.int16), indexes=[5], window=((0, 3), (0, 3)))
    with pytest.raises(UsageError, match="-32768"):
        simulate_failure(source, tmp_path / "out.tif", sensor="optical", cause="cloud")
    assert [p.name for p in tmp_path.iterdir()] == ["scene.tif"]
