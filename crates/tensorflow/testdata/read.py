"""Makes the files that the tests of `read` use. Needs TensorFlow; run in this folder: python read.py

bundle.index, bundle.data-*     a checkpoint of two shards: all element types, strings, a tensor in parts
tensors.txt                     TensorProto messages (base64) of all element types with their values
two_tags.pb                     a SavedModel with the tags [serve] and [serve, gpu], small
"""

import base64
import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import saved_model_pb2

tf1 = tf.compat.v1
tf1.disable_eager_execution()

DTYPES = ["float32", "float64", "int32", "uint8", "int16", "int8", "complex64", "int64", "bool", "bfloat16",
          "uint16", "complex128", "float16", "uint32", "uint64"]


def values(name):
    return np.array([[0, 1, 2], [3, 100, 1]], dtype=tf.as_dtype(name).as_numpy_dtype)


def bundle():
    with tf1.Graph().as_default():
        save = [(name, values(name)) for name in DTYPES]
        save.append(("text", np.array([b"", b"a", b"bc" * 100], dtype=object)))
        save.append(("scalar", np.float32(2.5)))
        first = tf.raw_ops.SaveV2(prefix="part-0", tensor_names=[n for n, _ in save], shape_and_slices=[""] * len(save),
                                  tensors=[tf.constant(v) for _, v in save])
        whole = np.arange(24, dtype=np.float32).reshape(4, 6)
        slices = [(0, 1, 0, 4), (1, 3, 0, 4), (0, 4, 4, 2)]
        second = tf.raw_ops.SaveV2(
            prefix="part-1", tensor_names=["parts/é"] * 3,
            shape_and_slices=[f"4 6 {r},{h}:{c},{w}" for r, h, c, w in slices],
            tensors=[tf.constant(whole[r:r + h, c:c + w]) for r, h, c, w in slices])
        with tf.control_dependencies([first, second]):
            merge = tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=["part-0", "part-1"], destination_prefix="bundle")
        with tf1.Session() as session:
            session.run(merge)


def tensors():
    lines = []
    for name in DTYPES:
        value = values(name)
        content = tf.make_tensor_proto(value)
        fields = tensor_pb2.TensorProto(dtype=content.dtype, tensor_shape=content.tensor_shape)
        flat = value.reshape(-1)
        if name in ("float16", "bfloat16"):
            fields.half_val.extend(int(x) for x in flat.view(np.uint16))
        elif name in ("complex64", "complex128"):
            target = fields.scomplex_val if name == "complex64" else fields.dcomplex_val
            for x in flat:
                target.extend([x.real, x.imag])
        else:
            field = {"float32": "float_val", "float64": "double_val", "int64": "int64_val", "bool": "bool_val",
                     "uint32": "uint32_val", "uint64": "uint64_val"}.get(name, "int_val")
            getattr(fields, field).extend(flat.tolist())
        for proto in (content, fields):
            lines.append(f"{name} {base64.b64encode(proto.SerializeToString()).decode()} {value.tobytes().hex()}")
    with open("tensors.txt", "w") as file:
        file.write("\n".join(lines) + "\n")


def two_tags():
    model = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    for tags in (["serve"], ["serve", "gpu"]):
        with tf1.Graph().as_default() as graph:
            x = tf1.placeholder(tf.float32, [None, 3], name="x")
            tf.identity(tf.nn.relu(x * tf.constant([1.0, 2.0, 3.0])), name="y" + str(len(tags)))
            meta = model.meta_graphs.add()
            meta.graph_def.CopyFrom(graph.as_graph_def())
        meta.meta_info_def.tags.extend(tags)
    with open("two_tags.pb", "wb") as file:
        file.write(model.SerializeToString())


bundle()
tensors()
two_tags()
