"""Every method's graphs against the eager network, on real crops; and its weights file against the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import pytest

torch = pytest.importorskip("torch")
from networks import small  # noqa: E402

from mmedge.bundle import Tiling, graph_href  # noqa: E402
from mmedge.edge.export import WEIGHTS, export_graphs, load_eager, save_weights, to_onnx  # noqa: E402
from mmedge.edge.models.mars import Mars  # noqa: E402
from mmedge.edge.models.network import Network  # noqa: E402
from mmedge.edge.models.registry import METHODS, build  # noqa: E402
from mmedge.edge.training.samples import cut, read_scene, with_relief  # noqa: E402
from mmedge.edge.training.score import tensors  # noqa: E402
from mmedge.modality import Availability  # noqa: E402

CHANNELS = {"optical": 9, "sar": 2, "elevation": 2}
SENSORS = tuple(CHANNELS)
TOLERANCE = 1e-4
Arrays = dict[str, np.ndarray]
UNET: dict[str, Any] = {"widths": [8, 16], "width": 16, "depth": 1}
SMALL: dict[str, dict[str, Any]] = {
    "unet": {"encoder": "unet", "encoder_options": UNET},
    "relu": {"encoder": "unet", "encoder_options": {"style": "relu", **UNET}},
    "vit": {"encoder": "vit", "encoder_options": {"tokens": 32, "depth": 1}},
}
Options = dict[str, Any]
# Method, its options, encoder, task, sensors, mixed. Every graph of a bundle is compared when `mmedge train` makes it.
GRAPHS: list[tuple[str, Options, str, str, str, bool]] = [
    ("mamol", {"variant": "B"}, "unet", "map", "sar+elevation", True),
    ("mamol", {"variant": "A", "top_k": 1}, "vit", "map", "optical+sar", True),
    ("mamol", {"variant": "A", "top_k": 1}, "relu", "map", "optical+sar", True),
    ("mamol", {"adapted": "coarsest"}, "relu", "map", "sar+elevation", False),
    ("mars", {}, "unet", "map", "optical+sar", False),
    ("mars", {}, "vit", "map", "optical+sar", True),
    ("mars", {"routing": "pixel"}, "unet", "map", "sar", True),
    ("dymo", {}, "unet", "map", "optical+sar", True),
    ("dymo", {"distance": "euclid"}, "vit", "map", "sar+elevation", True),
    ("impute-all", {}, "vit", "window", "sar", False),
    ("dropout", {}, "vit", "map", "sar+elevation", True),
    ("mean-fill", {}, "unet", "map", "sar", False),
    ("zero-fill", {}, "unet", "map", "optical+sar", True),
    ("specialists", {}, "unet", "map", "sar+elevation", True),
]


@pytest.fixture(scope="module")
def crops(shared_data: Path) -> tuple[Arrays, Arrays, np.ndarray]:
    """Three windows of the Chile scene: data as the network sees them, valid, labels."""
    scene = read_scene(shared_data / "open/terramesh/433D_629L_3_1")
    origins = np.array([[0, 0], [80, 90], [160, 100]])
    data, valid = cut(scene, origins, 64)
    labels = np.stack([scene.labels[r : r + 64, c : c + 64] for r, c in origins])
    return with_relief(data, valid), valid, labels


def network(
    method: str, options: Options, encoder: str, task: str, crops: tuple[Arrays, Arrays, np.ndarray]
) -> Network:
    """Every path contributes, and DyMo has statistics."""
    torch.manual_seed(0)
    recipe = {"method": method, "channels": CHANNELS, "classes": 7, "task": task, "options": options}
    made = build({**recipe, **SMALL[encoder]}).eval()
    for p in made.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    data, valid, labels = crops
    made.set_statistics(
        {m: torch.from_numpy(data[m].mean((0, 2, 3))) for m in SENSORS},
        {m: torch.from_numpy(data[m].std((0, 2, 3))) for m in SENSORS},
    )
    truth = torch.from_numpy(labels)
    made.finish([(tensors(data), tensors(valid), truth if task == "map" else truth[:, 32, 32])])
    return made


def holed(crops: tuple[Arrays, Arrays, np.ndarray], names: tuple[str, ...], *, mixed: bool) -> tuple[Arrays, Arrays]:
    """Uniform: a few invalid pixels. Mixed: holes besides that take whole squares away. Nothing but NaN in them."""
    data, valid = ({m: maps[m].copy() for m in names} for maps in crops[:2])
    for i, m in enumerate(names):
        valid[m][:, :, 8 * i + 2, 3:60:9] = False
        if mixed:
            valid[m][1, :, 20 : 44 + i, 8 * i : 40] = False
        data[m][~np.broadcast_to(valid[m], data[m].shape)] = np.nan
    return data, valid


def computes_the_chosen_experts_alone(graph: onnx.ModelProto) -> None:
    """The experts' weights are gathered by what the router says: no product has all of them as an operand."""
    for weight in ("experts.first", "experts.second"):
        assert {n.op_type for n in graph.graph.node if weight in n.input} == {"Gather"}
    assert not [t.name for t in graph.graph.initializer if "elevation" in t.name]  # and no tower of an absent sensor


@pytest.mark.parametrize(("method", "options", "encoder", "task", "name", "mixed"), GRAPHS)
def test_openvino_equals_eager(
    crops: tuple[Arrays, Arrays, np.ndarray],
    method: str,
    options: Options,
    encoder: str,
    task: str,
    name: str,
    mixed: bool,
) -> None:
    made, names = network(method, options, encoder, task, crops), tuple(name.split("+"))
    graph = to_onnx(made, names, mixed=mixed, align_px=None if made.sees_whole_window else made.token_px)
    if isinstance(made, Mars) and made.config.routing == "image":
        computes_the_chosen_experts_alone(graph)
    data, valid = holed(crops, names, mixed=mixed)
    core = ov.Core()
    model = core.read_model(graph.SerializeToString())
    assert [p.any_name for p in model.inputs] == [n for m in names for n in (m, f"{m}_valid")]
    for batch in (3, 1):
        feeds = {n: a[:batch] for m in names for n, a in ((m, data[m]), (f"{m}_valid", valid[m]))}
        model.reshape({n: list(a.shape) for n, a in feeds.items()})
        found = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(feeds)
        with torch.no_grad():
            some = (tensors({m: a[:batch] for m, a in maps.items()}) for maps in (data, valid))
            expected = made.answers(*some, uniform=not mixed)
        for output, reference in zip(made.outputs, expected, strict=True):
            assert np.isfinite(found[output]).all()
            assert np.abs(found[output] - reference.numpy()).max() <= TOLERANCE


def test_files_hold_the_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    recipe = {"method": "dropout", "channels": {"b": 2}, "classes": 3, "encoder_options": UNET}
    made = build(recipe).eval()
    tiling = Tiling(kind="attention", window_px=32, halo_px=0, align_px=32, token_px=1)
    paths = export_graphs(made, tmp_path, tiling)
    availability = Availability.every(("b",))[0]
    assert paths == [tmp_path / graph_href(availability, precision="fp32", mixed=m) for m in (False, True)]
    feeds = {"b": np.random.default_rng(0).normal(size=(2, 2, 32, 32)).astype(np.float32)}
    valid = {"b": np.ones((2, 1, 32, 32), np.bool_)}
    with torch.no_grad():
        expected = load_eager(tmp_path)(tensors(feeds), tensors(valid)).numpy()
        np.testing.assert_array_equal(expected, made(tensors(feeds), tensors(valid)).numpy())
    for path in paths:
        assert b"/tmp" not in path.read_bytes()
        compiled = ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        assert np.abs(compiled({**feeds, "b_valid": valid["b"]})["logits"] - expected).max() <= TOLERANCE


@pytest.mark.parametrize("method", METHODS)
def test_weights_rebuild_the_network(method: str, tmp_path: Path) -> None:
    made = small(method, "vit")
    (tmp_path / "graphs").mkdir()
    save_weights(made, tmp_path / "graphs" / WEIGHTS)
    again = load_eager(tmp_path)
    assert type(again) is type(made)
    assert again.recipe == made.recipe
    assert again.sensors == made.sensors
    for name, tensor in made.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
