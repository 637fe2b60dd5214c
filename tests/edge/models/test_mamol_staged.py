"""MaMOL on a backbone of its own: two stages, and adapters that know what each square has."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
from networks import CHANNELS, CLASSES, SMALL, close, labels, small, windows  # noqa: E402

from mmedge.edge.models.adapters import Adapter  # noqa: E402
from mmedge.edge.models.mamol_staged import StagedConfig, StagedMaMOL  # noqa: E402
from mmedge.edge.models.registry import build  # noqa: E402
from mmedge.edge.training.missingness import patterns  # noqa: E402
from mmedge.errors import UsageError  # noqa: E402

SENSORS = tuple(CHANNELS)
BASE = {"channels": CHANNELS, "classes": CLASSES}


def staged(encoder: str = "unet", **options: object) -> StagedMaMOL:
    network = small("mamol", encoder, **options)
    assert isinstance(network, StagedMaMOL)
    return network


@pytest.mark.parametrize(
    ("encoder", "options"), [("unet", {}), ("relu", {}), ("vit", {}), ("unet", {"adapted": "none"})]
)
def test_training_starts_at_the_frozen_backbone(encoder: str, options: dict[str, str]) -> None:
    """W_o starts at zero: fresh adapters change no logit of the network of stage 0. Nor does having none."""
    recipe = {**SMALL[encoder], **BASE}
    fresh, plain = build({"method": "mamol", "options": options, **recipe}), build({"method": "dropout", **recipe})
    missing = plain.load_state_dict(
        {n: t for n, t in fresh.state_dict().items() if n.split(".")[0] in {"encoder", "head"}}
    )
    assert not missing.missing_keys
    for present in patterns(SENSORS):
        data, valid = windows(present)
        with torch.no_grad():
            assert torch.equal(fresh(data, valid), plain(data, valid))


def test_stages_train_the_backbone_and_then_the_adapters() -> None:
    network = staged()
    parts = []
    for stage in range(network.stages):
        network.begin_stage(stage)
        trained = {n.removeprefix("encoder.") for n, p in network.named_parameters() if p.requires_grad}
        parts.append({n.split(".")[0] for n in trained})
    backbone, fusion, adapters = {"towers", "trunk", "up", "blocks", "out"}, {"join", "head"}, {"psi", "adapters"}
    assert parts == [backbone | fusion, fusion | adapters]


def test_the_first_stage_trains_on_complete_data() -> None:
    network = staged()
    data, valid = windows()
    truth, some = labels("map"), torch.tensor([[True, False, False]] * 2)
    both = some, torch.ones_like(some)
    losses = []
    for stage in (0, 1):
        network.begin_stage(stage)
        losses.append([float(network.losses(data, valid, truth, k)["task"].detach()) for k in both])
    assert losses[0][0] == losses[0][1]
    assert losses[1][0] != losses[1][1]


def test_the_gate_depends_on_what_is_missing() -> None:
    network = staged()
    network.begin_stage(1)
    network(*windows(("sar",))).square().mean().backward()
    assert network.psi.weight.grad is not None
    assert network.psi.weight.grad.abs().max() > 0
    for adapter in network.adapters.values():
        if any(p.grad is not None for p in adapter.parameters()):
            assert adapter.gate_missing.weight.grad.abs().max() > 0


@pytest.mark.parametrize(("variant", "expected"), [("A", {0, 1}), ("B", {1})])
def test_experts_of_a_tower_and_of_the_fused_blocks(variant: str, expected: set[int]) -> None:
    network = staged(variant=variant)
    network.begin_stage(1)
    network(*windows(("optical", "sar"))).square().mean().backward()
    for name, wanted in (("sar_0", expected), ("trunk_0", {0, 1})):
        adapter = network.adapters[name]
        special = adapter.down.grad[network.config.dynamic + 1 :].abs().amax((1, 2))
        assert {i for i, g in enumerate(special.tolist()) if g > 0} == wanted


def test_availability_is_decided_for_each_square() -> None:
    network = staged()
    _, valid = windows(("optical", "sar"))
    side = valid["sar"].shape[-1] // 4
    valid["sar"][:, :, :4, 4:6] = False
    assert network._seen(valid, 4)[0, 1].tolist() == [1, 1, 0]  # half of it is still there
    valid["sar"][:, :, 0, 6] = False
    assert network._seen(valid, 4)[0, 1].tolist() == [1, 0, 0]
    assert network._seen(valid, 4)[0, side + 1].tolist() == [1, 1, 0]


def test_only_the_coarsest_blocks_can_be_adapted() -> None:
    network = staged(adapted="coarsest")
    assert list(network.adapters) == [f"{m}_1" for m in SENSORS] + ["trunk_0"]
    data, valid = windows()
    close(network(data, valid, uniform=True), network(data, valid))


@pytest.mark.parametrize("sensor", [None, 1])
@pytest.mark.parametrize("options", [{}, {"variant": "A"}, {"top_k": 1}, {"special": False}])
def test_an_adapter_of_maps_is_that_of_rows(options: dict[str, Any], sensor: int | None) -> None:
    torch.manual_seed(0)
    adapter = Adapter(StagedConfig(**options), 6, 3)
    torch.nn.init.normal_(adapter.out.weight)
    z, missing, seen = torch.randn(2, 6, 4, 5), torch.randn(2, 8, 4, 5), torch.rand(2, 3, 4, 5).round()
    rows = [x.flatten(2).transpose(1, 2) for x in (z, missing, seen)]
    for at_once, bits in ((False, True), (False, False), (True, False)):
        adapter.at_once = at_once and adapter.config.top_k == 2
        as_maps = adapter(z, missing, sensor, seen if bits else None, (0, 1, 2))
        as_rows = adapter(*rows[:2], sensor, rows[2] if bits else None, (0, 1, 2))
        close(as_maps.flatten(2).transpose(1, 2), as_rows)


OFF = [{"shared": False}, {"special": False}, {"dynamic": 0}, {"aware": False}, {"dynamic": 0, "special": False}]


@pytest.mark.parametrize("options", OFF)
@pytest.mark.parametrize("variant", ["A", "B"])
def test_a_part_that_is_switched_off_is_not_there_and_the_rest_learns(variant: str, options: dict[str, object]) -> None:
    network, whole = staged(variant=variant, **options), staged(variant=variant)
    network.begin_stage(1)
    adapter, other = network.adapters["trunk_0"], whole.adapters["trunk_0"]
    experts = network.config.dynamic + network.config.shared + len(SENSORS) * network.config.special
    assert len(adapter.down) == experts
    assert sum(p.numel() for p in adapter.parameters()) < sum(p.numel() for p in other.parameters())
    trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
    for present in patterns(SENSORS):
        data, valid = windows(present)
        valid[present[0]][:, :, :16, :16] = False
        network(data, valid).square().mean().backward()
    assert [n for n, p in trained.items() if p.grad is None or not p.grad.any()] == []


def test_an_adapter_without_experts_is_refused() -> None:
    with pytest.raises(UsageError, match="an adapter needs an expert"):
        staged(dynamic=0, shared=False, special=False)


@pytest.mark.parametrize("encoder", ["unet", "relu"])
@pytest.mark.parametrize("variant", ["A", "B"])
def test_weights_at_once_are_those_of_the_softmax(variant: str, encoder: str) -> None:
    network = staged(encoder, variant=variant)
    data, valid = windows(("optical", "sar"))
    fast = network(data, valid, uniform=True)
    assert all(adapter.at_once for adapter in network.adapters.values())
    for adapter in network.adapters.values():
        adapter.at_once = False
    close(network(data, valid, uniform=True), fast)
