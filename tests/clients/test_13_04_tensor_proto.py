"""Conformance 4: how a TensorProto is read."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

import graphs
from server import arrays, floats, refused

# What each type is written as in the typed fields.
FIELD = {
    "float": "float_val",
    "half": "half_val",
    "int8": "int_val",
    "uint8": "int_val",
    "int32": "int_val",
    "int64": "int64_val",
    "bool": "bool_val",
}
DTYPES = list(graphs.DTYPES)


def proto(dtype, dims, values=None, content=None):
    made = tensor_pb2.TensorProto(dtype=getattr(types_pb2, f"DT_{dtype.upper()}"))
    for dim in dims:
        made.tensor_shape.dim.add(size=dim)
    if values is not None:
        getattr(made, FIELD[dtype]).extend(values)
    if content is not None:
        made.tensor_content = content
    return made


def numpy_type(dtype):
    return tf.dtypes.as_dtype(dtype).as_numpy_dtype


def echo(shared, dtype, tensor):
    return arrays(shared.predict(f"identity_{dtype}", {"x": tensor}))["y"]


def raw(dtype, values):
    """Values as the typed field takes them: a half is its 16 bits."""
    array = np.array(values, numpy_type(dtype))
    return array.view(np.uint16).tolist() if dtype == "half" else array.tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("given", "read"),
    [
        pytest.param([1, 0, 1], [1, 0, 1], id="as_many"),
        pytest.param([0, 1], [0, 1, 1], id="repeat_last"),
        pytest.param([], [0, 0, 0], id="none_is_zero"),
        pytest.param([1, 0, 1, 0, 0], [1, 0, 1], id="surplus_ignored"),
    ],
)
def test_13_04_typed_fields(shared, dtype, given, read):
    found = echo(shared, dtype, proto(dtype, [3], raw(dtype, given)))
    assert found.dtype == numpy_type(dtype)
    np.testing.assert_array_equal(found, np.array(read, numpy_type(dtype)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_13_04_tensor_content_wins_over_the_typed_field(shared, dtype):
    values = np.array([1, 0, 1], numpy_type(dtype))
    tensor = proto(dtype, [3], raw(dtype, [0, 0, 0]), values.tobytes())
    np.testing.assert_array_equal(echo(shared, dtype, tensor), values)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b * 2])
def test_13_04_tensor_content_of_a_wrong_length(shared, dtype, change):
    values = np.array([1, 0, 1], numpy_type(dtype))
    with refused("INVALID_ARGUMENT", "tensor parsing error: x"):
        echo(shared, dtype, proto(dtype, [3], content=change(values.tobytes())))


@pytest.mark.parametrize(
    "dims",
    [
        pytest.param([-1], id="minus_one"),
        pytest.param([2**62, 2**62], id="overflow"),
        pytest.param([-(2**63)], id="least"),
    ],
)
def test_13_04_shapes_that_are_refused(shared, dims):
    with refused("INVALID_ARGUMENT", "tensor parsing error: x"):
        echo(shared, "float", proto("float", dims, [1.0]))


def test_13_04_one_value_repeated_to_a_terabyte_is_refused_by_name(shared):
    before = shared.memory("VmHWM")
    with refused("INVALID_ARGUMENT", "'x'"):
        echo(shared, "float", proto("float", [2**38], [1.0]))
    assert shared.memory("VmHWM") < before + (30 << 20)


def test_13_04_an_unknown_rank_is_refused(shared):
    tensor = proto("float", [], [1.0])
    tensor.tensor_shape.unknown_rank = True
    with refused("INVALID_ARGUMENT", "tensor parsing error: x"):
        echo(shared, "float", tensor)


@pytest.mark.parametrize("number", [0, 999])
def test_13_04_a_type_that_is_none(shared, number):
    tensor = proto("float", [1], [1.0])
    tensor.dtype = number
    with refused("INVALID_ARGUMENT", "tensor parsing error: x"):
        echo(shared, "float", tensor)


def test_13_04_zero_elements_need_no_data(shared):
    assert echo(shared, "float", proto("float", [0])).shape == (0,)


def test_13_04_a_scalar_is_one_element(shared):
    answer = arrays(shared.predict("scalar", {"x": proto("float", [], [7.0])}))["y"]
    assert answer.shape == () and answer == 7.0


def test_13_04_values_survive(shared):
    extremes = {
        "float": [np.float32(3.4e38), -0.0, np.inf, np.float32(1e-45)],
        "int32": [2**31 - 1, -(2**31)],
        "int8": [-128, 127],
        "uint8": [0, 255],
        "half": [65504.0, -0.5],
    }
    for dtype, values in extremes.items():
        wanted = np.array(values, numpy_type(dtype))
        np.testing.assert_array_equal(echo(shared, dtype, tf.make_tensor_proto(wanted)), wanted)


def test_13_04_not_a_number_passes(shared):
    assert np.isnan(echo(shared, "float", tf.make_tensor_proto(floats(np.nan)))).all()
