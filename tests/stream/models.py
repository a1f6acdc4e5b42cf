"""Models whose every answer is known by heart, beside those of the client tests."""

import numpy as np
from onnx import TensorProto, helper

import graphs

FLOAT = TensorProto.FLOAT


def affine(offset=2.0, factor=0.5):
    """y = factor * x + offset, for x of one number a row."""
    return graphs.affine(factor, offset)


def whole(offset=2.0, factor=0.5):
    """The same for whole numbers, where nothing else may be sent."""
    nodes = [
        helper.make_node("Cast", ["x"], ["number"], to=FLOAT),
        helper.make_node("Mul", ["number", "factor"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["y"]),
    ]
    constants = [("factor", np.float32(factor)), ("offset", np.float32(offset))]
    shape = graphs.BATCH
    return graphs.model(nodes, [("x", TensorProto.INT32, shape)], [("y", FLOAT, shape)], constants)


def grid(rows, columns):
    """total = the sum of a row of shape [rows, columns], last = its last line."""
    nodes = [
        helper.make_node("ReduceSum", ["grid", "both"], ["total"], keepdims=0),
        helper.make_node("Gather", ["grid", "end"], ["last"], axis=1),
    ]
    constants = [("both", np.array([1, 2], np.int64)), ("end", np.array(rows - 1, np.int64))]
    inputs = [("grid", FLOAT, ["batch", rows, columns])]
    return graphs.model(nodes, inputs, [("total", FLOAT, ["batch"]), ("last", FLOAT, ["batch", columns])], constants)


def vector(width):
    """scaled = 2 * x, mean = the mean of x, for rows of so many numbers."""
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["scaled"]),
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=0),
    ]
    outputs = [("scaled", FLOAT, ["batch", width]), ("mean", FLOAT, ["batch"])]
    return graphs.model(nodes, [("x", FLOAT, ["batch", width])], outputs, [("two", np.float32(2.0))])


def colours(size):
    """The mean of each channel of a picture of size by size pixels."""
    nodes = [helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2], keepdims=0)]
    return graphs.model(nodes, [("pixels", FLOAT, ["batch", size, size, 3])], [("mean", FLOAT, ["batch", 3])])


def pair():
    """sum = a + b, product = a * b."""
    return graphs.add()


def slow():
    """y = the input, after so many multiplications of matrices as it says."""
    return graphs.slow()
