"""Random examples: never a pixel of another part, always a label, the sensors that the sampler leaves."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("pydantic")

from labelled_scenes import SIZE, config, scenes

from mmedge.edge.evaluation.blocks import TRAIN
from mmedge.edge.training.draws import Draws
from mmedge.edge.training.missingness import kept_of, realistic


@pytest.mark.parametrize("points", [False, True])
def test_no_window_holds_a_pixel_of_another_part(points: bool) -> None:
    draws = Draws(scenes(points=points), config(augment={"gain": {}, "shift": {}}))
    for seed in range(8):
        batch = draws.examples(np.random.default_rng(seed), 8)
        for m in ("optical", "sar"):
            seen = batch.data[m][np.broadcast_to(batch.valid[m], batch.data[m].shape)]
            assert set(np.unique(seen)) <= {float(TRAIN)}
        assert (batch.labels >= 0).any(axis=(1, 2)).all()


def test_elevation_enters_as_relief() -> None:
    batch = Draws(scenes(), config()).examples(np.random.default_rng(0), 4)
    assert batch.data["elevation"].shape == (4, 2, SIZE, SIZE)
    assert np.abs(batch.data["elevation"]).max() == 0


def test_a_draw_depends_on_the_generator_alone() -> None:
    one, two = (Draws(scenes(), config()).examples(np.random.default_rng(5), 6) for _ in range(2))
    for m in one.data:
        np.testing.assert_array_equal(one.data[m], two.data[m])
        np.testing.assert_array_equal(one.valid[m], two.valid[m])
    np.testing.assert_array_equal(one.kept, two.kept)


@pytest.mark.parametrize("sampler", ["uniform", "fixed", "guided", "realistic"])
def test_what_is_kept_is_there_and_never_nothing(sampler: str) -> None:
    draws = Draws(scenes(), config(missing={"sampler": sampler}))
    wish = {("sar",): 1.0, ("optical", "sar"): 2.0}
    batch = draws.examples(np.random.default_rng(0), 64, wish)
    there = np.stack([batch.valid[m].any(axis=(1, 2, 3)) for m in draws.scenes.sensors], axis=1)
    assert batch.kept.any(1).all()
    assert not (batch.kept & ~there).any()
    assert not batch.kept.all()


def test_uniform_patterns_are_equally_likely() -> None:
    rng, sensors = np.random.default_rng(0), ("a", "b", "c")
    kept = np.array([kept_of("uniform", rng, np.array([True, False, True]), sensors) for _ in range(900)])
    counts = np.bincount(kept @ np.array([1, 2, 4]), minlength=8)
    assert counts[[1, 4, 5]].sum() == 900
    assert counts[[1, 4, 5]].min() > 250


def test_a_square_always_loses_the_same() -> None:
    draws = Draws(scenes(), config(missing={"sampler": "fixed", "eta": 0.5, "holes": 0}))
    by_square: dict[tuple[int, ...], set[tuple[bool, ...]]] = {}
    present = np.array([True, True, True])
    rng = np.random.default_rng(0)
    for row in range(5):
        for col in range(4):
            for _ in range(3):
                kept = draws._kept(rng, present, (0, 40 * row + 4, 40 * col + 4), None)
                by_square.setdefault((row, col), set()).add(tuple(kept.tolist()))
    assert all(len(found) == 1 for found in by_square.values())
    lost = sum(found != {(True, True, True)} for found in by_square.values())
    assert 4 <= lost <= 16
    none = Draws(scenes(), config(missing={"sampler": "fixed", "eta": 0.0, "holes": 0}))
    assert none._kept(rng, present, (0, 4, 4), None).all()


def test_a_guided_draw_follows_the_wish() -> None:
    draws = Draws(scenes(), config(missing={"sampler": "guided", "holes": 0}))
    wish = {("optical",): 3.0, ("elevation",): 1.0, ("optical", "elevation"): 0.0}
    kept = np.concatenate([draws.examples(np.random.default_rng(s), 100, wish).kept for s in range(2)])
    assert set(map(tuple, kept.tolist())) == {(True, False, False), (False, True, False)}
    assert kept[:, 0].mean() == pytest.approx(0.75, abs=0.1)


def test_realistic_failures_hit_a_share_of_the_windows_in_part_and_whole() -> None:
    units = {"optical": "reflectance", "sar": "dB", "elevation": "m", "hsi": "raw"}
    valid = {m: np.ones((1, 1, 64, 64), np.bool_) for m in units}
    valid["hsi"][..., :8] = False
    rng = np.random.default_rng(0)
    drawn = [realistic(rng, valid, units, 0.8) for _ in range(400)]
    failed = np.array(
        [[not k or (v[m] != valid[m]).any() for m, k in zip(units, kept, strict=True)] for v, kept in drawn]
    )
    assert failed.any(1).mean() == pytest.approx(0.8, abs=0.06)
    assert (failed.sum(1) > 1).mean() > 0.3
    whole = np.array([[not k for k in kept] for _, kept in drawn])
    assert whole.sum() / failed.sum() == pytest.approx(1 / 3, abs=0.08)
    assert all(kept.any() and not (v[m] & ~valid[m]).any() for v, kept in drawn for m in units)
    shares = [v["optical"].mean() for v, _ in drawn if not v["optical"].all()]
    assert min(shares) < 0.3 < 0.8 < max(shares)
    found, kept = realistic(rng, {"optical": np.zeros((1, 1, 8, 8), np.bool_)}, units, 1.0)
    assert not kept.any()
    assert not found["optical"].any()


def test_something_always_stays() -> None:
    rng, valid = np.random.default_rng(1), {"sar": np.ones((1, 1, 16, 16), np.bool_)}
    for _ in range(100):
        found, kept = realistic(rng, valid, {"sar": "dB"}, 1.0)
        assert kept.all()
        assert found["sar"].any()


def test_rare_classes_are_drawn_as_often_as_wanted() -> None:
    def share(balance: float) -> float:
        draws = Draws(scenes(), config(balance={"windows": balance}))
        return float(draws.chances[1])

    assert share(0.0) == pytest.approx(0.1, abs=0.01)
    assert share(1.0) == 0.5
    weights = Draws(scenes(), config(balance={"loss": 1.0})).class_weights()
    assert weights[1] == 1
    assert weights[0] == pytest.approx(0.11, abs=0.02)


def test_jitter_changes_only_what_its_unit_allows() -> None:
    still = config(augment={"gain": {}, "shift": {"dB": 1.0}, "turns": False, "flips": False}, missing={"holes": 0})
    batch = Draws(scenes(), still).examples(np.random.default_rng(0), 16)
    assert set(np.unique(batch.data["optical"])) == {0.0}
    assert len(np.unique(batch.data["sar"])) > 3
