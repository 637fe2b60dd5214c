"""What holds for every network: an absent sensor costs and says nothing, nothing invalid leaks, everything trains."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
from networks import CHANNELS, CLASSES, SIDE, close, labels, small, windows  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from mmedge.edge.models.encoders import Features  # noqa: E402
from mmedge.edge.models.network import Network, withheld  # noqa: E402
from mmedge.edge.models.plain import EncoderNetwork  # noqa: E402
from mmedge.edge.models.registry import METHODS, build  # noqa: E402
from mmedge.edge.training.fit import parameter_groups  # noqa: E402
from mmedge.edge.training.missingness import patterns  # noqa: E402
from mmedge.edge.training.tiling import tiling_of  # noqa: E402
from mmedge.errors import UsageError  # noqa: E402

SENSORS = tuple(CHANNELS)
KINDS = [
    *((m, "unet", "map") for m in METHODS),
    *((m, e, t) for m in ("mamol", "mars", "dymo") for e, t in (("vit", "map"), ("unet", "window"))),
    *((m, "relu", "map") for m in ("mamol", "mars", "dymo")),
    ("specialists", "vit", "window"),
]


def ready(method: str, encoder: str, task: str) -> Network:
    """A network for maps: DyMo's has the statistics without which it recovers nothing."""
    network = small(method, encoder, task)
    network.finish([(*windows(batch=6, seed=s), labels(task, 6, s)) for s in range(4)])
    return network.requires_grad_(False)


def test_what_these_tests_see_of_dymo_is_recovered_in_places() -> None:
    network = ready("dymo", "vit", "map")
    found = torch.stack([network.answers(*windows(present))[1].float().mean() for present in patterns(SENSORS)])
    assert (found > 0).sum() > 3
    assert found.max() < 0.6


@pytest.mark.parametrize(("method", "encoder", "task"), KINDS)
def test_a_sensor_left_out_equals_one_that_is_nowhere_valid(method: str, encoder: str, task: str) -> None:
    network = ready(method, encoder, task)
    data, valid = windows()
    shape = (2, CLASSES, SIDE, SIDE) if task == "map" else (2, CLASSES)
    for present in patterns(SENSORS):
        hidden = {m: v if m in present else torch.zeros_like(v) for m, v in valid.items()}
        skipped = network({m: data[m] for m in present}, {m: valid[m] for m in present})
        assert skipped.shape == shape
        close(skipped, network(data, hidden))


def test_a_mean_of_towers_is_as_large_as_their_sum_however_many_are_there() -> None:
    encoder = small("mamol", "relu").encoder
    one = torch.randn(1, 8, 4, 4)
    for joins in encoder.join:
        for layer in joins.values():
            torch.nn.init.zeros_(layer.bias)
            torch.nn.init.dirac_(layer.weight)
    seen = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    seen[..., :2] = True
    for sensors in patterns(SENSORS):
        features = {m: Features((one,), (None,)) for m in sensors}
        close(encoder.merge(features, -1), len(SENSORS) * one)
        half = features | {"optical": Features((one,), (seen,))}
        close(encoder.merge(half, -1)[..., :2], len(SENSORS) * one[..., :2])
    assert not encoder.merge({"optical": Features((one,), (seen,))}, -1)[..., 2:].any()


@pytest.mark.parametrize(("method", "encoder", "task"), KINDS)
def test_uniform_equals_mixed_where_every_square_has_every_sensor(method: str, encoder: str, task: str) -> None:
    network = ready(method, encoder, task)
    for present in patterns(SENSORS):
        data, valid = windows(present)
        for m in present:
            valid[m][0, :, 3, 10:12] = False
        for a, b in zip(network.answers(data, valid, uniform=True), network.answers(data, valid), strict=True):
            close(a.float(), b.float())


@pytest.mark.parametrize(("method", "encoder", "task"), KINDS)
def test_nothing_under_an_invalid_pixel_leaks(method: str, encoder: str, task: str) -> None:
    network = ready(method, encoder, task)
    data, valid = windows()
    for i, m in enumerate(SENSORS):
        valid[m][:, :, 8 * i : 8 * i + 9, 5:30] = False
    kept = torch.tensor([[True, False, True], [True, True, True]])
    poisons = [{m: x.masked_fill(~valid[m], value) for m, x in data.items()} for value in (float("nan"), 1e9)]
    out = [network(p, valid) for p in poisons]
    assert out[0].isfinite().all()
    assert torch.equal(*out)
    torch.manual_seed(3)
    terms = network.losses(poisons[0], valid, labels(task), kept)
    assert all(v.isfinite() for v in terms.values())
    holed = withheld(valid, kept, SENSORS)
    gone = {m: x.masked_fill(~holed[m], float("nan")) for m, x in data.items()}
    assert torch.equal(network(gone, holed), network(data, holed))


@pytest.mark.parametrize(("method", "encoder", "task"), KINDS)
def test_every_trainable_parameter_is_in_one_group_and_learns(method: str, encoder: str, task: str) -> None:
    network = small(method, encoder, task)
    moved: set[str] = set()
    for stage in range(network.stages):
        network.begin_stage(stage)
        trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
        listed = [id(p) for g in parameter_groups(network, 0.02) for p in g["params"]]
        assert sorted(listed) == sorted({id(p) for p in trained.values()})
        for i, pattern in enumerate(patterns(SENSORS)):
            torch.manual_seed(i)
            data, valid = windows(batch=6, seed=i)
            kept = torch.tensor([[m in pattern for m in SENSORS]] * 3 + [[True] * 3] * 3)
            sum(network.losses(data, valid, labels(task, 6), kept).values()).backward()
            network.end_epoch()  # DyMo's prototype loss begins later
        moved |= {n for n, p in trained.items() if p.grad is not None and p.grad.any()}
    assert {n for n, _ in network.named_parameters()} == moved


@pytest.mark.parametrize(("method", "encoder", "task"), KINDS)
def test_the_batch_does_not_matter(method: str, encoder: str, task: str) -> None:
    network = ready(method, encoder, task)
    data, valid = windows(batch=3)
    valid["sar"][0, :, :20] = False
    valid["optical"][2] = False
    whole = network(data, valid)
    for i in range(3):
        one = network({m: x[i : i + 1] for m, x in data.items()}, {m: v[i : i + 1] for m, v in valid.items()})
        close(one, whole[i : i + 1])


@pytest.mark.parametrize("method", METHODS)
def test_losses_in_half_precision(method: str) -> None:
    """As automatic mixed precision computes them: statistics stay in full precision."""
    network = small(method)
    data, valid = windows(batch=4)
    kept = torch.tensor([[True, False, True]] * 4)
    for _ in range(4):
        with torch.autocast("cpu", torch.bfloat16):
            terms = network.losses(data, valid, labels("map", 4), kept)
        network.end_epoch()
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    assert total.isfinite()


@pytest.mark.parametrize("method", METHODS)
def test_a_recipe_survives_json(method: str) -> None:
    network = small(method)
    again = build(json.loads(json.dumps(network.recipe)))
    assert {n: t.shape for n, t in again.state_dict().items()} == {n: t.shape for n, t in network.state_dict().items()}
    assert again.sensors == SENSORS


def test_an_absent_sensor_costs_nothing() -> None:
    network = small("dropout").requires_grad_(False)
    assert isinstance(network, EncoderNetwork)
    cost = {}
    for present in (("optical",), ("sar",), ("optical", "sar")):
        with FlopCounterMode(display=False) as counter:
            network.encoder.encode(*windows(present))
        cost[present] = counter.get_total_flops()
    assert cost["optical", "sar"] == cost["optical",] + cost["sar",]


@pytest.mark.parametrize("method", ["dropout", "mamol", "dymo"])
def test_a_halo_makes_windows_independent_of_their_surroundings(method: str) -> None:
    network = small(method).requires_grad_(False)
    tiling = tiling_of(network, 64, 8)
    assert tiling.kind == "convolutional"
    halo = tiling.halo_px
    assert 0 < halo < 40
    data, valid = windows(batch=1, side=128)
    valid["sar"][..., 40:70, 50:90] = False
    whole = network(data, valid)
    core = slice(halo, 100 - halo)
    for row, col in ((0, 0), (8, 4), (28, 20)):
        near = (..., slice(row, row + 100), slice(col, col + 100))
        part = network({m: x[near] for m, x in data.items()}, {m: v[near] for m, v in valid.items()})
        close(part[..., core, core], whole[near][..., core, core])


def test_networks_that_see_their_whole_window_say_so() -> None:
    for network in (small("dropout", "vit"), small("mars"), small("dropout", task="window")):
        assert network.sees_whole_window
    assert not small("mars", routing="pixel").sees_whole_window


@pytest.mark.parametrize(
    "wrong",
    [{"method": "moe"}, {"encoder": "resnet"}, {"task": "detect"}, {"options": {"experts": "many"}}, {"classes": None}],
)
def test_what_a_recipe_gets_wrong_is_named(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        build({"method": "mars", "channels": CHANNELS, "classes": CLASSES, **wrong})
