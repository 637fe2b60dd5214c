"""The shipped graphs against the eager network that their bundle rebuilds, in both CPU runtimes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import pytest

torch = pytest.importorskip("torch")
ort = pytest.importorskip("onnxruntime")

from mmedge.bundle import Bundle, open_bundle  # noqa: E402
from mmedge.edge.export import WEIGHTS, load_eager, save_weights, to_onnx  # noqa: E402
from mmedge.edge.models.galileo import Galileo  # noqa: E402
from mmedge.edge.models.mamol import CHANNELS, MaMOL, MaMOLConfig  # noqa: E402
from mmedge.edge.training.samples import cut, read_scene, with_relief  # noqa: E402
from mmedge.edge.training.score import tensors  # noqa: E402
from mmedge.modality import Availability  # noqa: E402

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared/data/open"
SCENE = SHARED / "terramesh/433D_629L_3_1"
TOLERANCE = 1e-4
GRAPHS = [(str(a), mixed) for a in Availability.every(("optical", "sar", "elevation")) for mixed in (False, True)]

Feeds = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle()


@pytest.fixture(scope="module")
def eager(bundle: Bundle) -> MaMOL:
    return load_eager(bundle.folder)


@pytest.fixture(scope="module")
def fresh(eager: MaMOL) -> onnx.ModelProto:
    return to_onnx(eager, ("sar",), mixed=False)


def feeds(availability: Availability, *, mixed: bool) -> Feeds:
    """Real windows of the Chile scene. Uniform: a few invalid pixels. Mixed: holes that take whole tokens away."""
    if not SCENE.is_dir():
        pytest.skip(f"the scene is not here: {SCENE}")
    origins = np.array([[0, 0], [80, 90], [160, 100]])
    data, valid = cut(read_scene(SCENE), origins, 64)
    for i, m in enumerate(availability.names):
        valid[m][:, :, 8 * i + 2 : 8 * i + 5, 3:60] = False
        if mixed:
            valid[m][1, :, 20 : 44 + i, 8 * i : 40] = False
            data[m][~np.broadcast_to(valid[m], data[m].shape)] = np.nan
    present = with_relief({m: data[m] for m in availability.names}, valid)
    return present | {f"{m}_valid": valid[m] for m in availability.names}


def expected(eager: MaMOL, inputs: Feeds, availability: Availability) -> np.ndarray:
    names = availability.names
    with torch.no_grad():
        out = eager(tensors({m: inputs[m] for m in names}), tensors({m: inputs[f"{m}_valid"] for m in names}))
    return out.numpy()


@pytest.mark.parametrize(("name", "mixed"), GRAPHS)
def test_openvino_equals_eager(bundle: Bundle, eager: MaMOL, name: str, mixed: bool) -> None:
    availability = Availability.parse(name, bundle.order)
    inputs = feeds(availability, mixed=mixed)
    core = ov.Core()
    model = core.read_model(bundle.graph(availability, precision="fp32", mixed=mixed))
    assert [p.any_name for p in model.inputs] == [n for m in availability for n in (m, f"{m}_valid")]
    model.reshape({n: list(a.shape) for n, a in inputs.items()})
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    out, reference = compiled(inputs)["logits"], expected(eager, inputs, availability)
    assert np.abs(out - reference).max() <= TOLERANCE
    top = np.sort(reference, axis=1)
    clear = top[:, -1] - top[:, -2] > 2 * TOLERANCE
    np.testing.assert_array_equal(out.argmax(1)[clear], reference.argmax(1)[clear])


@pytest.mark.parametrize(("name", "mixed"), GRAPHS)
def test_onnxruntime_equals_eager_at_any_batch(bundle: Bundle, eager: MaMOL, name: str, mixed: bool) -> None:
    availability = Availability.parse(name, bundle.order)
    inputs = feeds(availability, mixed=mixed)
    path = bundle.graph(availability, precision="fp32", mixed=mixed)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (3, 1):
        some = {n: np.ascontiguousarray(a[:batch]) for n, a in inputs.items()}
        (out,) = session.run(["logits"], some)
        assert np.abs(out - expected(eager, some, availability)).max() <= TOLERANCE


@pytest.mark.parametrize(("name", "mixed"), GRAPHS)
def test_graphs_hold_no_weights_of_their_own(bundle: Bundle, name: str, mixed: bool) -> None:
    path = bundle.graph(Availability.parse(name, bundle.order), precision="fp32", mixed=mixed)
    graph = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(str(path))
    assert path.stat().st_size < 100_000
    outside = [t for t in graph.graph.initializer if t.external_data]
    assert len(outside) > 50
    assert {e.value for t in outside for e in t.external_data if e.key == "location"} == {WEIGHTS}
    absent = set(bundle.order) - set(name.split("+"))
    assert not [t.name for t in outside for m in absent if t.name.startswith((f"stems.{m}", f"fuse.{m}"))]


def test_no_path_of_the_machine_is_in_a_graph(bundle: Bundle, fresh: onnx.ModelProto, tmp_path: Path) -> None:
    paths = [*bundle.folder.rglob("*.onnx")]
    assert len(paths) == 2 * len(GRAPHS)  # fp32 and int8
    places = [b".py", b"/tmp", bytes(ROOT), bytes(tmp_path)]
    for raw in (fresh.SerializeToString(), *(path.read_bytes() for path in paths)):
        assert not [place for place in places if place in raw]


def test_the_same_model_gives_the_same_files(bundle: Bundle, eager: MaMOL, tmp_path: Path) -> None:
    save_weights(eager, tmp_path / WEIGHTS)
    assert (tmp_path / WEIGHTS).read_bytes() == (bundle.folder / "graphs" / WEIGHTS).read_bytes()


def test_exporting_anew_gives_the_shipped_graph(bundle: Bundle, fresh: onnx.ModelProto) -> None:
    shipped = onnx.load(bundle.folder / "graphs/sar.fp32.onnx", load_external_data=False)
    assert [(n.op_type, list(n.input)) for n in fresh.graph.node] == [
        (n.op_type, list(n.input)) for n in shipped.graph.node
    ]


def test_the_frozen_backbone_ships_as_published(eager: MaMOL) -> None:
    """Without ../shared this still compares what can be computed: the position tables."""
    rows = torch.arange(8) * 8.0
    from mmedge.edge.models.galileo import sincos

    place = eager.stems["sar"].get_buffer("place_S1")
    mean = sincos(16, rows).mean(0)  # every token takes the mean place
    for quarter in (place[..., 96:112], place[..., 112:]):
        torch.testing.assert_close(quarter, mean.expand(8, 8, 16), atol=1e-6, rtol=0)
    torch.testing.assert_close(place[0, 0, 64:96], Galileo().month_embed.weight[6], atol=1e-6, rtol=0)


def test_a_graph_of_limited_reach_answers_like_the_network() -> None:
    """In windows wider than Galileo's grid, which only such a network can have."""
    torch.manual_seed(0)
    model = MaMOL(MaMOLConfig(reaches=(0, 1, 0, 1))).eval().requires_grad_(False)
    data = {m: torch.randn(2, CHANNELS[m], 80, 80) for m in ("optical", "sar")}
    valid = {m: torch.ones(2, 1, 80, 80, dtype=torch.bool) for m in data}
    graph = to_onnx(model, tuple(data), mixed=False, window_px=80)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {m: x.numpy() for m, x in data.items()} | {f"{m}_valid": v.numpy() for m, v in valid.items()}
    np.testing.assert_allclose(session.run(None, feeds)[0], model(data, valid, uniform=True).numpy(), atol=1e-4)
