"""Failures are found where they were put, and next to nothing is found where there are none."""

from __future__ import annotations

import numpy as np
import pytest
from failure_crops import KINDS, crop, precision, read, recall, shared
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge.geo_io.arrays import ArraySource
from mmedge.geo_io.failure import Screened, clipped_complex, detect, detect_window, scan, survey
from mmedge.geo_io.failures.causes import DETECTED
from mmedge.geo_io.failures.local import THICK_PX
from mmedge.geo_io.failures.scan import slabs
from mmedge.geo_io.failures.simulate import inject
from mmedge.geo_io.source import SourceInfo
from mmedge.grid import Window
from mmedge.tile import Data, Valid

FALSE_ALARMS = 0.001  # of the pixels of a clean scene; docs/sensors/failures.md


class Scene:
    """A scene in memory that says how much of it was read at once."""

    def __init__(self, data: Data, valid: Valid) -> None:
        self.data, self.valid, self.largest = data, valid, 0

    def read(self, window: Window) -> tuple[Data, Valid]:
        rows, cols = window.within(Window(0, 0, *self.valid.shape))
        self.largest = max(self.largest, window.height * window.width)
        return self.data[:, rows, cols], self.valid[rows, cols]


@pytest.mark.parametrize("name", KINDS)
def test_a_clean_crop_loses_nothing(name: str) -> None:
    data, valid = crop(name)
    report = detect(data, valid, kind=KINDS[name])
    assert report.share == dict.fromkeys(DETECTED, 0.0)
    assert report.valid.all()


@pytest.mark.parametrize("file", ["S2L2A", "S1RTC", "DEM"])
@pytest.mark.parametrize("name", ["282D_485L_3_3", "38D_378R_2_3", "433D_629L_3_1", "609U_541L_3_0"])
def test_clean_scenes_keep_their_pixels(name: str, file: str) -> None:
    data, valid = read(shared(f"terramesh/{name}/{file}.tif"))
    kind = {"S2L2A": KINDS["s2"], "S1RTC": KINDS["s1"], "DEM": KINDS["dem"]}[file]
    assert detect(data, valid, kind=kind).failed.mean() <= FALSE_ALARMS


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("name", "cause", "fraction", "least"),
    [
        ("s2", "dead_line", 0.05, 1.0),
        ("s2", "dead_column", 0.05, 1.0),
        ("s2", "stuck", 0.05, 1.0),
        ("s2", "dropped_band", 0.1, 1.0),
        ("s2", "slc_off", 0.2, 0.95),
        ("s2", "saturated", 0.1, 1.0),
        ("s2", "bit_flip", 0.1, 0.85),
        ("s2", "missing_swath", 0.3, 1.0),
        ("s1", "dead_line", 0.05, 1.0),
        ("s1", "dropped_band", 0.1, 1.0),
        ("s1", "missing_swath", 0.3, 1.0),
        ("dem", "lidar_void", 0.1, 1.0),
        ("dem", "missing_swath", 0.3, 1.0),
    ],
)
def test_an_injected_failure_is_found(name: str, cause: str, fraction: float, least: float, seed: int) -> None:
    data, valid = crop(name)
    injected = inject(
        data.astype(np.int16) if name == "s2" else data, valid, cause, np.random.default_rng(seed), fraction=fraction
    )
    masks = detect(injected.data.astype(np.float32), injected.valid, kind=KINDS[name]).masks
    assert recall(masks[cause], injected.mask) >= least
    assert precision(masks[cause], injected.mask) >= 0.99


def test_striping_is_found_by_its_period() -> None:
    data, valid = crop("s2")
    striped = data.copy()
    striped[1, :, 5::16] *= 1.1
    masks = detect(striped, valid, kind="optical").masks
    truth = np.zeros(valid.shape, bool)
    truth[:, 5::16] = True
    assert recall(masks["striping"], truth) >= 0.9
    assert precision(masks["striping"], truth) == 1.0


@pytest.mark.parametrize("name", ["s2", "s1"])
@pytest.mark.parametrize("fraction", [0.06, 0.1, 0.34])
def test_every_line_of_a_striped_detector_is_found_down_to_every_third(name: str, fraction: float) -> None:
    data, valid = crop(name)
    injected = inject(data, valid, "striping", np.random.default_rng(3), fraction=fraction)
    masks = detect(injected.data, injected.valid, kind=KINDS[name]).masks
    assert np.array_equal(masks["striping"], injected.mask)


@pytest.mark.parametrize("name", ["s2", "s1"])
def test_as_many_bright_lines_without_a_period_are_no_striping(name: str) -> None:
    data, valid = crop(name)
    rows = np.random.default_rng(0).choice(valid.shape[0] // 3, valid.shape[0] // 9, replace=False) * 3
    data[:, rows] += 0.2 * np.subtract(*np.percentile(data, [99, 1], axis=(1, 2)))[:, None, None]
    assert not detect(data, valid, kind=KINDS[name]).masks["striping"].any()


def test_blocks_of_flipped_bits_in_speckle() -> None:
    data, valid = crop("s1")
    found, there, hit = 0, 0, 0
    for seed in range(4):
        injected = inject(data, valid, "bit_flip", np.random.default_rng(seed), fraction=0.1)
        mask = detect(injected.data, injected.valid, kind="sar").masks["bit_flip"]
        found, there, hit = found + mask.sum(), there + injected.mask.sum(), hit + (mask & injected.mask).sum()
    assert hit >= 0.85 * there
    assert hit >= 0.99 * found


def test_one_bright_column_is_no_striping() -> None:
    data, valid = crop("s2")
    data[:, :, 80] *= 1.2
    assert not detect(data, valid, kind="optical").failed.any()


def test_flat_water_is_no_dead_line() -> None:
    data, valid = crop("s2")
    rows, cols = np.mgrid[: valid.shape[0], : valid.shape[1]]
    data[3, (rows - 80) ** 2 / 900 + (cols - 80) ** 2 / 5000 < 1] = 1.0  # near infrared, clamped over a lake
    report = detect(data, valid, kind="optical")
    assert not (report.masks["dead_line"] | report.masks["dead_column"] | report.masks["stuck"]).any()


@pytest.mark.parametrize("thick", [1, THICK_PX, THICK_PX + 1])
def test_a_dead_line_is_thin(thick: int) -> None:
    data, valid = crop("s1")
    data[0, 40 : 40 + thick] = -70.0
    mask = detect(data, valid, kind="sar").masks["dead_line"]
    assert mask[40 : 40 + thick].all() == (thick <= THICK_PX)
    assert not np.delete(mask, np.s_[40 : 40 + thick], axis=0).any()


def test_real_gaps_of_landsat_7() -> None:
    data, valid = crop("slc_off")
    report = detect(data, valid, kind="optical")
    assert recall(report.masks["slc_off"], ~valid) >= 0.95  # the crop has no other nodata to speak of
    assert precision(report.masks["slc_off"], ~valid) == 1.0
    assert np.array_equal(report.valid, valid)


def test_gaps_whose_fill_value_is_not_declared_become_invalid() -> None:
    data, valid = crop("slc_off")
    report = detect(np.where(valid, data, 0.0), np.ones_like(valid), kind="optical")
    assert recall(~report.valid, ~valid) >= 0.95
    assert report.valid[valid].all()


def test_border_noise_and_its_swath() -> None:
    data, valid = crop("s1")
    noisy, seen = data.copy(), valid.copy()
    seen[:, :12] = False
    noisy[:, :, 12:30] = np.random.default_rng(5).normal(-45, 4, (2, 160, 18))
    report = detect(noisy, seen, kind="sar")
    truth = np.zeros_like(valid)
    truth[:, 12:30] = True
    assert recall(report.masks["border_noise"], truth) >= 0.75
    assert precision(report.masks["border_noise"], truth) >= 0.99


def test_calm_water_at_the_border_is_no_noise() -> None:
    data, valid = crop("s1")
    valid[:, :40] = False
    data[0, :, 40:70], data[1, :, 40:70] = -22.0, -29.0  # VV, VH over calm water
    assert not detect(data, valid, kind="sar").masks["border_noise"].any()


def test_saturated_receiver() -> None:
    pixels = np.zeros((4, 5), np.complex64)
    pixels[1, :4] = 32767 - 5j
    pixels[2, 2] = 30000 + 30000j
    assert np.array_equal(clipped_complex(pixels), np.abs(pixels.real) == 32767)
    assert not clipped_complex(pixels * np.float32(0.5)).any()


@pytest.mark.parametrize("kind", ["optical", "sar", "elevation"])
def test_an_empty_scene_is_a_missing_swath(kind: str) -> None:
    data, valid = np.zeros((2, 70, 90), np.float32), np.zeros((70, 90), bool)
    report = detect(data, valid, kind=kind)  # type: ignore[arg-type]
    assert report.masks["missing_swath"].all()
    assert not report.valid.any()


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="bands, rows, cols"):
        detect(np.zeros((4, 4), np.float32), np.ones((4, 4), bool), kind="optical")
    with pytest.raises(ValueError, match="kind"):
        detect(np.zeros((1, 4, 4), np.float32), np.ones((4, 4), bool), kind="lidar")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("s2", "slc_off"),
        ("s2", "bit_flip"),
        ("s2", "dead_line"),
        ("s1", "border_noise"),
        ("s2", "striping"),
        ("dem", "lidar_void"),
    ],
)
def test_windows_give_what_the_whole_gives(name: str, cause: str) -> None:
    data, valid = (np.tile(a, 4)[..., :600] for a in crop(name))
    data = np.tile(data, (1, 3, 1))[:, :410]
    valid = np.tile(valid, (3, 1))[:410]
    injected = inject(data, valid, cause, np.random.default_rng(7), fraction=0.15)  # type: ignore[arg-type]
    scene = Scene(injected.data, injected.valid)
    whole = detect(injected.data, injected.valid, kind=KINDS[name])
    verdicts = scan(scene.read, valid.shape, kind=KINDS[name])
    assert whole.failed.any()
    for window in (
        Window(0, 0, 130, 130),
        Window(131, 77, 97, 211),
        Window(300, 390, 110, 210),
        Window(205, 300, 1, 1),
    ):
        part, cut = detect_window(scene.read, window, verdicts), window.within(Window(0, 0, *valid.shape))
        assert np.array_equal(part.valid, whole.valid[cut])
        for mask_cause in DETECTED:
            assert np.array_equal(part.masks[mask_cause], whole.masks[mask_cause][cut]), mask_cause


def test_a_survey_reads_small_parts_of_a_large_scene() -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(0.3, 0.05, (1, 2500, 2300)).astype(np.float32)
    data[0, 1234] = 0.0
    scene = Scene(data, np.ones(data.shape[1:], bool))
    share = survey(scene.read, data.shape[1:], kind="optical", block_px=512)
    assert share["dead_line"] == pytest.approx(1 / 2500)
    assert sum(share.values()) == share["dead_line"]
    assert scene.largest <= (512 + 320) ** 2


def test_slabs_do_not_overlap_and_stay_few() -> None:
    for length in (1, 127, 128, 300, 768, 769, 5000, 20000):
        windows = list(slabs((length, 10), 1))
        ends = [w.row + w.height for w in windows]
        assert len(windows) <= 6
        assert ends[-1] == length
        assert all(w.row >= end for w, end in zip(windows[1:], ends, strict=False))


def test_a_screened_source_leaves_out_what_failed() -> None:
    data, valid = crop("s2")
    data[:, 33] = 0
    info = SourceInfo(files=(), bands=("a",), unit="", gsd_m=10.0)
    source = Screened(ArraySource(data, valid, info), valid.shape, kind="optical")
    window = Window(20, 10, 30, 40)
    got, seen = source.read(window)
    assert np.array_equal(got, data[:, 20:50, 10:50])
    assert not seen[13].any()
    assert seen.sum() == 29 * 40
    np.testing.assert_array_equal(source.look(window)[2]["dead_line"], ~seen)
    assert source.info.gsd_m == 10.0
    source.close()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from(["optical", "sar", "elevation"]), st.integers(1, 90), st.integers(1, 90)
)
def test_valid_never_grows_and_nothing_breaks(seed: int, kind: str, rows: int, cols: int) -> None:
    rng = np.random.default_rng(seed)
    data = rng.normal(0, 10, (2, rows, cols)).astype(np.float32)
    if seed % 2:
        data = np.rint(data / 8)  # flat, as categorical or clamped bands are
    data[:, rng.random((rows, cols)) < 0.05] = rng.choice([np.nan, np.inf, -np.inf, 0])
    valid = rng.random((rows, cols)) < rng.choice([0.0, 0.5, 1.0])
    report = detect(data, valid, kind=kind)  # type: ignore[arg-type]
    assert not (report.valid & ~valid).any()
    assert all(0 <= share <= 1 for share in report.share.values())
    assert np.array_equal(report.valid, valid & ~report.failed)
