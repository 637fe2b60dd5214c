"""ONNX files that nobody vouches for: what they may read, and what they may be."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from small_networks import segmenter

from mmedge.edge.thirdparty.untrusted import read_onnx
from mmedge.errors import BundleError


def pointing(folder: Path, location: str) -> Path:
    """A network whose first weights lie elsewhere."""
    path = segmenter(folder / "net.onnx", inputs={"image": 4})
    model = onnx.load(path)
    weight = model.graph.initializer[0]
    data = weight.raw_data
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    (folder / "good.bin").write_bytes(data)
    onnx.save(model, path)
    return path


def test_external_data_beside_the_model_are_read(tmp_path: Path) -> None:
    model = read_onnx(pointing(tmp_path, "good.bin"))
    assert model.graph.initializer[0].raw_data == (tmp_path / "good.bin").read_bytes()


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "a/../../secret.bin", "..\\secret.bin", ""])
def test_external_data_that_leave_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(b"s" * 1152)
    (tmp_path / "in").mkdir()
    with pytest.raises(BundleError, match="outside its own folder"):
        read_onnx(pointing(tmp_path / "in", location))


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(b"s" * 1152)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(BundleError, match="outside its own folder"):
        read_onnx(pointing(tmp_path / "in", "link.bin"))


def test_weights_inside_a_node_are_looked_at_too(tmp_path: Path) -> None:
    tensor = TensorProto(name="inner", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret.bin")
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    branch = helper.make_graph([node], "branch", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])])
    outer = helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    graph = helper.make_graph([outer], "g", [condition], [helper.make_tensor_value_info("z", TensorProto.FLOAT, [4])])
    onnx.save(helper.make_model(graph), tmp_path / "net.onnx")
    with pytest.raises(BundleError, match="outside its own folder"):
        read_onnx(tmp_path / "net.onnx")


def test_what_lacks_its_weights_or_is_no_model_is_said(tmp_path: Path) -> None:
    path = pointing(tmp_path, "good.bin")
    (tmp_path / "good.bin").unlink()
    with pytest.raises(BundleError, match="lacks its weights"):
        read_onnx(path)
    path.write_bytes(b"no model")
    with pytest.raises(BundleError):
        read_onnx(path)
    with pytest.raises(BundleError, match="no such file"):
        read_onnx(tmp_path / "other.onnx")


def test_foreign_operators_are_refused(tmp_path: Path) -> None:
    path = segmenter(tmp_path / "net.onnx", inputs={"image": 4})
    model = onnx.load(path)
    model.graph.node[0].domain = "com.somebody"
    onnx.save(model, path)
    with pytest.raises(BundleError, match=r"com\.somebody"):
        read_onnx(path)
