"""ONNX models small enough to know every answer by heart, written when the tests run."""

import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BATCH = ["batch"]

# The types that the embedded engine computes in: name in TensorFlow Serving's REST and error texts -> ONNX type.
DTYPES = {
    "float": TensorProto.FLOAT,
    "half": TensorProto.FLOAT16,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}


def model(nodes, inputs, outputs, constants=()):
    """A model; inputs and outputs are `(name, ONNX type, shape)`, where a shape of None is not declared."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    # The checker asks for a declared shape; runtimes and exporters do not.
    if all(shape is not None for *_, shape in [*inputs, *outputs]):
        onnx.checker.check_model(made, full_check=True)
    return made


def affine(factor=0.5, offset=2.0, shape=BATCH):
    """y = factor * x + offset."""
    nodes = [helper.make_node("Mul", ["x", "factor"], ["scaled"]), helper.make_node("Add", ["scaled", "offset"], ["y"])]
    constants = [("factor", np.float32(factor)), ("offset", np.float32(offset))]
    value = TensorProto.FLOAT, shape
    return model(nodes, [("x", *value)], [("y", *value)], constants)


def add(dtype=TensorProto.FLOAT):
    """sum = a + b, product = a * b."""
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Mul", ["a", "b"], ["product"])]
    value = dtype, BATCH
    return model(nodes, [("a", *value), ("b", *value)], [("sum", *value), ("product", *value)])


def identity(dtype, shape=BATCH):
    """y = x."""
    return model([helper.make_node("Identity", ["x"], ["y"])], [("x", dtype, shape)], [("y", dtype, shape)])


def beyond_32_bits():
    """Adds a constant that 32 bits cannot hold."""
    value = TensorProto.INT64, BATCH
    nodes = [helper.make_node("Add", ["x", "five_billion"], ["y"])]
    return model(nodes, [("x", *value)], [("y", *value)], [("five_billion", np.int64(5_000_000_000))])


def slow(size=512):
    """Multiplies two matrices as often as the input says: it takes as long as a test asks it to."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("MatMul", ["state_in", "weights"], ["state_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_in", TensorProto.FLOAT, [size, size]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_out", TensorProto.FLOAT, [size, size]),
        ],
    )
    nodes = [
        helper.make_node("Squeeze", ["times", "axis"], ["count"]),
        helper.make_node("Loop", ["count", "", "weights"], ["last"], body=body),
        helper.make_node("ReduceSum", ["last"], ["total"], keepdims=0),
        helper.make_node("Unsqueeze", ["total", "axis"], ["y"]),
    ]
    constants = [("weights", np.eye(size, dtype=np.float32)), ("axis", np.array([0], np.int64))]
    return model(nodes, [("times", TensorProto.INT64, [1])], [("y", TensorProto.FLOAT, [1])], constants)


def save(made, folder, version=1) -> pathlib.Path:
    """Writes a version of a model so that a server sees it appear at once: under another name first."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / str(version)
    hidden = folder / f".{version}.tmp"
    hidden.mkdir()
    content = made if isinstance(made, bytes) else made.SerializeToString()
    (hidden / "model.onnx").write_bytes(content)
    hidden.rename(final)
    return final


BROKEN = b"this is not a model"


def write_all(folder):
    """The folder of models that most tests share."""
    save(affine(), folder / "half_plus_two", "00000123")
    save(affine(shape=None), folder / "half_plus_two_any", "00000123")
    save(affine(0.5, 3.0, shape=None), folder / "half_plus_three", "00000123")
    save(add(), folder / "add")
    save(identity(TensorProto.FLOAT, ["batch", 3]), folder / "grid")
    save(identity(TensorProto.FLOAT, [2, 3]), folder / "fixed")
    save(identity(TensorProto.FLOAT, []), folder / "scalar")
    save(slow(), folder / "slow")
    for name, dtype in DTYPES.items():
        save(identity(dtype), folder / f"identity_{name}")
    return folder
