"""MaMOL: what an absent sensor, an invalid pixel and the start of training may and may not do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from networks import close  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from mmedge.edge.models.galileo import MASKED, Attention, Galileo  # noqa: E402
from mmedge.edge.models.mamol import CHANNELS, SENSORS, MaMOL, MaMOLConfig, _borrow  # noqa: E402
from mmedge.edge.models.reach import halo_px  # noqa: E402
from mmedge.edge.training.fit import parameter_groups  # noqa: E402
from mmedge.edge.training.missingness import patterns  # noqa: E402

CONFIG = MaMOLConfig()
NEAR = MaMOLConfig(reaches=(0, 0, 1, 1))
CORE_PX = 48 * 48  # what a window of 64 px answers for: the overlap counts


def windows(
    sensors: tuple[str, ...] = SENSORS, batch: int = 2, seed: int = 1
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    rng = torch.Generator().manual_seed(seed)
    scale = {"optical": (0.15, 0.1), "sar": (-14.0, 4.0), "elevation": (8.0, 6.0)}
    data = {m: torch.randn(batch, CHANNELS[m], 64, 64, generator=rng) * scale[m][1] + scale[m][0] for m in sensors}
    valid = {m: torch.ones(batch, 1, 64, 64, dtype=torch.bool) for m in sensors}
    return data, valid


def trained(config: MaMOLConfig = CONFIG) -> MaMOL:
    """A model in which every path contributes: what starts at zero is drawn."""
    torch.manual_seed(0)
    model = MaMOL.on(Galileo(), config)
    for p in model.parameters():
        if p.requires_grad and not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return model.eval()


@pytest.fixture(scope="module", params=[CONFIG, NEAR], ids=["window", "near"])
def model(request: pytest.FixtureRequest) -> MaMOL:
    return trained(request.param).requires_grad_(False)


@pytest.mark.parametrize("variant", ["A", "B"])
@pytest.mark.parametrize("top_k", [1, 2])
def test_a_sensor_left_out_equals_one_that_is_nowhere_valid(variant: str, top_k: int) -> None:
    model = trained(replace(CONFIG, variant=variant, top_k=top_k)).requires_grad_(False)
    data, valid = windows()
    for present in patterns(SENSORS):
        hidden = {m: v if m in present else torch.zeros_like(v) for m, v in valid.items()}
        skipped = model({m: data[m] for m in present}, {m: valid[m] for m in present})
        close(skipped, model(data, hidden), atol=1e-4)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("reach", [0, 1, 2])
@pytest.mark.parametrize("uniform", [True, False])
def test_attention_of_limited_reach_is_attention_with_a_mask(groups: int, reach: int, uniform: bool) -> None:
    torch.manual_seed(reach)
    attention, (rows, cols) = Attention().requires_grad_(False), (6, 7)
    row, col = torch.arange(rows).repeat_interleave(cols), torch.arange(cols).repeat(rows)
    apart = torch.maximum((row[:, None] - row).abs(), (col[:, None] - col).abs())
    mask = torch.where(apart <= reach, 0.0, MASKED).repeat(groups, groups)
    x, seen = torch.randn(2, groups * rows * cols, 128), torch.ones(2, rows * cols)
    bias = None
    if not uniform:
        seen = (torch.rand(2, rows * cols) < 0.7).float()
        bias = ((1 - seen) * MASKED).repeat(1, groups)[:, None, None]
    found = attention.near(x, bias, (groups, rows, cols), reach)
    known = attention(x, mask if bias is None else mask + bias)
    counts = seen.repeat(1, groups)[..., None]  # what a removed token says is not used
    close(found * counts, known * counts, atol=1e-6)


def test_where_a_window_of_limited_reach_lies_changes_nothing() -> None:
    """Holes included: inside the halo, and a token more where tokens without sensors borrow from their neighbours."""
    model = trained(NEAR).requires_grad_(False)
    assert not model.sees_whole_window
    halo = halo_px(model)
    assert halo == 32
    halo += 8
    generator = torch.Generator().manual_seed(0)
    data = {m: torch.randn(1, c, 136, 136, generator=generator) for m, c in CHANNELS.items()}
    valid = {m: torch.ones(1, 1, 136, 136, dtype=torch.bool) for m in CHANNELS}
    for i, v in enumerate(valid.values()):
        v[..., 40 : 75 + i, 50 + 5 * i : 90] = False
    whole = model(data, valid)
    for row, col in ((0, 8), (8, 0), (8, 8)):
        window = np.s_[..., row : row + 128, col : col + 128]
        part = model({m: x[window] for m, x in data.items()}, {m: v[window] for m, v in valid.items()})
        close(part[..., halo:-halo, halo:-halo], whole[window][..., halo:-halo, halo:-halo], atol=1e-5)


@pytest.mark.parametrize("reaches", [(1, 1), (0, 0, 0, -1)])
def test_reaches_that_make_no_sense_are_refused(reaches: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="reaches"):
        MaMOLConfig(reaches=reaches)


def test_uniform_equals_mixed_where_every_token_has_every_sensor(model: MaMOL) -> None:
    for present in patterns(SENSORS):
        data, valid = windows(present)
        for m in present:
            valid[m][0, :, 3:5, 10:14] = False
        close(model(data, valid, uniform=True), model(data, valid), atol=1e-4)


@pytest.mark.parametrize("uniform", [True, False])
def test_nothing_under_an_invalid_pixel_leaks(model: MaMOL, uniform: bool) -> None:
    data, valid = windows()
    for i, m in enumerate(SENSORS):
        valid[m][:, :, 8 * i : 8 * i + 3, 5:60] = False
        if not uniform:
            valid[m][:, :, 30 : 40 + 8 * i, 20:50] = False
    poisoned = {m: x.masked_fill(~valid[m], float("nan")) for m, x in data.items()}
    out = model(poisoned, valid, uniform=uniform)
    assert out.isfinite().all()
    assert torch.equal(out, model({m: x.masked_fill(~valid[m], 1e9) for m, x in data.items()}, valid, uniform=uniform))


def test_a_valid_pixel_of_an_invalid_token_is_still_seen(model: MaMOL) -> None:
    data, valid = windows(("optical",))
    valid["optical"][:] = False
    valid["optical"][:, :, 20, 20] = True
    before = model(data, valid)
    data["optical"][:, :, 20, 20] += 0.2
    after = model(data, valid)
    assert (after - before)[:, :, 20, 20].abs().max() > 1e-3
    assert torch.equal(before[:, :, :16], after[:, :, :16])


def test_half_valid_tokens_count_and_lesser_ones_do_not(model: MaMOL) -> None:
    _, valid = windows(("sar",))
    valid["sar"][:, :, 8:16, 8:12] = False
    assert model._seen({"sar": F.avg_pool2d(valid["sar"].float(), 8)})[0, 9].tolist() == [0, 1, 0]
    valid["sar"][:, :, 8, 12] = False
    assert model._seen({"sar": F.avg_pool2d(valid["sar"].float(), 8)})[0, 9].tolist() == [0, 0, 0]


def test_a_token_without_sensors_borrows_from_its_neighbours() -> None:
    hidden = torch.randn(2, 64, 5)
    some = (torch.rand(2, 64, 1) < 0.4).float()
    grid, has = hidden.view(2, 8, 8, 5), some.view(2, 8, 8)
    for out, h, s in zip(_borrow(hidden, some, 8, 8).view(2, 8, 8, 5), grid, has, strict=True):
        for r in range(8):
            for c in range(8):
                rows, cols = slice(max(0, r - 1), r + 2), slice(max(0, c - 1), c + 2)
                around = h[rows, cols][s[rows, cols] > 0]
                lacking = s[r, c] == 0 and len(around) > 0
                close(out[r, c], around.mean(0) if lacking else h[r, c], atol=1e-5)


def test_removed_tokens_are_no_keys(model: MaMOL) -> None:
    """What a token holds that has too few valid pixels must not reach the logits of any other token."""
    data, valid = windows(("sar",))
    valid["sar"][:, :, 24:32, 24:32] = False
    valid["sar"][:, :, 24, 24:30] = True
    before = model(data, valid)
    data["sar"][:, :, 24, 24:30] += 5
    changed = (model(data, valid) - before).abs().amax((0, 1)) > 0
    assert changed[24, 25]
    assert not changed[:20].any()
    assert not changed[:, :20].any()


def test_training_starts_at_the_frozen_backbone_with_its_head() -> None:
    """W_o starts at zero, so adapters change nothing: the same model without any gives the same logits."""
    torch.manual_seed(0)
    galileo = Galileo()
    fresh, plain = MaMOL.on(galileo, CONFIG), MaMOL.on(galileo, replace(CONFIG, adapted_layers=0))
    plain.load_state_dict({k: v for k, v in fresh.state_dict().items() if not k.startswith("adapters")})
    for present in patterns(SENSORS):
        data, valid = windows(present)
        with torch.no_grad():
            assert torch.equal(fresh(data, valid), plain(data, valid))


@pytest.mark.parametrize("variant", ["A", "B"])
def test_the_gate_depends_on_what_is_missing(variant: str) -> None:
    model = trained(replace(CONFIG, variant=variant))
    data, valid = windows(("sar",))
    adapter = model.adapters[0]
    z, present = torch.randn(1, 64, 128), torch.tensor([0.0, 1.0, 0.0])
    gates = [adapter.gate(z, model.psi(1 - bits)) for bits in (present, torch.ones(3))]
    assert (gates[0] - gates[1]).abs().max() > 1e-3
    model(data, valid).square().mean().backward()
    assert model.psi.weight.grad is not None
    assert model.psi.weight.grad.abs().max() > 0
    for adapter in model.adapters:
        assert adapter.gate_missing.weight.grad.abs().max() > 0


def test_top_1_keeps_one_dynamic_expert_without_renormalising() -> None:
    adapter = trained(replace(CONFIG, top_k=1, dynamic=3)).adapters[0]
    soft = trained(replace(CONFIG, top_k=3, dynamic=3)).adapters[0]
    z, missing = torch.randn(2, 64, 128), torch.randn(8)
    hard, full = adapter.gate(z, missing), soft.gate(z, missing)
    assert ((hard > 0).sum(-1) == 1).all()
    close(hard.amax(-1), full.amax(-1), atol=1e-6)


def test_variant_b_uses_the_expert_of_its_own_tower_alone() -> None:
    for variant, touched in (("A", {0, 1}), ("B", {1})):
        model = trained(replace(CONFIG, variant=variant))
        z = torch.randn(2, 64, 128)
        adapter = model.adapters[0]
        adapter(z, torch.zeros(8), 1, None, (0, 1)).square().sum().backward()
        special = adapter.down.grad[CONFIG.dynamic + 1 :].abs().amax((1, 2))
        assert {i for i, g in enumerate(special.tolist()) if g > 0} == touched


def test_every_trainable_parameter_is_in_exactly_one_group() -> None:
    model = MaMOL()
    groups = parameter_groups(model, 0.02)
    listed = [id(p) for g in groups for p in g["params"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(p) for p in model.parameters() if p.requires_grad}
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert {n.split(".")[0] for n in frozen} == {"stems", "blocks", "norm"}


def test_every_trainable_parameter_receives_a_gradient() -> None:
    model = trained()
    data, valid = windows()
    valid["sar"][:, :, :16] = False  # psi's weights answer to what is missing
    model(data, valid).square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())] == []


@pytest.mark.parametrize(("present", "budget"), [(SENSORS, 400), (("sar",), 60), (("elevation",), 60)])
def test_operations_per_output_pixel(model: MaMOL, present: tuple[str, ...], budget: float) -> None:
    data, valid = windows(present, batch=1)
    with FlopCounterMode(display=False) as counter:
        model(data, valid, uniform=True)
    assert counter.get_total_flops() / CORE_PX <= budget * 1000


@pytest.mark.parametrize("uniform", [True, False])
def test_no_tensor_is_made_on_another_device(uniform: bool) -> None:
    """On `meta`, which every machine has, as on a GPU."""
    model = MaMOL(CONFIG).to("meta")
    data, valid = windows(("sar",))
    on_meta = [{m: x.to("meta") for m, x in maps.items()} for maps in (data, valid)]
    assert model(*on_meta, uniform=uniform).shape == (2, CONFIG.classes, 64, 64)
