"""DyMo: rewards, the choice, statistics, recovery."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from networks import CHANNELS, CLASSES, SIDE, close, labels, small, windows  # noqa: E402

from mmedge.edge.models.dymo import DyMo  # noqa: E402
from mmedge.edge.models.prototypes import Prototypes  # noqa: E402
from mmedge.edge.models.selection import Sets, choose, penalty, reward, similarity  # noqa: E402

SENSORS = tuple(CHANNELS)
SHARES = st.floats(0, 1, width=32)


def dymo(encoder: str = "unet", task: str = "map", **options: object) -> DyMo:
    """Trained on nothing, but with statistics: its choices are mixed."""
    network = small("dymo", encoder, task, **{"width": 8, "projection": 4, **options})
    assert isinstance(network, DyMo)
    network.finish([(*windows(batch=6, seed=s), labels(task, 6, s)) for s in range(4)])
    return network.requires_grad_(False)


@pytest.mark.parametrize("distance", ["cosine", "euclid"])
def test_a_candidate_that_changes_nothing_gains_nothing(distance: str) -> None:
    q, p = torch.rand(100), torch.rand(100)
    close(penalty(p, p, distance), torch.ones(100))
    close(reward((q, q), (p, p), distance), torch.zeros(100))


@settings(max_examples=100, deadline=None)
@given(before=SHARES, after=SHARES, q=SHARES, gain=SHARES, distance=st.sampled_from(["cosine", "euclid"]))
def test_the_penalty_only_penalises(before: float, after: float, q: float, gain: float, distance: str) -> None:
    similar = torch.tensor(before), torch.tensor(after)
    alpha = penalty(*similar, distance)
    assert 0 <= alpha <= 1
    assert alpha == 1 or after < before
    confidence = torch.tensor(q), torch.tensor(gain)
    assert reward(confidence, similar, distance) <= gain - q + 1e-6


def test_penalties_by_hand() -> None:
    p, u = torch.tensor(0.5), torch.tensor(0.2)
    close(penalty(p, u, "cosine"), torch.tensor(math.log(0.5) / math.log(0.2)))
    close(penalty(p, u, "euclid"), torch.tensor(0.4))
    close(penalty(u, p, "euclid"), torch.tensor(1.0))
    close(penalty(torch.tensor(1.0), u, "cosine"), u)  # no logarithm of 1: the ratio
    usual = similarity(torch.tensor([0.0, 1.96, 19.6]), torch.tensor([1.0, 1.0, 10.0]))
    close(usual, torch.tensor([1, 0.05, 0.05]), 1e-4)


def tables(rows: int = 400, candidates: int = 3, seed: int = 0) -> Sets:
    rng = torch.Generator().manual_seed(seed)
    confidence, similar = (torch.rand(rows, 2**candidates, generator=rng) for _ in range(2))
    start = torch.randint(2**candidates, (rows,), generator=rng)
    bits = 2 ** torch.arange(candidates)
    return Sets(confidence, similar, start, (start[:, None] & bits) == 0)


def by_the_book(sets: Sets, row: int) -> int:
    """The paper's loop for one row."""
    q, p = sets.confidence[row], sets.similarity[row]
    current, left = int(sets.start[row]), [i for i, o in enumerate(sets.open[row].tolist()) if o]
    while left:
        gains = {}
        for u in left:
            new = current + 2**u
            alpha = 1.0 if p[new] >= p[current] else math.log(p[current]) / math.log(p[new])
            gains[u] = alpha * float(q[new]) - float(q[current])
        left = [u for u in left if gains[u] > 0]
        if not left:
            break
        best = max(left, key=lambda u: gains[u])
        current += 2**best
        left.remove(best)
    return current


def test_the_choice_is_the_papers_loop() -> None:
    sets = tables()
    assert choose(sets, "cosine", rounds=3).tolist() == [by_the_book(sets, r) for r in range(len(sets.start))]


def test_what_was_observed_stays() -> None:
    sets = tables()
    chosen = choose(sets, "euclid", rounds=3)
    assert ((chosen & sets.start) == sets.start).all()
    assert (chosen != sets.start).any()


def test_the_order_of_candidates_does_not_matter() -> None:
    sets = tables()
    chosen = choose(sets, "cosine", rounds=3)

    def renamed(code: int, order: tuple[int, ...]) -> int:
        return sum(1 << order[i] for i in range(3) if code >> i & 1)

    for order in permutations(range(3)):
        column = torch.tensor([renamed(code, order) for code in range(8)])
        there = torch.empty_like(column)
        there[column] = torch.arange(8)
        back = torch.tensor([order.index(i) for i in range(3)])
        moved = Sets(sets.confidence[:, there], sets.similarity[:, there], column[sets.start], sets.open[:, back])
        assert torch.equal(choose(moved, "cosine", rounds=3), column[chosen])


def test_all_at_once_takes_every_positive_reward() -> None:
    sets = tables(candidates=2)
    chosen = choose(sets, "euclid", rounds=2, iterative=False, similar=False)
    for row, (start, end) in enumerate(zip(sets.start.tolist(), chosen.tolist(), strict=True)):
        q = sets.confidence[row]
        wanted = [u for u in range(2) if not start >> u & 1 and q[start + 2**u] > q[start]]
        assert end == start + sum(2**u for u in wanted)


@pytest.mark.parametrize(("encoder", "task"), [("unet", "map"), ("vit", "map"), ("unet", "window")])
def test_with_every_sensor_nothing_is_recovered(encoder: str, task: str) -> None:
    network = dymo(encoder, task)
    data, valid = windows()
    features = network.encoder.encode(data, valid)
    places = network._places(features)
    plain = network._classes(network.transformer(places.tokens, places.seen), places, features)
    for uniform in (True, False):
        logits, recovered = network.answers(data, valid, uniform=uniform)
        close(logits, plain)
        assert not recovered.any()


@pytest.mark.parametrize(("encoder", "task"), [("unet", "map"), ("vit", "map"), ("unet", "window")])
def test_the_output_says_what_was_recovered(encoder: str, task: str) -> None:
    network = dymo(encoder, task)
    data, valid = windows(("sar",), batch=6)
    logits, recovered = network.answers(data, valid, uniform=True)
    assert recovered.shape == ((6, 3, SIDE, SIDE) if task == "map" else (6, 3))
    assert not recovered[:, 1].any()  # it was observed
    network.prototypes.overall.zero_()  # every set is as good as another: none is added
    discarded, none = network.answers(data, valid, uniform=True)
    assert not none.any()
    same = recovered.flatten(1).sum(1) == 0
    close(logits[same], discarded[same])


def test_some_places_believe_and_others_do_not() -> None:
    network = dymo("vit")
    recovered = network.answers(*windows(("sar",), batch=8), uniform=True)[1]
    assert 0 < recovered[:, [0, 2]].float().mean() < 1


def test_accepting_all_or_none() -> None:
    data, valid = windows(("sar",))
    valid["sar"][:, :, :8] = False
    every, none = (dymo(accept=a).answers(data, valid)[1] for a in ("all", "none"))
    assert every[:, [0, 2], 8:].all()
    assert not every[:, :, :8].any()  # from nothing, nothing is recovered
    assert not none.any()


def test_a_place_without_sensors_recovers_nothing() -> None:
    data, valid = windows(("sar",))
    valid["sar"][:, :, :8] = False
    assert not dymo().answers(data, valid)[1][:, :, :8].any()


@pytest.mark.parametrize("distance", ["cosine", "euclid"])
def test_statistics_of_a_subset_are_those_of_its_projections(distance: str) -> None:
    torch.manual_seed(0)
    prototypes = Prototypes(2, 3, 4, distance, 0.1)
    z, truth = torch.randn(60, 4) + 1, torch.randint(3, (60,))
    with prototypes.collecting() as collect:
        for code, part in ((1, slice(0, 30)), (1, slice(30, 50)), (3, slice(50, 60))):
            collect(code, z[part], truth[part])
    unit = F.normalize(z, dim=-1) if distance == "cosine" else z
    for k in range(3):
        mine = unit[:50][truth[:50] == k]
        mean = mine.mean(0)
        delta = 1 - mine @ mean if distance == "cosine" else (mine - mean).norm(dim=-1)
        close(prototypes.mean[1, k], mean)
        close(prototypes.deviation[1, k], delta.square().mean().sqrt(), 1e-4)
        close(prototypes.overall[k], (mean + unit[50:][truth[50:] == k].mean(0)) / 2)
    q, p = prototypes.judge(z[:5, None], truth[:5, None], torch.tensor([1]))
    for i in range(5):
        c = prototypes.overall
        away = -(c @ unit[i]) if distance == "cosine" else (unit[i] - c).square().sum(-1)
        close(q[i, 0], (-away / 0.1).softmax(-1).max())
        mean, s = prototypes.mean[1, truth[i]], prototypes.deviation[1, truth[i]]
        delta = 1 - unit[i] @ mean if distance == "cosine" else (unit[i] - mean).norm()
        close(p[i, 0], torch.erfc(delta / s / math.sqrt(2)), 1e-5)


def test_prototypes_are_the_last_epochs_class_means() -> None:
    prototypes = Prototypes(2, 3, 4, "euclid", 0.1)
    z, truth = torch.randn(20, 4), torch.tensor([0, 1, -1, 1] * 5)
    prototypes.add(z[:10], truth[:10])
    prototypes.add(z[10:], truth[10:])
    assert not prototypes.moving.any()
    prototypes.end_epoch()
    for k in (0, 1):
        close(prototypes.moving[k], z[truth == k].mean(0))
    assert not prototypes.moving[2].any()
    prototypes.end_epoch()
    close(prototypes.moving[1], z[truth == 1].mean(0))  # an epoch without the class keeps it


def test_recovery_learns_without_moving_the_network() -> None:
    network = small("dymo")
    data, valid = windows(batch=4)
    network.losses(data, valid, labels("map", 4), torch.tensor([[True, False, False]] * 4))["recovery"].backward()
    touched = {n.split(".")[0] for n, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched == {"recover"}


def test_the_prototype_loss_begins_after_the_warm_up() -> None:
    network = small("dymo", warm_epochs=2)
    data, valid = windows(batch=4)
    kept = torch.ones(4, 3, dtype=torch.bool)
    found = []
    for _ in range(3):
        found.append("prototype" in network.losses(data, valid, labels("map", 4), kept))
        network.end_epoch()
    assert found == [False, False, True]


def test_a_place_takes_its_most_frequent_class() -> None:
    network = small("dymo")
    assert isinstance(network, DyMo)
    truth = torch.full((1, SIDE, SIDE), -1)
    truth[0, :4, :4] = torch.tensor([2, 2, 1, 3])
    truth[0, 5, 5] = 3
    found = network._token_labels(truth, network._places(network.encoder.encode(*windows(batch=1))))
    assert found.view(8, 8)[:2, :2].tolist() == [[2, -1], [-1, 3]]


def test_the_oracle_is_at_least_as_sure_of_the_truth() -> None:
    network = dymo(task="window")
    data, valid = windows(batch=6)
    truth = torch.tensor([0, 1, 2, 3, 0, 1])
    kept = torch.tensor([[False, True, False]] * 6)
    best = network.oracle(data, valid, truth, kept)
    assert best is not None
    chosen = network({"sar": data["sar"]}, {"sar": valid["sar"]}, uniform=True)
    sure, plain = (x.softmax(-1).gather(1, truth[:, None]) for x in (best, chosen))
    assert (sure >= plain - 1e-6).all()
    assert best.shape[1] == CLASSES


@pytest.mark.parametrize("encoder", ["unet", "vit"])
def test_where_nothing_is_seen_no_class_is_asked_for(encoder: str) -> None:
    network = small("dymo", encoder)
    data, valid = windows(batch=1)
    valid["sar"][..., :16, :] = False
    sar = torch.tensor([[False, True, False]])
    half, whole, none = labels("map", 1), labels("map", 1), torch.full((1, SIDE, SIDE), -1)
    half[:, :16] = -1
    for subset, some in ((sar, half), (~sar & False, none)):
        torch.manual_seed(0)
        network.config = replace(network.config, subsets=1)
        found, expected = (network.losses(data, valid, y, subset) for y in (whole, some))
        assert found["task"] == expected["task"]
        assert found["token"] == expected["token"]
    assert found["task"] == 0
