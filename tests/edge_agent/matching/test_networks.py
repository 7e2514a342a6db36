from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edge_agent.matching.models import ModelError
from edge_agent.matching.networks import _gelus, session

Image = NDArray[np.float32]


def packed_model(rng: np.random.Generator) -> onnx.ModelProto:
    """A convolution with weights in blocks of two, an activation with slopes on both sides of 1, a scaled bias."""
    weights = {
        "packed": rng.integers(-128, 127, (3, 4)).astype(np.int8),
        "scales": rng.uniform(0.01, 0.1, (3, 2)).astype(np.float32),
        "zeros": rng.integers(-5, 5, (3, 2)).astype(np.int8),
        "shape": np.array([3, 4, 1, 1]),
        "slopes": np.array([0.25, 1.2, -0.3], np.float32)[:, None, None],
        "bias_packed": rng.integers(-128, 127, 3).astype(np.int8),
        "bias_scale": np.float32(0.05),
        "bias_zero": np.int8(3),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["packed", "scales", "zeros"], ["flat"], axis=1, block_size=2),
        helper.make_node("Reshape", ["flat", "shape"], ["weight"]),
        helper.make_node("DequantizeLinear", ["bias_packed", "bias_scale", "bias_zero"], ["bias"]),
        helper.make_node("Conv", ["image", "weight", "bias"], ["sum"]),
        helper.make_node("PRelu", ["sum", "slopes"], ["answer"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 4, 5, 5])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, [1, 3, 5, 5])
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "small", [image], [answer], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def shipped(folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str, str]:
    package = folder / "packed_network_for_test"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "net.onnx").write_bytes(content)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, package.name, raising=False)
    return package.name, "net.onnx", hashlib.sha256(content).hexdigest()


def test_an_unpacked_network_answers_as_the_standard_defines_the_packed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    model = packed_model(rng)
    name = shipped(tmp_path, model.SerializeToString(), monkeypatch)
    images: Image = rng.normal(size=(3, 4, 5, 5)).astype(np.float32)
    [found] = session(*name, free=(0,)).run(None, {"image": images})
    reference = ReferenceEvaluator(model)
    for image, answer in zip(images, found, strict=True):
        [expected] = reference.run(None, {"image": image[None]})
        assert answer == pytest.approx(expected[0], rel=1e-4, abs=1e-4)


def spelt_out_gelu() -> onnx.ModelProto:
    parts = {"half": 0.5, "one": 1.0, "cube": 0.044715, "root": float(np.sqrt(2 / np.pi)), "three": 3.0}
    nodes = [
        helper.make_node("Pow", ["image", "three"], ["cubed"]),
        helper.make_node("Mul", ["cube", "cubed"], ["part"]),
        helper.make_node("Add", ["image", "part"], ["inner"]),
        helper.make_node("Mul", ["root", "inner"], ["scaled"]),
        helper.make_node("Tanh", ["scaled"], ["bent"]),
        helper.make_node("Add", ["one", "bent"], ["outer"]),
        helper.make_node("Mul", ["half", "image"], ["halved"]),
        helper.make_node("Mul", ["halved", "outer"], ["answer"]),
    ]
    shape = [1, 4, 5, 5]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, shape)
    initializers = [numpy_helper.from_array(np.float32(value), name) for name, value in parts.items()]
    graph = helper.make_graph(nodes, "gelu", [image], [answer], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_an_activation_spelt_out_is_run_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = spelt_out_gelu()
    assert _gelus(model.graph) == {"answer": "image"}
    name = shipped(tmp_path, model.SerializeToString(), monkeypatch)
    image: Image = np.linspace(-6, 6, 100, dtype=np.float32).reshape(1, 4, 5, 5)
    [found] = session(*name).run(None, {"image": image})
    [expected] = ReferenceEvaluator(model).run(None, {"image": image})
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", ["Tanh", "Add"])
def test_what_is_no_gelu_is_left_as_it_is(kind: str) -> None:
    model = spelt_out_gelu()
    next(node for node in model.graph.node if node.op_type == kind).op_type = "Relu"
    assert _gelus(model.graph) == {}


def test_a_model_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = shipped(tmp_path, b"\xff" * 64, monkeypatch)
    with pytest.raises(ModelError, match=r"net\.onnx is no ONNX model"):
        session(*name)
