"""Writes the golden files beside this script with TensorFlow's and Triton's own Python packages.

Run with tensorflow, tensorflow-serving-api and tritonclient installed:  python make.py
The files are committed; the tests read only those.
"""

import pathlib

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_log_pb2
from tritonclient.grpc import InferInput, InferRequestedOutput, service_pb2

HERE = pathlib.Path(__file__).parent


def write(name, data):
    (HERE / name).write_bytes(data)


def serialized(message):
    return message.SerializeToString(deterministic=True)


def values(dtype):
    """Two rows of three elements, of every kind that the type has."""
    if dtype == tf.string:
        return np.array([[b"", b"a", b"\xff\x00"], [b"bc", b"a" * 200, b"."]], dtype=object)
    if dtype == tf.bool:
        return np.array([[True, False, True], [False, False, True]])
    if dtype.is_complex:
        return np.array([[1 + 2j, -1j, 0], [3, 4 - 0.5j, 1j]], dtype=dtype.as_numpy_dtype)
    if dtype.is_floating:
        return np.array([[0.5, -2.0, 3.0], [0.0, 1.0, -0.25]]).astype(dtype.as_numpy_dtype)
    low = dtype.min if dtype.min < 0 else 0
    return np.array([[0, 1, 2], [low, dtype.max, 7]], dtype=dtype.as_numpy_dtype)


DTYPES = [
    tf.float32, tf.float64, tf.int32, tf.uint8, tf.int16, tf.int8, tf.string, tf.complex64, tf.int64, tf.bool,
    tf.bfloat16, tf.uint16, tf.complex128, tf.half, tf.uint32, tf.uint64,
]


def tensor(array, dtype):
    return tf.make_tensor_proto(array, dtype=dtype)


def fields_only(proto):
    """The same tensor with its elements in the repeated field of its type."""
    array = tf.make_ndarray(proto)
    flat = array.flatten()
    out = type(proto)(dtype=proto.dtype, tensor_shape=proto.tensor_shape)
    dtype = tf.as_dtype(proto.dtype)
    if dtype == tf.float32:
        out.float_val.extend(flat.tolist())
    elif dtype == tf.float64:
        out.double_val.extend(flat.tolist())
    elif dtype in (tf.half, tf.bfloat16):
        out.half_val.extend(flat.view(np.uint16).tolist())
    elif dtype == tf.int64:
        out.int64_val.extend(flat.tolist())
    elif dtype == tf.uint32:
        out.uint32_val.extend(flat.tolist())
    elif dtype == tf.uint64:
        out.uint64_val.extend(flat.tolist())
    elif dtype == tf.bool:
        out.bool_val.extend(flat.tolist())
    elif dtype == tf.complex64:
        out.scomplex_val.extend(flat.view(np.float32).tolist())
    elif dtype == tf.complex128:
        out.dcomplex_val.extend(flat.view(np.float64).tolist())
    elif dtype == tf.string:
        out.string_val.extend(flat.tolist())
    else:
        out.int_val.extend(flat.tolist())
    return out


def tensors():
    """One message per type: outputs maps `content` and `fields` to the same tensor in both forms."""
    for dtype in DTYPES:
        proto = tensor(values(dtype), dtype)
        both = predict_pb2.PredictResponse()
        both.outputs["content"].CopyFrom(proto)
        both.outputs["fields"].CopyFrom(fields_only(proto))
        write(f"tensor_{dtype.name}.bin", serialized(both))


def string_content():
    """The string tensor with tensor_content, which only a graph's constant folding or C++ writes."""
    array = values(tf.string).flatten().tolist()

    def varint(n):
        out = b""
        while n >= 128:
            out += bytes([n & 127 | 128])
            n >>= 7
        return out + bytes([n])

    proto = tf.make_tensor_proto(values(tf.string), dtype=tf.string)
    del proto.string_val[:]
    proto.tensor_content = b"".join(varint(len(s)) for s in array) + b"".join(array)
    # TensorFlow itself agrees with this reading.
    read = tf.raw_ops.ParseTensor(serialized=serialized(proto), out_type=tf.string)
    assert read.numpy().flatten().tolist() == array
    write("tensor_string_content.bin", serialized(proto))


def predict():
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "half_plus_two"
    request.model_spec.version.value = 123
    request.model_spec.signature_name = "serving_default"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0, 2.0, 5.0], dtype=tf.float32))
    request.output_filter.append("y")
    write("predict_request.bin", serialized(request))
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(request)
    untyped = prediction_log_pb2.PredictionLog()
    untyped.log_metadata.timestamp_secs = 7
    path = HERE / "warmup.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(serialized(log))
        writer.write(serialized(untyped))
        writer.write(serialized(log))


def metadata():
    """The response of TensorFlow Serving for a model `m` of one signature."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    signature = signatures.signature_def["serving_default"]
    signature.method_name = "tensorflow/serving/predict"
    x = signature.inputs["x"]
    x.name, x.dtype = "x:0", types_pb2.DT_FLOAT
    x.tensor_shape.dim.add(size=-1)
    x.tensor_shape.dim.add(size=64)
    y = signature.outputs["y"]
    y.name, y.dtype = "y:0", types_pb2.DT_INT64
    y.tensor_shape.unknown_rank = True
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = "m"
    response.model_spec.version.value = 3
    response.metadata["signature_def"].Pack(signatures, deterministic=True)
    write("metadata_response.bin", serialized(response))


def oip():
    x = InferInput("x", [2, 2], "FP32")
    x.set_data_from_numpy(np.array([[1, 2], [3, 4]], dtype=np.float32))
    s = InferInput("s", [2], "BYTES")
    s.set_data_from_numpy(np.array([b"ab", b""], dtype=object))
    request = service_pb2.ModelInferRequest(model_name="m", model_version="3", id="7")
    for one in (x, s):
        request.inputs.extend([one._get_tensor()])
        request.raw_input_contents.extend([one._get_content()])
    request.outputs.extend([InferRequestedOutput("y")._get_tensor()])
    write("oip_request.bin", serialized(request))


if __name__ == "__main__":
    tensors()
    string_content()
    predict()
    metadata()
    oip()
