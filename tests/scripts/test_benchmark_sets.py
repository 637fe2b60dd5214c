"""Benchmarks with several sensors: splits that keep together what belongs together, and rows of one tiny benchmark."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import benchmark_ablations  # noqa: E402
import benchmark_results  # noqa: E402
import benchmark_summary  # noqa: E402
from benchmark_sets import houston2013, idtrees, ombria  # noqa: E402
from benchmark_sets.examples import Benchmark, Budget, Split, folds_of, grouped  # noqa: E402
from benchmark_sets.learn import figures, headline, rmse  # noqa: E402
from benchmark_sets.trees import score_trees  # noqa: E402
from benchmark_sets.variants import ABLATIONS, VARIANTS  # noqa: E402
from page import cell  # noqa: E402
from rows import append_row, read_rows  # noqa: E402
from score_benchmark import done, folder_of, run  # noqa: E402

from mmedge.edge.evaluation.metrics import Confusion  # noqa: E402

SHARED = ROOT.parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data bundle is not on this machine")
METHODS = ("dropout", "mars", "dymo", "mamol", "specialists", "mean-fill")


def parts(split: Split) -> list[set[int]]:
    return [set(part.tolist()) for part in (split.train, split.validate, split.test)]


def test_groups_are_never_divided_and_strata_are_spread() -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 40, 500)
    names, sites = [f"g{g}" for g in group], [f"site{g % 2}" for g in group]
    bins = grouped(names, sites, 10)
    for g in range(40):
        assert len(set(bins[group == g])) == 1
    for site in ("site0", "site1"):
        load = np.bincount(bins[np.array(sites) == site], minlength=10)
        assert load.min() > 0
        assert load.max() < 2.5 * load.mean()


def test_folds_test_every_example_once_and_share_no_group() -> None:
    group = np.random.default_rng(1).integers(0, 30, 300)
    splits = folds_of(grouped([str(g) for g in group], ["one"] * 300, 10), 5)
    assert sorted(i for s in splits for i in s.test.tolist()) == list(range(300))
    for split in splits:
        groups = [set(group[part].tolist()) for part in (split.train, split.validate, split.test)]
        assert all(groups)
        assert not groups[0] & groups[1]
        assert not groups[0] & groups[2]
        assert not groups[1] & groups[2]


def test_event_folds_keep_a_guard_of_numbers_around_what_is_tested() -> None:
    rng = np.random.default_rng(2)
    numbers = np.sort(rng.choice(900, 624, replace=False))
    order = rng.permutation(624)  # rows need not come in order of their numbers
    splits = ombria.event_folds(np.arange(624), numbers[order])
    assert sorted(i for s in splits for i in s.test.tolist()) == list(range(624))
    for split in splits:
        train, validate, test = parts(split)
        assert not train & validate
        place = order[split.test]  # chips lie as many places apart as there are chips between them
        assert place.max() - place.min() == len(test) - 1
        for other in order[sorted(train | validate)]:
            assert min(abs(other - place.min()), abs(other - place.max())) > ombria.GUARD


def tiny(task: str = "window") -> Benchmark:
    """Two sensors that both tell two classes apart."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 48)
    shape = (48, 2, 8, 8)
    data = {m: (rng.normal(size=shape) + 3 * labels[:, None, None, None]).astype(np.float32) for m in ("a", "b")}
    truth = None
    if task == "map":
        labels = np.broadcast_to(labels[:, None, None], (48, 8, 8)).astype(np.int64)
        truth = labels.repeat(2, 1).repeat(2, 2).astype(np.int8)
    split = Split(name="all", train=np.arange(24), validate=np.arange(24, 32), test=np.arange(32, 48))
    return Benchmark(
        name="tiny", task="map" if task == "map" else "window", classes=("no", "yes"), data=data, labels=labels,
        truth=truth, protocols={"only": (split,)}, tested=(("a",), ("b",), ("a", "b")), score="oa",
        encoder={"encoder": "unet", "encoder_options": {"widths": (8, 8, 16), "width": 8}},
        budget=Budget(steps=4, batch=8, check_every=2),
    )  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_a_row_has_every_availability_and_a_finished_run_is_taken_up(method: str, tmp_path: Path) -> None:
    key = {"protocol": "only", "method": method, "seed": 0}
    row = run(tiny(), key, tmp_path)
    assert set(row["scores"]["test"]) == {"a", "b", "a+b"}
    assert ("oracle" in row["scores"]) == (method in ("mars", "dymo"))
    assert {"impute-all", "discard"} <= set(row["scores"]) or method != "dymo"
    assert run(tiny(), key, tmp_path) == row


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_method_with_a_part_switched_off_is_a_row_too(variant: str, tmp_path: Path) -> None:
    row = run(tiny(), {"protocol": "only", "method": variant, "seed": 0}, tmp_path)
    assert set(row["scores"]["test"]) == {"a", "b", "a+b"}
    assert ("oracle" in row["scores"]) == (VARIANTS[variant].method != "mamol" and variant != "mars:no-residual")


def test_what_a_map_alone_changes_shares_the_training_run() -> None:
    key = {"benchmark": "b", "protocol": "p", "seed": 1}
    assert folder_of({**key, "method": "dymo:at-once"}) == folder_of({**key, "method": "dymo"}) == "b-p-dymo-1"
    assert folder_of({**key, "method": "dymo:no-prototypes"}) == "b-p-dymo-no-prototypes-1"


def test_errors_have_the_size_of_the_grades() -> None:
    benchmark = replace(tiny(), grades=(10.0, 14.0), score="rmse")
    confusion = Confusion(np.array([[3, 1], [0, 0]]))
    assert rmse(benchmark, confusion) == 2  # one of four is wrong by 4
    assert figures(benchmark, confusion)["rmse"] == 2
    assert headline(benchmark, confusion) == -2


def test_what_a_part_is_worth_is_told_from_seeds_run_both_ways() -> None:
    shown = next(t for t in benchmark_results.TABLES if t.short == "OMBRIA")
    key = {"benchmark": "ombria", "protocol": "published"}

    def row(method: str, seed: int, score: float) -> dict[str, object]:
        found = {a: {"flood_iou": score} for a in shown.columns}
        return {**key, "method": method, "seed": seed, "scores": {"test": found}}

    whole = [row("mars", 0, 0.60), row("mars", 1, 0.62)]
    off = [row("mars:no-residual", 0, 0.50), row("mars:no-residual", 1, 0.53), row("mars:no-residual", 2, 0.1)]
    other = [row("mars:no-balance", 0, 0.60), row("mars:no-balance", 1, 0.63), row("mars:no-imitation", 0, 0.7)]
    said = benchmark_ablations.verdict([*whole, *off, *other], "mars")
    residual, balance, imitation = (
        ABLATIONS[f"mars:{name}"].text for name in ("no-residual", "no-balance", "no-imitation")
    )
    assert f"Held up, worse by more than one standard deviation: {residual} (OMBRIA, +0.095)." in said
    assert f"Within one standard deviation: {balance} (OMBRIA, -0.005)." in said
    assert f"One seed, so nothing is known yet: {imitation} (OMBRIA, -0.100)." in said
    table = benchmark_ablations.method_table([*whole, *off], "mars")
    assert f"| {residual} | .377 ± .240 (3) | open | open | open |" in table


def test_maps_are_scored_at_the_resolution_of_their_truth(tmp_path: Path) -> None:
    benchmark = tiny("map")
    row = run(benchmark, {"protocol": "only", "method": "dropout", "seed": 0}, tmp_path)
    found = score_trees(benchmark, benchmark.protocols["only"][0], ("a",), 0)
    assert found.pixels == 16 * 16 * 16
    assert found.overall_accuracy > 0.9
    assert 0 <= row["scores"]["test"]["a+b"]["miou"] <= 1


def test_what_was_not_run_is_open_and_what_was_is_not_run_again(tmp_path: Path) -> None:
    shown = next(t for t in benchmark_results.TABLES if t.protocol == "published" and t.benchmark == "ombria")
    key = {"benchmark": "ombria", "protocol": "published", "seed": 0}
    score = {a: {"flood_iou": 0.5} for a in shown.columns}
    rows = [{**key, "method": m, "scores": {"test": score}} for m in ("dropout", "mars")]
    for row in rows:
        append_row(tmp_path / "rows.json", row)
    assert read_rows(tmp_path / "rows.json") == rows
    assert {**key, "method": "mars"} in done(tmp_path / "rows.json")
    text = benchmark_results.lines(rows, shown)
    assert text.count("| 1 | .500 | .500 | .500 | .500 |") == 2
    assert "| MaMOL, two stages | open | open | open | open | open |" in text
    assert "MARS is 0.000 worse than modality dropout (1 seed against 1" in benchmark_results.verdict(rows, shown)
    assert "MaMOL" not in benchmark_results.verdict(rows, shown)


def test_where_the_shipped_method_is_not_better_another_is_advised() -> None:
    shown = next(t for t in benchmark_results.TABLES if t.short == "OMBRIA")

    def rows(method: str, *scores: float) -> list[dict[str, object]]:
        key = {"benchmark": "ombria", "protocol": "published", "method": method}
        found = [{a: {"flood_iou": s} for a in shown.columns} for s in scores]
        return [{**key, "seed": i, "scores": {"test": f}} for i, f in enumerate(found)]

    dropout, mamol, mars = rows("dropout", 0.5, 0.52), rows("mamol", 0.51, 0.53), rows("mars", 0.6, 0.61)
    said = benchmark_results.verdict([*dropout, *mamol, *mars], shown)
    assert said.endswith("does not beat modality dropout by more than one standard deviation here: take MARS.")
    assert "no other is better" in benchmark_results.verdict([*dropout, *mamol], shown)
    assert "which ships" not in benchmark_results.verdict([*dropout, *rows("mamol", 0.6, 0.61)], shown)
    assert "which ships" not in benchmark_results.verdict([*dropout, *rows("mamol", 0.5)], shown)
    assert "which ships" not in benchmark_results.verdict([*dropout, *mamol, *mars], replace(shown, leaks=True))


def test_the_summary_counts_wins_over_dropout_and_names_the_best() -> None:
    tables = {t.short: t for t in benchmark_summary.SHOWN}

    def rows(short: str, method: str, *scores: float) -> list[dict[str, object]]:
        t = tables[short]
        key = {"benchmark": t.benchmark, "protocol": t.protocol, "method": method}
        found = [{a: {t.score: s} for a in t.columns} for s in scores]
        return [{**key, "seed": i, "scores": {"test": f}} for i, f in enumerate(found)]

    assert "rows are open" in benchmark_summary.which_to_take([])
    oa = [
        *rows("IDTReeS", "dropout", 0.4, 0.42),
        *rows("IDTReeS", "dymo", 0.5, 0.52),
        *rows("IDTReeS", "mars", 0.3, 0.32),
    ]
    rmse = [*rows("fuel (RMSE)", "dropout", 40.0, 42.0), *rows("fuel (RMSE)", "dymo", 30.0, 32.0)]
    one = rows("Houston 2013", "dymo", 0.1)  # of one seed nobody knows the spread
    text = " ".join(benchmark_summary.which_to_take([*oa, *rmse, *one]).split())
    assert "MARS is better on 0 and worse on 1 of 1; DyMo is better on 2 and worse on 0 of 2." in text
    assert "the first to try is DyMo." in text
    assert "The best was DyMo on IDTReeS and Houston 2013 and fuel (RMSE)." in text
    assert "**31.000 ± 1.414**" in text
    lucky = " ".join(benchmark_summary.which_to_take([*oa, *rows("IDTReeS", "mamol", 0.9)]).split())
    assert "The best was DyMo on IDTReeS." in lucky  # one seed against two may be first by chance
    specialists = benchmark_summary.which_to_take([*oa, *rows("IDTReeS", "specialists", 0.9, 0.9)])
    assert "**.510 ± .014**" in specialists


def test_a_cell_keeps_every_digit_before_the_point() -> None:
    assert [cell(v) for v in ([], [0.5], [50.08], [0.2, 0.4], [30.0, 30.0])] == [
        "open",
        ".500",
        "50.080",
        ".300 ± .141",
        "30.000 ± .000",
    ]


@needs_shared
def test_boxes_of_crowns_lie_in_their_plots() -> None:
    import csv

    with (SHARED / "open" / "idtrees" / "crowns.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    cut = idtrees._cut(
        SHARED / "open" / "idtrees" / "plots" / row["plot"] / "CHM.tif", idtrees._box(row["wkt_epsg32617"]), 8
    )
    assert cut.shape == (1, 8, 8)
    assert 0 <= cut.min() <= cut.max() < 60


@needs_shared
def test_mamols_protocol_draws_100_pixels_a_class_and_tests_the_others() -> None:
    benchmark = houston2013.read_random(SHARED, Path())
    split = benchmark.protocols["random"][0]
    train, validate, test = parts(split)
    assert len(train) + len(validate) + len(test) == len(train | validate | test) == 2832
    known = np.concatenate([split.train, split.validate])
    assert np.bincount(benchmark.labels[known]).tolist() == [100] * 15
    assert all(benchmark.data["hsi"][i].any() for i in test)  # the official test pixels have no spectra
