"""The frozen Galileo towers under other methods: the same features as in MaMOL, and the same rules for what lacks."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from networks import close  # noqa: E402
from torch import Tensor  # noqa: E402

from mmedge.edge.models.galileo import Galileo  # noqa: E402
from mmedge.edge.models.galileo_encoder import GalileoEncoder  # noqa: E402
from mmedge.edge.models.mamol import CHANNELS, SENSORS, MaMOL  # noqa: E402
from mmedge.edge.models.network import Network  # noqa: E402
from mmedge.edge.models.registry import adopt, build  # noqa: E402
from mmedge.edge.training.missingness import patterns  # noqa: E402


def windows(sensors: tuple[str, ...] = SENSORS) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    rng = torch.Generator().manual_seed(1)
    data = {m: torch.rand(2, CHANNELS[m], 64, 64, generator=rng) for m in sensors}
    valid = {m: torch.ones(2, 1, 64, 64, dtype=torch.bool) for m in sensors}
    for i, m in enumerate(sensors):
        valid[m][0, :, 8 * i : 24, 5:40] = False
    return data, valid


def network(method: str) -> Network:
    torch.manual_seed(0)
    made = build({"method": method, "encoder": "galileo", "channels": CHANNELS, "classes": 7})
    adopt(made, MaMOL.on(Galileo()))
    return made.eval()


def test_features_are_those_of_mamols_towers() -> None:
    torch.manual_seed(0)
    mamol = MaMOL.on(Galileo()).requires_grad_(False)  # fresh adapters add nothing
    encoder = GalileoEncoder(CHANNELS).requires_grad_(False)
    encoder.adopt(mamol)
    data, valid = windows()
    features = encoder.encode(data, valid)
    for m in SENSORS:
        x = mamol.stem(m).normalise(data[m], valid[m])
        share = {s: torch.nn.functional.avg_pool2d(valid[s].float(), 8) for s in SENSORS}
        seen = mamol._seen(share)
        tokens = mamol.stem(m).tokens(x, valid[m], share[m])
        expected = mamol._tower(m, tokens, mamol.psi(1 - seen), seen, SENSORS, (8, 8))
        found = torch.where(features[m].seen[1], features[m].maps[1], 0.0).flatten(2).transpose(1, 2)
        close(found, expected)


@pytest.mark.parametrize("method", ["mars", "dymo", "mean-fill", "dropout"])
def test_absent_sensors_and_invalid_pixels(method: str) -> None:
    made = network(method).requires_grad_(False)
    data, valid = windows()
    poisoned = {m: x.masked_fill(~valid[m], float("nan")) for m, x in data.items()}
    close(made(poisoned, valid), made(data, valid))
    for present in patterns(SENSORS)[:4]:
        hidden = {m: v if m in present else torch.zeros_like(v) for m, v in valid.items()}
        skipped = made({m: data[m] for m in present}, {m: valid[m] for m in present})
        seen = torch.stack([valid[m] for m in present]).any(0).expand_as(skipped)
        close(torch.where(seen, skipped, 0.0), torch.where(seen, made(data, hidden), 0.0), 1e-4)


def test_the_backbone_is_frozen_and_statistics_are_means() -> None:
    made = network("mars")
    frozen = {".".join(n.split(".")[:2]) for n, p in made.named_parameters() if not p.requires_grad}
    assert frozen == {"encoder.stems", "encoder.blocks", "encoder.norm"}
    made.set_statistics(
        {m: torch.full((c,), 0.5) for m, c in CHANNELS.items()}, {m: torch.ones(c) for m, c in CHANNELS.items()}
    )
    assert all((t == 0.5).all() for n, t in made.state_dict().items() if n.endswith(".mean") and "stems" in n)


def test_other_sensors_are_refused() -> None:
    with pytest.raises(ValueError, match="hyperspectral"):
        GalileoEncoder({"hyperspectral": 48})
