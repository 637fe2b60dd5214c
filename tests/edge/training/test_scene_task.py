"""What `mmedge train` minimises: runs that were stopped end where unbroken ones do; parts stay apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled_scenes import MODALITIES as SENSORS
from labelled_scenes import SIZE, config, scenes

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from mmedge.bundle import Tiling  # noqa: E402
from mmedge.edge.evaluation.blocks import VALIDATE  # noqa: E402
from mmedge.edge.models.network import Network  # noqa: E402
from mmedge.edge.models.registry import build  # noqa: E402
from mmedge.edge.relief import TERRAIN_REACH_PX  # noqa: E402
from mmedge.edge.training.fit import FitConfig, fit  # noqa: E402
from mmedge.edge.training.missingness import patterns  # noqa: E402
from mmedge.edge.training.scene_task import SceneTask  # noqa: E402
from mmedge.edge.training.scenes import SceneSet  # noqa: E402
from mmedge.edge.training.tiling import tiling_of  # noqa: E402
from mmedge.edge.training.train import fitted  # noqa: E402
from mmedge.errors import UsageError  # noqa: E402

MODALITIES = {m.name for m in SENSORS}
FIT = FitConfig(steps=12, check_every=6, learning_rate=0.02)
TILING = Tiling(kind="attention", window_px=SIZE, halo_px=4, align_px=24, token_px=2)


def network(method: str, **options: Any) -> Network:
    torch.manual_seed(0)
    channels = {"optical": 2, "elevation": 2, "sar": 1}
    sizes = {"widths": [4, 8], "width": 4, "depth": 1, "kernel": 3}
    recipe = {"method": method, "channels": channels, "classes": 2, "encoder_options": sizes, "options": options}
    return build(recipe)


def learnable() -> SceneSet:
    """The scenes with a class that both sensors show: trees are bright, and loud."""
    made = scenes()
    told = []
    for scene in made.scenes:
        trees = (scene.labels == 1).astype(np.float32)
        data = {**scene.data, "optical": np.stack([trees, trees])}
        if "sar" in data:
            data["sar"] = -20 + 10 * trees[None]
        told.append(replace(scene, data=data))
    return replace(made, scenes=tuple(told))


def task(made: SceneSet, **changes: Any) -> SceneTask:
    fit_changes = {"batch": 2, "validate_windows": 6}
    return SceneTask(made, config(fit=fit_changes, **changes), TILING, torch.device("cpu"))


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_a_stopped_run_of_a_method_with_memory_goes_on_where_it_was(order: torch.memory_format, tmp_path: Path) -> None:
    """MARS counts patterns in buffers and asks for the next ones by them, once an epoch (of 4 steps here)."""
    options = {"experts": 4, "top_k": 2, "guided_from": 1}
    whole, broken, resumed = (network("mars", **options).to(memory_format=order) for _ in range(3))
    work = task(learnable(), missing={"sampler": "guided"})
    work.epoch_steps = 4
    fit(whole, work, FIT, folder=tmp_path / "whole", report=lambda _: None)

    class Stopped(Exception):
        pass

    def stop(line: str) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        fit(broken, work, FIT, folder=tmp_path / "broken", report=stop)
    fit(resumed, work, FIT, folder=tmp_path / "broken", report=lambda _: None)
    assert whole.get_buffer("epochs") >= 1
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_it_learns(tmp_path: Path) -> None:
    config_ = replace(FIT, steps=40, check_every=40, average=0.5, learning_rate=0.05)
    work = task(learnable(), missing={"holes": 0})
    model = network("dropout")
    model.set_statistics(*work.statistics())
    best = fit(model, work, config_, folder=tmp_path, report=lambda _: None)
    assert best["optical"] > 0.95
    assert best["selection"] == pytest.approx((best["accuracy"] + best["iou"]) / 2)


def test_validation_counts_validation_pixels_alone_and_where_a_sensor_saw() -> None:
    made = scenes()
    work = SceneTask(made, config(fit={"validate_windows": 10_000, "batch": 4}), TILING, torch.device("cpu"))
    found = work.confusions(network("dropout").eval())
    pixels = [
        int(((b.pixels() == VALIDATE) & (s.labels >= 0)).sum()) for b, s in zip(made.blocks, made.scenes, strict=True)
    ]
    assert found["optical"].pixels == sum(pixels)
    assert found["sar"].pixels == pixels[0]  # the second scene has none
    for _, valid, labels in work.validation():
        assert set(valid) == set(made.sensors)
        assert (labels[:, :4] == -1).all()


def test_statistics_are_those_of_valid_training_pixels() -> None:
    made = learnable()
    mean, deviation = task(made).statistics()
    assert -20 < float(mean["sar"]) < -15
    assert float(deviation["sar"]) > 2
    assert float(mean["elevation"].abs().max()) == 0


def test_domain_leaves_out_what_no_scene_has() -> None:
    pytest.importorskip("sklearn")
    made = scenes()
    without = replace(made, scenes=made.scenes[1:], blocks=made.blocks[1:], files=made.files[1:])
    assert set(task(without).domain()) == {"optical", "elevation"}


def test_windows_of_a_convolutional_network_have_the_halo_that_it_needs() -> None:
    unet = network("dropout")
    tiling = tiling_of(unet, 64, 8)
    assert tiling.kind == "convolutional"
    assert tiling.halo_px % tiling.align_px == 0
    assert tiling.stride_px >= 3 * tiling.halo_px
    assert tiling_of(unet, 64, 8, derives=["terrain"]).halo_px >= tiling.halo_px + TERRAIN_REACH_PX
    fixed = tiling_of(unet, 64, 8, derives=["relief"])
    assert (fixed.kind, fixed.window_px, fixed.halo_px) == ("attention", 64, 8)


@pytest.mark.parametrize("method", ["mamol", "dymo", "specialists", "zero-fill"])
def test_every_kind_of_method_goes_through_its_stages(method: str, tmp_path: Path) -> None:
    """Stages, epochs and last statistics are called for; the result classifies every set of sensors."""
    work = task(learnable(), missing={"sampler": "guided"})
    work.epoch_steps = 1
    run = config(network={"method": method}, fit={"steps": 2, "check_every": 1, "batch": 2, "validate_windows": 2})
    model = network(method)
    model.set_statistics(*work.statistics())
    fitted(model, work, run, tmp_path, say=lambda _: None, progress=lambda done, total: None)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"stage-{i}" for i in range(model.stages)]
    assert not any(p.requires_grad for p in model.parameters())
    data, valid, _ = next(iter(work.validation()))
    for sensors in patterns(model.sensors):
        logits = model({m: data[m] for m in sensors}, {m: valid[m] for m in sensors})
        assert logits.isfinite().all()


def test_a_split_without_validation_is_refused() -> None:
    made = scenes()
    blocks = tuple(replace(b, parts=np.where(b.parts == VALIDATE, 0, b.parts).astype(np.uint8)) for b in made.blocks)
    with pytest.raises(UsageError, match="no square validates"):
        task(replace(made, blocks=blocks))


def test_what_no_pixel_has_seen_has_no_score() -> None:
    made = scenes()
    told = tuple(replace(s, data={m: x for m, x in s.data.items() if m != "sar"}) for s in made.scenes)
    scores = task(replace(made, scenes=told)).validate(network("dropout").eval())
    assert "sar" not in scores
    assert scores["accuracy"] == pytest.approx(np.mean([v for k, v in scores.items() if "+" in k or k in MODALITIES]))


def test_a_stage_on_complete_data_is_judged_on_them() -> None:
    work, model = task(scenes()), network("mamol")
    work.begin_stage(model, 0)
    assert set(work.confusions(model.eval())) == {"optical+elevation+sar"}
    work.begin_stage(model, 1)
    assert len(work.confusions(model.eval())) == 7


def test_the_digest_is_that_of_all_that_training_reads() -> None:
    made = scenes()
    first = made.scenes[0]
    blocks = replace(made.blocks[0], parts=made.blocks[0].parts[::-1])
    changed = [
        made,
        replace(made, scenes=(replace(first, labels=first.labels + 0), *made.scenes[1:])),
        replace(made, scenes=(replace(first, labels=first.labels[::-1]), *made.scenes[1:])),
        replace(made, scenes=(replace(first, data={**first.data, "sar": first.data["sar"] + 1}), *made.scenes[1:])),
        replace(made, blocks=(blocks, *made.blocks[1:])),
    ]
    digests = [m.digest() for m in changed]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4
