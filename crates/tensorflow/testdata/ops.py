"""Makes ops.bin: small graphs of TensorFlow operators with inputs and TensorFlow's answers. Needs TensorFlow;
run in this folder: python ops.py

The file is a row of GraphDef messages, each behind its length as a varint. In each, "given/NAME" is the value of the
placeholder NAME, and a node "want/I" holds the value of the tensor that its input names. The name of the case is in
the name of the first node, "case/NAME".
"""

import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
import numpy as np
import tensorflow as tf
from google.protobuf.internal.encoder import _VarintBytes
from tensorflow.python.framework import meta_graph, op_def_library, op_def_registry

tf1 = tf.compat.v1
tf1.disable_eager_execution()
raw = tf.raw_ops
rng = np.random.default_rng(7)
out = bytearray()
names = set()

f32, f64, i32, i64 = np.float32, np.float64, np.int32, np.int64


def case(name, make, *inputs, edit=None):
    """`make` gets one placeholder per array. `edit` changes the graph after TensorFlow has computed it, for operators
    that this TensorFlow no longer makes and that compute the same as a newer one."""
    assert name not in names, name
    names.add(name)
    with tf1.Graph().as_default() as graph:
        placeholders = []
        feeds = {}
        for at, value in enumerate(inputs):
            value = np.asarray(value)
            dtype = tf.string if value.dtype == object else tf.as_dtype(value.dtype)
            placeholder = tf1.placeholder(dtype, value.shape, name=f"x{at}")
            placeholders.append(placeholder)
            feeds[placeholder] = value
        try:
            made = make(*placeholders)
        except NotImplementedError as error:
            print("not in this TensorFlow:", name, "-", error)
            return
        if hasattr(made, "_fields"):
            made = list(made)
        outputs = made if isinstance(made, (list, tuple)) else [made]
        try:
            with tf1.Session(graph=graph) as session:
                answers = session.run(list(outputs), feeds)
        except (tf.errors.UnimplementedError, tf.errors.InternalError) as error:
            print("not computed by this TensorFlow:", name, "-", error.message.splitlines()[-1:])
            return
        definition = tf1.GraphDef()
        definition.node.add(name="case/" + name, op="NoOp")
        whole = tf1.MetaGraphDef(graph_def=graph.as_graph_def())
        if len(names) % 3:
            # As SavedModels are written: attributes with default values are left out.
            meta_graph.strip_graph_default_valued_attrs(whole)
        definition.node.extend(whole.graph_def.node)
        for node in definition.node:
            node.attr.pop("_output_shapes", None)
            if edit:
                edit(node)
        for placeholder, value in feeds.items():
            node = definition.node.add(name="given/" + placeholder.op.name, op="Const")
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
        for at, (tensor, answer) in enumerate(zip(outputs, answers)):
            node = definition.node.add(name=f"want/{at}", op="Const", input=[tensor.name])
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(answer, dtype=tensor.dtype))
    encoded = definition.SerializeToString()
    out.extend(_VarintBytes(len(encoded)) + encoded)


def normal(*shape):
    return rng.normal(size=shape).astype(f32)


def positive(*shape):
    return (rng.random(size=shape) + 0.1).astype(f32)


X = np.array([[-2.5, -1.5, -0.5, 0.0, 0.5], [1.5, 2.5, 7.0, 1e-4, -1e-4]], dtype=f32)
UNIT = np.array([-0.9, -0.3, 0.0, 0.2, 0.99], dtype=f32)
INTS = np.array([[-7, -4, -1, 0], [1, 3, 6, 100]], dtype=i32)
DIVISORS = np.array([[2, -3, 5, 7], [-2, 3, -4, 7]], dtype=i32)
WORDS = np.array([b"Hello World", b"", b" a b ", "Grüße".encode(), b"42"], dtype=object)

# Element by element
for name in ["Abs", "Atan", "Asinh", "Ceil", "Cos", "Cosh", "Elu", "Erf", "Erfc", "Exp", "Expm1", "Floor", "IsFinite",
             "IsInf", "IsNan", "LeakyRelu", "LogSoftmax", "Neg", "Relu", "Relu6", "Rint", "Round", "Selu", "Sigmoid",
             "Sign", "Sin", "Sinh", "Softmax", "Softplus", "Softsign", "Square", "Tan", "Tanh", "Reciprocal", "Inv",
             "OnesLike", "ZerosLike", "Identity", "Snapshot", "StopGradient", "L2Loss"]:
    op = getattr(raw, name)
    argument = {"Softmax": "logits", "LogSoftmax": "logits", "Relu": "features", "Relu6": "features",
                "Elu": "features", "Selu": "features", "LeakyRelu": "features", "Softplus": "features",
                "Softsign": "features", "Identity": "input", "Snapshot": "input", "StopGradient": "input",
                "L2Loss": "t"}.get(name, "x")
    data = X if name not in ("Reciprocal", "Inv") else X + 10
    case(name, lambda x, op=op, argument=argument: op(**{argument: x}), data)
special = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 3], dtype=f32)
for name in ["IsFinite", "IsInf", "IsNan"]:
    case(name + "/special", lambda x, op=getattr(raw, name): op(x=x), special)
for name in ["Acos", "Asin", "Atanh"]:
    case(name, lambda x, op=getattr(raw, name): op(x=x), UNIT)
case("Acosh", lambda x: raw.Acosh(x=x), positive(4) + 1)
for name in ["Log", "Log1p", "Sqrt", "Rsqrt"]:
    case(name, lambda x, op=getattr(raw, name): op(x=x), positive(3, 4))
case("Log1p/small", lambda x: raw.Log1p(x=x), np.array([1e-7, -1e-7, 1e-3, 0, -0.5, 1e30, -1], dtype=f32))
case("Expm1/small", lambda x: raw.Expm1(x=x), np.array([1e-7, -1e-7, 1e-3, 0, -0.5, 80, -80], dtype=f32))
for name in ["Abs", "Neg", "Sign", "Square", "Relu"]:
    key = "features" if name == "Relu" else "x"
    case(name + "/int", lambda x, op=getattr(raw, name), key=key: op(**{key: x}), INTS)
case("Abs/double", lambda x: raw.Abs(x=x), X.astype(f64))
case("Tanh/double", lambda x: raw.Tanh(x=x), X.astype(f64))
for name in ["Add", "AddV2", "Sub", "Mul", "Maximum", "Minimum", "SquaredDifference", "Greater", "GreaterEqual",
             "Less", "LessEqual", "Equal", "NotEqual"]:
    op = getattr(raw, name)
    case(name, lambda x, y, op=op: op(x=x, y=y), normal(2, 3), normal(3))
    case(name + "/int", lambda x, y, op=op: op(x=x, y=y), INTS, DIVISORS)
    case(name + "/long", lambda x, y, op=op: op(x=x, y=y), INTS.astype(i64), DIVISORS.astype(i64) * (1 << 33))
for name in ["FloorDiv", "FloorMod"]:
    op = getattr(raw, name)
    case(name, lambda x, y, op=op: op(x=x, y=y), X, np.array([2, -2, 0.7, -0.7, 3], dtype=f32))
    for dtype in ["int32", "int64", "int8"]:
        case(f"{name}/{dtype}", lambda x, y, op=op: op(x=x, y=y), INTS.astype(dtype), DIVISORS.astype(dtype))
case("Mod/float", lambda x, y: raw.Mod(x=x, y=y), X, np.array([2, -2, 0.7, -0.7, 3], dtype=f32))
case("TruncateDiv", lambda x, y: raw.TruncateDiv(x=x, y=y), INTS, DIVISORS)
case("Div/int", lambda x, y: raw.Div(x=x, y=y), INTS, DIVISORS)
case("TruncateMod", lambda x, y: raw.TruncateMod(x=x, y=y), INTS, DIVISORS)
case("RealDiv", lambda x, y: raw.RealDiv(x=x, y=y), normal(2, 3), positive(2, 1))
case("Pow", lambda x, y: raw.Pow(x=x, y=y), positive(2, 3), normal(3))
case("Pow/int", lambda x: raw.Pow(x=x, y=[3]), INTS.reshape(-1)[:6])
case("Atan2", lambda y, x: raw.Atan2(y=y, x=x), np.array([1, -1, 1, -1, 0, 0, 1, -1, 0], dtype=f32),
     np.array([1, 1, -1, -1, 1, -1, 0, 0, 0], dtype=f32))
zeros = np.array([0, 1, 2, 0], dtype=f32)
for name in ["DivNoNan", "MulNoNan", "Xlogy", "Xdivy", "Xlog1py"]:
    case(name, lambda x, y, op=getattr(raw, name): op(x=x, y=y), np.array([0, 0, 3, 4], dtype=f32), zeros if name != "Xdivy" else zeros + 1)
for name in ["BitwiseAnd", "BitwiseOr", "BitwiseXor"]:
    case(name, lambda x, y, op=getattr(raw, name): op(x=x, y=y), INTS, DIVISORS)
case("Lgamma", lambda x: raw.Lgamma(x=x), np.array([0.1, 0.5, 1, 1.5, 2, 3.7, 20, 100, -0.5, -2.3, -7.7, 0, -1], dtype=f32))
case("LeftShift", lambda x: raw.LeftShift(x=x, y=[3]), INTS.reshape(-1))
case("RightShift", lambda x: raw.RightShift(x=x, y=[1]), INTS.reshape(-1))
case("Invert", lambda x: raw.Invert(x=x), INTS)
case("Invert/uint8", lambda x: raw.Invert(x=x), np.array([0, 1, 255], dtype=np.uint8))
flags = np.array([[True, False, True], [False, False, True]])
case("LogicalAnd", lambda x, y: raw.LogicalAnd(x=x, y=y), flags, ~flags[:1])
case("LogicalOr", lambda x, y: raw.LogicalOr(x=x, y=y), flags, ~flags[:1])
case("LogicalNot", lambda x: raw.LogicalNot(x=x), flags)
case("Equal/bool", lambda x, y: raw.Equal(x=x, y=y), flags, ~flags[:1])
case("Equal/string", lambda x: raw.Equal(x=x, y=[b"42"]), WORDS)
case("AddN", lambda x, y, z: raw.AddN(inputs=[x, y, z]), normal(2, 3), normal(2, 3), normal(2, 3))
case("AddN/one", lambda x: raw.AddN(inputs=[x]), normal(2, 3))
case("Add/string", lambda x: raw.Add(x=x, y=b"!"), WORDS)
case("ApproximateEqual", lambda x, y: raw.ApproximateEqual(x=x, y=y, tolerance=0.5), normal(8), normal(8))
case("ClipByValue", lambda x: raw.ClipByValue(t=x, clip_value_min=-1.0, clip_value_max=1.0), X)
case("ClipByValue/tensor", lambda x, low: raw.ClipByValue(t=x, clip_value_min=low, clip_value_max=low + 1), X, normal(2, 5))
case("Select/rows", lambda c, x, y: raw.Select(condition=c, x=x, y=y), np.array([True, False]), normal(2, 3), normal(2, 3))
case("Select/all", lambda c, x, y: raw.Select(condition=c, x=x, y=y), flags, normal(2, 3), normal(2, 3))
case("Select/one", lambda c, x, y: raw.Select(condition=c, x=x, y=y), np.array(True), normal(2, 3), normal(2, 3))
case("SelectV2", lambda c, x, y: raw.SelectV2(condition=c, t=x, e=y), flags, normal(3), normal(1, 1))
case("SelectV2/string", lambda c: raw.SelectV2(condition=c, t=b"yes", e=b"no"), flags)
for to in ["float32", "float64", "int32", "int64", "uint8", "bool", "float16", "bfloat16"]:
    case("Cast/float-" + to, lambda x, to=to: raw.Cast(x=x, DstT=tf.as_dtype(to)), np.array([-0.9, 0, 0.5, 1.9, 100], dtype=f32) if to != "uint8" else np.array([0, 0.5, 1.9, 200], dtype=f32))
    case("Cast/int-" + to, lambda x, to=to: raw.Cast(x=x, DstT=tf.as_dtype(to)), np.array([0, 1, 2, 100, -3], dtype=i32))
case("Cast/bool-float", lambda x: raw.Cast(x=x, DstT=tf.float32), flags)
case("IdentityN", lambda x, y: raw.IdentityN(input=[x, y]), X, INTS)
case("CheckNumerics", lambda x: raw.CheckNumerics(tensor=x, message="m"), X)
case("EnsureShape", lambda x: raw.EnsureShape(input=x, shape=[None, 5]), X)
case("Const/all", lambda x: [tf.constant([1.5, 2.5], tf.float16), tf.constant([1, 2], tf.uint8), tf.constant([True, False]), tf.constant([b"a", b"bc"]), tf.zeros([2, 2], tf.int64), tf.constant(7.0, tf.bfloat16), x], X)

# Reductions
for name in ["Sum", "Mean", "Prod", "Max", "Min", "EuclideanNorm"]:
    op = getattr(raw, name)
    for axes in ([0], [1, -1], [], 1, [0, 1, 2]):
        for keep in (False, True) if name in ("Sum", "EuclideanNorm") else (False,):
            case(f"{name}/{axes}/{keep}", lambda x, op=op, axes=axes, keep=keep: op(input=x, axis=np.array(axes, dtype=i32), keep_dims=keep), normal(2, 3, 4))
for name in ["Sum", "Mean", "Prod", "Max", "Min"]:
    case(name + "/int", lambda x, op=getattr(raw, name): op(input=x, axis=[1]), INTS)
    case(name + "/axes", lambda x, axes, op=getattr(raw, name): op(input=x, axis=axes, keep_dims=True), normal(2, 3, 4), np.array([0, 2], dtype=i32))
for name in ["All", "Any"]:
    case(name, lambda x, op=getattr(raw, name): op(input=x, axis=[1]), flags)
    case(name + "/empty", lambda x, op=getattr(raw, name): op(input=x, axis=[1]), np.zeros((2, 0), dtype=bool))
ties = np.array([[1, 3, 3, 0], [5, 5, 5, 5]], dtype=f32)
for name in ["ArgMax", "ArgMin"]:
    case(name, lambda x, op=getattr(raw, name): op(input=x, dimension=-1), ties)
    case(name + "/0", lambda x, op=getattr(raw, name): op(input=x, dimension=0, output_type=tf.int32), normal(3, 4))
for exclusive in (False, True):
    for reverse in (False, True):
        case(f"Cumsum/{exclusive}/{reverse}", lambda x, e=exclusive, r=reverse: raw.Cumsum(x=x, axis=1, exclusive=e, reverse=r), normal(2, 4))
        case(f"Cumprod/{exclusive}/{reverse}", lambda x, e=exclusive, r=reverse: raw.Cumprod(x=x, axis=-1, exclusive=e, reverse=r), normal(2, 4))

# Shapes
A = normal(2, 3, 4)
case("Shape", lambda x: raw.Shape(input=x), A)
case("Shape/long", lambda x: raw.Shape(input=x, out_type=tf.int64), A)
case("ShapeN", lambda x, y: raw.ShapeN(input=[x, y]), A, X)
case("Size", lambda x: raw.Size(input=x), A)
case("Rank", lambda x: raw.Rank(input=x), A)
case("Reshape", lambda x: raw.Reshape(tensor=x, shape=[4, -1]), A)
case("Reshape/fed", lambda x, s: raw.Reshape(tensor=x, shape=s), A, np.array([6, 4], dtype=i32))
case("Reshape/empty", lambda x: raw.Reshape(tensor=x, shape=[3, 0]), np.zeros((0, 2), dtype=f32))
case("Reshape/rows", lambda x: raw.Reshape(tensor=x, shape=raw.Pack(values=[raw.Shape(input=x)[0], 12])), A)
case("Reshape/merge", lambda x: raw.Reshape(tensor=x, shape=tf.stack([tf.shape(x)[0] * tf.shape(x)[1], tf.shape(x)[2]])), A)
case("Reshape/swap", lambda x: tf.reshape(x, tf.stack([tf.shape(x)[1], tf.shape(x)[0], 4])), A)
case("ExpandDims", lambda x: [raw.ExpandDims(input=x, axis=a) for a in (0, 1, -1, 3)], A)
case("Squeeze", lambda x: raw.Squeeze(input=x), normal(1, 3, 1))
case("Squeeze/axis", lambda x: raw.Squeeze(input=x, axis=[-1]), normal(1, 3, 1))
case("Transpose", lambda x: raw.Transpose(x=x, perm=[2, 0, 1]), A)
case("Concat", lambda x, y: raw.Concat(concat_dim=1, values=[x, y]), normal(2, 3), normal(2, 2))
case("ConcatV2", lambda x, y: raw.ConcatV2(values=[x, y], axis=-1), normal(2, 3), normal(2, 2))
case("Pack", lambda x, y: [raw.Pack(values=[x, y], axis=a) for a in (0, 1, -1)], normal(2, 3), normal(2, 3))
case("Pack/string", lambda x: raw.Pack(values=[x, x], axis=0), WORDS)
case("Unpack", lambda x: raw.Unpack(value=x, num=3, axis=1), A)
case("Unpack/one", lambda x: raw.Unpack(value=x, num=1, axis=0), normal(1, 3))
case("Tile", lambda x: raw.Tile(input=x, multiples=[2, 1, 3]), A)
case("BroadcastTo", lambda x: raw.BroadcastTo(input=x, shape=[2, 3, 4]), normal(3, 1))
case("BroadcastArgs", lambda x, y: raw.BroadcastArgs(s0=x, s1=y), np.array([2, 1, 4], dtype=i32), np.array([3, 1], dtype=i32))
case("Fill", lambda x: raw.Fill(dims=[2, 3], value=x), np.array(1.5, dtype=f32))
case("Fill/like", lambda x: raw.Fill(dims=tf.shape(x), value=True), A)
case("Fill/string", lambda x: raw.Fill(dims=tf.shape(x), value=b"s"), A)
case("Range", lambda x: raw.Range(start=2, limit=x, delta=3), np.array(12, dtype=i32))
case("Range/float", lambda x: raw.Range(start=0.0, limit=x, delta=0.5), np.array(3, dtype=f32))
case("Range/down", lambda x: raw.Range(start=x, limit=-3, delta=-2), np.array(6, dtype=i64))
case("LinSpace", lambda x, y: raw.LinSpace(start=x, stop=y, num=7), np.array(-1, dtype=f32), np.array(2, dtype=f32))
case("LinSpace/one", lambda x, y: raw.LinSpace(start=x, stop=y, num=1), np.array(-1, dtype=f32), np.array(2, dtype=f32))

# Slices
case("Slice", lambda x: raw.Slice(input=x, begin=[0, 1, 0], size=[-1, 2, 3]), A)
case("Slice/fed", lambda x, b, s: raw.Slice(input=x, begin=b, size=s), A, np.array([1, 0, 2], dtype=i32), np.array([1, -1, 2], dtype=i32))
case("Slice/like", lambda x: raw.Slice(input=x, begin=[0, 0, 1], size=tf.stack([tf.shape(x)[0], 2, -1])), A)
case("StridedSlice", lambda x: [x[0], x[:, -1], x[..., 1], x[:, ::2], x[::-1], x[:, 2:0:-1, 1:3], x[:, tf.newaxis], x[..., tf.newaxis, 0:2], x[1:, ..., -2:], x[0, 1, 2], x[:, 1:-1], x[-1:, 0], x[:, :, ::-2], x[5:]], A)
case("StridedSlice/fed", lambda x, a, b: [x[a:b], x[a], x[:, a:, b]], A, np.array(1, dtype=i32), np.array(2, dtype=i32))
case("StridedSlice/shape", lambda x: [tf.shape(x)[1:], tf.shape(x)[-1], tf.shape(x)[:-1]], A)
case("StridedSlice/string", lambda x: [x[1:3], x[-1]], WORDS)
case("Split", lambda x: raw.Split(axis=2, value=x, num_split=2), A)
case("Split/one", lambda x: raw.Split(axis=1, value=x, num_split=1), A)
case("SplitV", lambda x: raw.SplitV(value=x, size_splits=[1, -1, 2], axis=-1, num_split=3), normal(2, 6))
case("Pad", lambda x: raw.Pad(input=x, paddings=[[1, 0], [0, 2]]), X)
case("Pad/fed", lambda x, p: raw.Pad(input=x, paddings=p), X, np.array([[1, 0], [0, 2]], dtype=i32))
case("Pad/int", lambda x: raw.Pad(input=x, paddings=[[1, 0], [0, 2]]), INTS)
case("PadV2", lambda x: raw.PadV2(input=x, paddings=[[1, 0], [0, 2]], constant_values=-3.5), X)
case("MirrorPad/reflect", lambda x: raw.MirrorPad(input=x, paddings=[[1, 1], [2, 0]], mode="REFLECT"), X)
case("MirrorPad/symmetric", lambda x: raw.MirrorPad(input=x, paddings=[[2, 1], [0, 3]], mode="SYMMETRIC"), X)
case("ReverseV2", lambda x: raw.ReverseV2(tensor=x, axis=[0, -1]), A)
case("Reverse", lambda x: raw.Reverse(tensor=x, dims=[True, False, True]), A)
case("Roll", lambda x: [raw.Roll(input=x, shift=1, axis=0), raw.Roll(input=x, shift=[-5, 2], axis=[1, 2])], A)
case("ReverseSequence", lambda x: raw.ReverseSequence(input=x, seq_lengths=np.array([1, 3], dtype=i64), seq_dim=1, batch_dim=0), A)
case("ReverseSequence/far", lambda x: raw.ReverseSequence(input=x, seq_lengths=np.array([1, 3, 4], dtype=i32), seq_dim=2, batch_dim=1), A)

# Positions
case("Gather", lambda x, at: raw.Gather(params=x, indices=at), A, np.array([[1, 0], [1, 1]], dtype=i32))
case("GatherV2", lambda x, at: [raw.GatherV2(params=x, indices=at, axis=a) for a in (0, 1, -1)], normal(3, 3, 3), np.array([2, 0], dtype=i64))
case("GatherV2/string", lambda x, at: raw.GatherV2(params=x, indices=at, axis=0), WORDS, np.array([[4, 0]], dtype=i64))
case("GatherV2/batch", lambda x, at: raw.GatherV2(params=x, indices=at, axis=1, batch_dims=1), A, np.array([[1, 0], [2, 1]], dtype=i32))
case("GatherV2/batch-axis", lambda x, at: raw.GatherV2(params=x, indices=at, axis=2, batch_dims=1), A, np.array([[1, 0, 3], [2, 1, 1]], dtype=i32))
case("GatherNd", lambda x, at: raw.GatherNd(params=x, indices=at), A, np.array([[1, 0], [0, 2]], dtype=i32))
case("ScatterNd", lambda at, u: raw.ScatterNd(indices=at, updates=u, shape=[5]), np.array([[1], [3], [1]], dtype=i32), np.array([1, 2, 4], dtype=f32))
for name in ["TensorScatterUpdate", "TensorScatterAdd", "TensorScatterSub", "TensorScatterMax", "TensorScatterMin"]:
    case(name, lambda x, u, op=getattr(raw, name): op(tensor=x, indices=[[1], [3]], updates=u), normal(5, 2), normal(2, 2))
case("ScatterNdNonAliasingAdd", lambda x, u: raw.ScatterNdNonAliasingAdd(input=x, indices=[[1], [1]], updates=u), normal(4), normal(2))
BOXES = np.array([[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, -0.1, 1, 0.9], [0, 10, 1, 11], [0, 10.1, 1, 11.1], [0, 100, 1, 101]], dtype=f32)
SCORES = np.array([0.9, 0.75, 0.6, 0.95, 0.5, 0.3], dtype=f32)
case("NonMaxSuppression", lambda b, s: raw.NonMaxSuppression(boxes=b, scores=s, max_output_size=3, iou_threshold=0.5), BOXES, SCORES)
case("NonMaxSuppressionV2", lambda b, s: raw.NonMaxSuppressionV2(boxes=b, scores=s, max_output_size=2, iou_threshold=0.5), BOXES, SCORES)
case("NonMaxSuppressionV3", lambda b, s: raw.NonMaxSuppressionV3(boxes=b, scores=s, max_output_size=6, iou_threshold=0.5, score_threshold=0.4), BOXES, SCORES)
case("OneHot", lambda x: [raw.OneHot(indices=x, depth=4, on_value=2.0, off_value=-1.0, axis=a) for a in (-1, 0, 1)], np.array([[0, 3], [-1, 9]], dtype=i32))
case("OneHot/uint8", lambda x: raw.OneHot(indices=x, depth=3, on_value=1, off_value=0), np.array([0, 2], dtype=np.uint8))
case("TopKV2", lambda x: list(raw.TopKV2(input=x, k=2)), ties)


def renamed(old, new, n_inputs=None, **attributes):
    def edit(node):
        if node.op == old:
            node.op = new
            if n_inputs is not None:
                del node.input[n_inputs:]
            for key, value in attributes.items():
                node.attr[key].CopyFrom(tf1.AttrValue(**value))
    return edit


case("TopK", lambda x: list(raw.TopKV2(input=x, k=3)), normal(2, 5), edit=renamed("TopKV2", "TopK", 1, k={"i": 3}))
case("InTopK", lambda p, t: raw.InTopKV2(predictions=p, targets=t, k=2), normal(4, 5), np.array([0, 1, 2, 3], dtype=i32), edit=renamed("InTopKV2", "InTopK", 2, k={"i": 2}))
case("ResourceGather", lambda x, at: raw.GatherV2(params=x, indices=at, axis=0), A, np.array([[1, 0], [1, 1]], dtype=i32), edit=renamed("GatherV2", "ResourceGather", 2))
case("ResourceGatherNd", lambda x, at: raw.GatherNd(params=x, indices=at), A, np.array([[1, 0], [0, 2]], dtype=i32), edit=renamed("GatherNd", "ResourceGatherNd"))
case("ParallelDynamicStitch", lambda x, y: raw.ParallelDynamicStitch(indices=[[0, 2], [3, 1]], data=[x, y]), normal(2, 3), normal(2, 3))
case("UniqueWithCountsV2", lambda x: list(raw.UniqueWithCountsV2(x=x, axis=np.zeros(0, dtype=i64))), np.array([4, 2, 4, 7, 2], dtype=i64))
case("HostConst", lambda x: [tf.constant([1.5, 2.5]), x], X, edit=renamed("Const", "HostConst"))
for name in ["PreventGradient", "GuaranteeConst"]:
    case(name, lambda x, op=getattr(raw, name): op(input=x), X)
case("DeepCopy", lambda x: raw.DeepCopy(x=x), X)
case("CheckNumericsV2", lambda x: raw.CheckNumericsV2(tensor=x, message="m"), X)
case("AccumulateNV2", lambda x, y: raw.AddN(inputs=[x, y]), X, X + 1, edit=renamed("AddN", "AccumulateNV2"))
case("Bitcast", lambda x: [raw.Bitcast(input=tf.constant([1.0, -2.0]), type=tf.int32), x], X)
case("Empty", lambda x: raw.Empty(shape=[2, 3], dtype=tf.float32, init=True), X)
case("InTopKV2", lambda p, t: raw.InTopKV2(predictions=p, targets=t, k=2), normal(4, 5), np.array([0, 1, 2, 3], dtype=i32))
case("Unique", lambda x: list(raw.Unique(x=x)), np.array([4, 2, 4, 7, 2], dtype=i32))
case("Unique/string", lambda x: list(raw.Unique(x=x, out_idx=tf.int64)), np.array([b"b", b"a", b"b"], dtype=object))
case("UniqueWithCounts", lambda x: list(raw.UniqueWithCounts(x=x)), np.array([4, 2, 4, 7, 2], dtype=i64))
case("UniqueV2", lambda x: list(raw.UniqueV2(x=x, axis=np.zeros(0, dtype=i64))), np.array([4, 2, 4, 7, 2], dtype=i64))
case("InvertPermutation", lambda x: raw.InvertPermutation(x=x), np.array([2, 0, 1], dtype=i32))
case("Where", lambda x: raw.Where(condition=x), flags)
case("DynamicPartition", lambda x, p: raw.DynamicPartition(data=x, partitions=p, num_partitions=3), normal(4, 2), np.array([2, 0, 2, 0], dtype=i32))
case("DynamicPartition/matrix", lambda x, p: raw.DynamicPartition(data=x, partitions=p, num_partitions=2), normal(2, 2, 3), np.array([[1, 0], [1, 0]], dtype=i32))
case("DynamicStitch", lambda x, y: raw.DynamicStitch(indices=[[0, 2], [[3], [1]]], data=[x, y]), normal(2, 3), normal(2, 1, 3))
case("DynamicStitch/scalar", lambda x, y: raw.DynamicStitch(indices=[0, [1, 2]], data=[x, y]), np.array(5, dtype=i32), np.array([6, 7], dtype=i32))
case("UnsortedSegmentSum", lambda x, s: raw.UnsortedSegmentSum(data=x, segment_ids=s, num_segments=4), normal(4, 2), np.array([2, 0, 2, -1], dtype=i32))

# Matrices
case("MatMul", lambda x, y: raw.MatMul(a=x, b=y), normal(2, 3), normal(3, 4))
case("MatMul/turned", lambda x, y: raw.MatMul(a=x, b=y, transpose_a=True, transpose_b=True), normal(3, 2), normal(4, 3))
case("MatMul/int", lambda x, y: raw.MatMul(a=x, b=y), INTS, DIVISORS.T.copy())
case("BatchMatMul", lambda x, y: raw.BatchMatMul(x=x, y=y), normal(2, 2, 3), normal(2, 3, 4))
case("BatchMatMulV2", lambda x, y: raw.BatchMatMulV2(x=x, y=y, adj_x=True, adj_y=True), normal(2, 1, 3, 2), normal(5, 4, 3))
case("BatchMatMulV3", lambda x, y: raw.BatchMatMulV3(x=x, y=y, Tout=tf.float32), normal(2, 2, 3), normal(2, 3, 4))
case("Einsum", lambda x, y: raw.Einsum(inputs=[x, y], equation="abc,cde->abde"), normal(2, 3, 4), normal(4, 2, 2))
case("Einsum/attention", lambda x, y: raw.Einsum(inputs=[x, y], equation="aecd,abcd->acbe"), normal(2, 3, 2, 4), normal(2, 5, 2, 4))
case("Einsum/dots", lambda x, y: raw.Einsum(inputs=[x, y], equation="...x,xy->...y"), normal(2, 3, 4), normal(4, 5))
case("MatrixBandPart", lambda x: [raw.MatrixBandPart(input=x, num_lower=l, num_upper=u) for l, u in ((-1, 0), (0, -1), (1, 1))], normal(2, 4, 3))
case("MatrixDiag", lambda x: raw.MatrixDiag(diagonal=x), normal(2, 3))
case("MatrixDiagV3", lambda x: raw.MatrixDiagV3(diagonal=x, k=0, num_rows=-1, num_cols=-1, padding_value=7.0), normal(2, 3))
case("MatrixDiagPart", lambda x: raw.MatrixDiagPart(input=x), normal(2, 3, 4))
case("MatrixDiagPartV3", lambda x: raw.MatrixDiagPartV3(input=x, k=0, padding_value=0.0), normal(2, 3, 3))
case("MatrixSetDiagV3", lambda x, d: raw.MatrixSetDiagV3(input=x, diagonal=d, k=0), normal(2, 3, 3), normal(2, 3))
case("MatrixDiagV2", lambda x: raw.MatrixDiagV2(diagonal=x, k=0, num_rows=-1, num_cols=-1, padding_value=7.0), normal(2, 3))
case("MatrixDiagPartV2", lambda x: raw.MatrixDiagPartV2(input=x, k=0, padding_value=0.0), normal(2, 3, 3))
case("MatrixSetDiag", lambda x, d: raw.MatrixSetDiag(input=x, diagonal=d), normal(2, 3, 3), normal(2, 3))
case("MatrixSetDiagV2", lambda x, d: raw.MatrixSetDiagV2(input=x, diagonal=d, k=0), normal(2, 3, 3), normal(2, 3))


def fused(op, x, filter, args, fused_ops, **attributes):
    attributes = {"fused_ops": fused_ops, **attributes}
    if op == "_FusedConv2D":
        attributes["num_args"] = len(args)
    for attr in op_def_registry.get(op).attr:
        if attr.HasField("default_value") and attr.name not in attributes and attr.name not in ("TArgs", "num_args", "num_host_args"):
            value = attr.default_value
            kind = value.WhichOneof("value")
            attributes[attr.name] = list(value.list.i) if kind == "list" else getattr(value, kind)
    if op == "_FusedMatMul":
        return op_def_library._apply_op_helper(op, name="fused", a=x, b=filter, args=args, **attributes)[2].outputs[0]
    return op_def_library._apply_op_helper(op, name="fused", input=x, filter=filter, args=args, **attributes)[2].outputs[0]


for steps in (["BiasAdd"], ["BiasAdd", "Relu"], ["BiasAdd", "Relu6"], ["BiasAdd", "Elu"], ["BiasAdd", "LeakyRelu"], ["BiasAdd", "Tanh"], ["BiasAdd", "Sigmoid"]):
    case("_FusedMatMul/" + "-".join(steps), lambda x, w, b, steps=steps: fused("_FusedMatMul", x, w, [b], steps), normal(2, 3), normal(3, 4), normal(4))
case("Diag", lambda x: raw.Diag(diagonal=x), normal(3))
case("DiagPart", lambda x: raw.DiagPart(input=x), normal(3, 3))

# Convolutions and pooling
picture = normal(2, 7, 6, 3)
for padding in ("SAME", "VALID"):
    for stride in (1, 2, 3):
        case(f"Conv2D/{padding}/{stride}", lambda x, p=padding, s=stride: raw.Conv2D(input=x, filter=normal(3, 2, 3, 4), strides=[1, s, s, 1], padding=p), picture)
        case(f"DepthwiseConv2dNative/{padding}/{stride}", lambda x, p=padding, s=stride: raw.DepthwiseConv2dNative(input=x, filter=normal(3, 3, 3, 2), strides=[1, s, s, 1], padding=p), picture)
        case(f"MaxPool/{padding}/{stride}", lambda x, p=padding, s=stride: raw.MaxPool(input=x, ksize=[1, 3, 2, 1], strides=[1, s, s, 1], padding=p), picture)
        case(f"AvgPool/{padding}/{stride}", lambda x, p=padding, s=stride: raw.AvgPool(value=x, ksize=[1, 3, 2, 1], strides=[1, s, s, 1], padding=p), picture)
case("Conv2D/dilated", lambda x: raw.Conv2D(input=x, filter=normal(3, 2, 3, 4), strides=[1, 1, 1, 1], dilations=[1, 2, 2, 1], padding="SAME"), picture)
case("Conv2D/explicit", lambda x: raw.Conv2D(input=x, filter=normal(3, 2, 3, 4), strides=[1, 2, 1, 1], explicit_paddings=[0, 0, 1, 2, 0, 1, 0, 0], padding="EXPLICIT"), picture)
case("Conv2D/fed", lambda x, w: raw.Conv2D(input=x, filter=w, strides=[1, 1, 1, 1], padding="SAME"), picture, normal(2, 2, 3, 4))
case("Conv2D/double", lambda x: raw.Conv2D(input=x, filter=normal(3, 2, 3, 4).astype(f64), strides=[1, 1, 1, 1], padding="SAME"), picture.astype(f64))
case("DepthwiseConv2dNative/dilated", lambda x: tf.nn.depthwise_conv2d(x, normal(2, 2, 3, 1), [1, 1, 1, 1], "SAME", dilations=[2, 2]), picture)
KERNEL = normal(3, 2, 3, 4)
for steps in (["BiasAdd"], ["BiasAdd", "Relu"], ["BiasAdd", "LeakyRelu"]):
    case("_FusedConv2D/" + "-".join(steps), lambda x, b, steps=steps: fused("_FusedConv2D", x, tf.constant(KERNEL), [b], steps, host_args=[], strides=[1, 1, 1, 1], padding="SAME"), picture, normal(4))
case("_FusedConv2D/FusedBatchNorm-Relu", lambda x: fused("_FusedConv2D", x, tf.constant(KERNEL), [positive(4), normal(4), normal(4), positive(4)], ["FusedBatchNorm", "Relu"], host_args=[], strides=[1, 2, 2, 1], padding="SAME", epsilon=1e-3), picture)


def depthwise_fused(node):
    """Joins the bias and the activation to the convolution: TensorFlow computes that only with oneDNN."""
    if node.op == "DepthwiseConv2dNative":
        node.op = "_FusedDepthwiseConv2dNative"
        node.input.append("x1")
        node.attr["fused_ops"].list.s.extend([b"BiasAdd", b"Relu6"])
    elif node.op in ("BiasAdd", "Relu6"):
        node.op = "Identity"
        del node.input[1:]


case("_FusedDepthwiseConv2dNative", lambda x, b: tf.nn.relu6(tf.nn.bias_add(raw.DepthwiseConv2dNative(input=x, filter=normal(3, 3, 3, 1), strides=[1, 1, 1, 1], padding="SAME"), b)), picture, normal(3), edit=depthwise_fused)
volume = normal(1, 4, 5, 4, 2)
case("Conv3D", lambda x: raw.Conv3D(input=x, filter=normal(2, 3, 2, 2, 3), strides=[1, 1, 2, 1, 1], padding="SAME"), volume)
case("MaxPool3D", lambda x: raw.MaxPool3D(input=x, ksize=[1, 2, 2, 2, 1], strides=[1, 2, 2, 2, 1], padding="SAME"), volume)
case("AvgPool3D", lambda x: raw.AvgPool3D(input=x, ksize=[1, 2, 2, 2, 1], strides=[1, 2, 2, 2, 1], padding="SAME"), volume)
case("MaxPoolV2", lambda x: raw.MaxPoolV2(input=x, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="VALID"), picture)
for padding in ("SAME", "VALID"):
    for stride, kernel in ((1, 3), (2, 3), (3, 2)):
        size = {"SAME": lambda n: n * stride, "VALID": lambda n: n * stride + max(kernel - stride, 0)}[padding]
        case(f"Conv2DBackpropInput/{padding}/{stride}", lambda x, p=padding, s=stride, k=kernel, size=size: raw.Conv2DBackpropInput(input_sizes=[2, size(4), size(3), 2], filter=normal(k, k, 2, 3), out_backprop=x, strides=[1, s, s, 1], padding=p), normal(2, 4, 3, 3))
        case(f"Conv2DBackpropInput/shape/{padding}/{stride}", lambda x, p=padding, s=stride, k=kernel, extra=max(kernel - stride, 0) if padding == "VALID" else 0: raw.Conv2DBackpropInput(input_sizes=tf.stack([tf.shape(x)[0], tf.shape(x)[1] * s + extra, tf.shape(x)[2] * s + extra, 2]), filter=normal(k, k, 2, 3), out_backprop=x, strides=[1, s, s, 1], padding=p), normal(2, 4, 3, 3))
case("Conv2DBackpropInput/odd", lambda x: raw.Conv2DBackpropInput(input_sizes=[1, 7, 8, 2], filter=normal(3, 3, 2, 3), out_backprop=x, strides=[1, 2, 2, 1], padding="SAME"), normal(1, 4, 4, 3))
case("Conv3DBackpropInputV2", lambda x: raw.Conv3DBackpropInputV2(input_sizes=[1, 4, 6, 4, 2], filter=normal(2, 3, 2, 2, 3), out_backprop=x, strides=[1, 2, 2, 2, 1], padding="SAME"), normal(1, 2, 3, 2, 3))
case("SpaceToBatchND", lambda x: raw.SpaceToBatchND(input=x, block_shape=[2, 3], paddings=[[1, 0], [0, 0]]), picture)
case("BatchToSpaceND", lambda x: raw.BatchToSpaceND(input=x, block_shape=[2, 3], crops=[[1, 0], [0, 2]]), normal(6, 4, 2, 3))
case("SpaceToBatch", lambda x: raw.SpaceToBatch(input=x, paddings=[[1, 0], [0, 0]], block_size=2), picture)
case("BatchToSpace", lambda x: raw.BatchToSpace(input=x, crops=[[1, 0], [0, 1]], block_size=2), normal(4, 4, 2, 3))
case("BatchToSpaceND/1d", lambda x: raw.BatchToSpaceND(input=x, block_shape=[2], crops=[[0, 1]]), normal(4, 3, 2))
case("SpaceToDepth", lambda x: raw.SpaceToDepth(input=x, block_size=2), normal(2, 4, 6, 3))
case("DepthToSpace", lambda x: raw.DepthToSpace(input=x, block_size=2), normal(2, 2, 3, 12))
case("ExtractImagePatches", lambda x: raw.ExtractImagePatches(images=x, ksizes=[1, 3, 2, 1], strides=[1, 2, 2, 1], rates=[1, 1, 1, 1], padding="SAME"), picture)

# Normalisation
case("BiasAdd", lambda x, b: raw.BiasAdd(value=x, bias=b), picture, normal(3))
case("BiasAdd/NCHW", lambda x, b: raw.BiasAdd(value=x, bias=b, data_format="NCHW"), normal(2, 3, 4, 5), normal(3))
case("BiasAddV1", lambda x, b: raw.BiasAddV1(value=x, bias=b), picture, normal(3))
case("FusedBatchNormV3", lambda x: raw.FusedBatchNormV3(x=x, scale=positive(3), offset=normal(3), mean=normal(3), variance=positive(3), epsilon=1e-3, is_training=False).y, picture)
case("FusedBatchNorm", lambda x: raw.FusedBatchNorm(x=x, scale=positive(3), offset=normal(3), mean=normal(3), variance=positive(3), epsilon=1e-3, is_training=False).y, picture)
case("FusedBatchNormV3/training", lambda x: list(raw.FusedBatchNormV3(x=x, scale=positive(3), offset=normal(3), mean=np.zeros(0, f32), variance=np.zeros(0, f32), epsilon=1e-3, is_training=True))[:3], picture)
case("FusedBatchNormV3/half", lambda x: raw.FusedBatchNormV3(x=x, scale=positive(3), offset=normal(3), mean=normal(3), variance=positive(3), epsilon=1e-3, is_training=False).y, picture.astype(np.float16))
case("FusedBatchNormV2", lambda x: raw.FusedBatchNormV2(x=x, scale=positive(3), offset=normal(3), mean=normal(3), variance=positive(3), epsilon=1e-3, is_training=False).y, picture)
case("_FusedBatchNormEx", lambda x: tf.nn.relu(raw.FusedBatchNormV3(x=x, scale=positive(3), offset=normal(3), mean=normal(3), variance=positive(3), epsilon=1e-3, is_training=False).y), picture, edit=renamed("FusedBatchNormV3", "_FusedBatchNormEx", activation_mode={"s": b"Relu"}))


def global_norm(node):
    """From batch_normalization's inputs to the order of the older operator: t, m, v, beta, gamma."""
    if node.op == "FusedBatchNormV3":
        x, scale, offset, mean, variance = node.input
        node.op = "BatchNormWithGlobalNormalization"
        node.input[:] = [x, mean, variance, offset, scale]
        node.attr["variance_epsilon"].f = 1e-3
        node.attr["scale_after_normalization"].b = True


case("BatchNormWithGlobalNormalization", lambda x: raw.FusedBatchNormV3(x=x, scale=positive(3), offset=normal(3), mean=normal(3), variance=positive(3), epsilon=1e-3, is_training=False).y, picture, edit=global_norm)
case("LRN", lambda x: raw.LRN(input=x, depth_radius=2, bias=1.5, alpha=0.7, beta=0.6), normal(2, 3, 2, 7))

# Images
for corners, centres in ((False, False), (True, False), (False, True)):
    for size in ([7, 5], [2, 9], [4, 6]):
        case(f"ResizeBilinear/{corners}/{centres}/{size}", lambda x, a=corners, h=centres, s=size: raw.ResizeBilinear(images=x, size=s, align_corners=a, half_pixel_centers=h), normal(1, 4, 6, 2))
        case(f"ResizeNearestNeighbor/{corners}/{centres}/{size}", lambda x, a=corners, h=centres, s=size: raw.ResizeNearestNeighbor(images=x, size=s, align_corners=a, half_pixel_centers=h), normal(1, 4, 6, 2))
    case(f"ResizeBicubic/{corners}/{centres}", lambda x, a=corners, h=centres: raw.ResizeBicubic(images=x, size=[7, 9], align_corners=a, half_pixel_centers=h), normal(1, 4, 6, 2))
case("ResizeBilinear/uint8", lambda x: raw.ResizeBilinear(images=x, size=[3, 3], half_pixel_centers=True), np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1))
case("ResizeNearestNeighbor/twice", lambda x: raw.ResizeNearestNeighbor(images=x, size=tf.shape(x)[1:3] * 2, half_pixel_centers=True), normal(1, 2, 3, 2))
case("ResizeArea", lambda x: raw.ResizeArea(images=x, size=[2, 2]), normal(1, 4, 6, 2))
for corners, centres in ((False, False), (True, False), (False, True)):
    case(f"ResizeBicubic/down/{corners}/{centres}", lambda x, a=corners, h=centres: raw.ResizeBicubic(images=x, size=[3, 4], align_corners=a, half_pixel_centers=h), normal(1, 4, 7, 1))
for size in ([3, 5], [6, 9]):
    case(f"ResizeArea/{size}", lambda x, s=size: raw.ResizeArea(images=x, size=s), normal(1, 4, 7, 1))
    for kernel in ("lanczos1", "lanczos3", "lanczos5", "gaussian", "box", "triangle", "keyscubic", "mitchellcubic") if size == [3, 5] else ("lanczos5", "box"):
        case(f"ScaleAndTranslate/{kernel}/{size}", lambda x, k=kernel, s=size: raw.ScaleAndTranslate(images=x, size=s, scale=[s[0] / 4, s[1] / 7], translation=[0.0, 0.0], kernel_type=k, antialias=k != "lanczos5"), normal(1, 4, 7, 1))
case("ScaleAndTranslate/moved", lambda x: raw.ScaleAndTranslate(images=x, size=[5, 5], scale=[0.7, 1.3], translation=[1.5, -2.0], kernel_type="triangle"), normal(1, 4, 7, 1))
case("FakeQuantWithMinMaxArgs", lambda x: raw.FakeQuantWithMinMaxArgs(inputs=x, min=-2.0, max=3.0), X)
case("FakeQuantWithMinMaxVars", lambda x, a, b: raw.FakeQuantWithMinMaxVars(inputs=x, min=a, max=b, num_bits=4, narrow_range=True), X, np.array(-2, f32), np.array(3, f32))
case("FakeQuantWithMinMaxVarsPerChannel", lambda x, a, b: raw.FakeQuantWithMinMaxVarsPerChannel(inputs=x, min=a, max=b), X, -positive(5), positive(5))

# Strings
case("StringLower", lambda x: [raw.StringLower(input=x), raw.StringLower(input=x, encoding="utf-8")], WORDS)
case("StringUpper", lambda x: raw.StringUpper(input=x), WORDS)
case("StringStrip", lambda x: raw.StringStrip(input=x), WORDS)
case("StringLength", lambda x: [raw.StringLength(input=x), raw.StringLength(input=x, unit="UTF8_CHAR")], WORDS)
case("StringJoin", lambda x: raw.StringJoin(inputs=[x, b"-", x], separator="+"), WORDS)
case("ReduceJoin", lambda x: raw.ReduceJoin(inputs=x, reduction_indices=[1], separator=","), np.array([[b"a", b"b"], [b"c", b""]], dtype=object))
case("RegexReplace", lambda x: raw.RegexReplace(input=x, pattern=r"[a-l]+", rewrite=r"<\0>"), WORDS)
case("StaticRegexReplace", lambda x: raw.StaticRegexReplace(input=x, pattern=r"\s+", rewrite="_", replace_global=False), WORDS)
case("RegexFullMatch", lambda x: raw.RegexFullMatch(input=x, pattern=r"\d+"), WORDS)
case("StaticRegexFullMatch", lambda x: raw.StaticRegexFullMatch(input=x, pattern=r".*o.*"), WORDS)
case("Substr", lambda x: raw.Substr(input=x, pos=1, len=3), np.array([b"abcdef", b"xyz"], dtype=object))
case("StringSplitV2", lambda x: list(raw.StringSplitV2(input=x, sep=b"")), WORDS)
case("StringSplitV2/sep", lambda x: list(raw.StringSplitV2(input=x, sep=b"l", maxsplit=1)), WORDS)
case("StringSplit", lambda x: list(raw.StringSplit(input=x, delimiter=b" ")), WORDS)
case("StringSplit/letter", lambda x: list(raw.StringSplit(input=x, delimiter=b"l")), WORDS)
case("AsString", lambda x: [raw.AsString(input=x), raw.AsString(input=x, precision=2, width=8)], X)
case("AsString/int", lambda x: raw.AsString(input=x, fill="0", width=4), INTS)
case("StringToNumber", lambda x: raw.StringToNumber(string_tensor=x), np.array([b"1.5", b"-3e2", b"7"], dtype=object))
case("StringToNumber/int", lambda x: raw.StringToNumber(string_tensor=x, out_type=tf.int64), np.array([b"15", b"-3"], dtype=object))
case("StringToHashBucketFast", lambda x: raw.StringToHashBucketFast(input=x, num_buckets=1000), WORDS)
case("StringToHashBucketStrong", lambda x: raw.StringToHashBucketStrong(input=x, num_buckets=1000, key=[1, 2]), WORDS)
case("StringToHashBucket", lambda x: raw.StringToHashBucket(string_tensor=x, num_buckets=1000), WORDS)
case("StringNGrams", lambda x: list(raw.StringNGrams(data=x, data_splits=np.array([0, 3, 5], dtype=i64), separator="|", ngram_widths=[2], left_pad="L", right_pad="R", pad_width=0, preserve_short_sequences=False)), WORDS)
case("EncodeBase64", lambda x: [raw.EncodeBase64(input=x), raw.EncodeBase64(input=x, pad=True)], WORDS)
case("DecodeBase64", lambda x: raw.DecodeBase64(input=x), np.array([b"aGVsbG8", b""], dtype=object))
case("DecodeRaw", lambda x: raw.DecodeRaw(bytes=x, out_type=tf.uint8), np.array([b"abc", b"xyz"], dtype=object))

# Sparse, ragged, counting
case("Bucketize", lambda x: raw.Bucketize(input=x, boundaries=[-1.0, 0.0, 2.0]), X)
case("SparseToDense", lambda at, v: raw.SparseToDense(sparse_indices=at, output_shape=[2, 4], sparse_values=v, default_value=-1), np.array([[0, 1], [1, 3]], dtype=i64), np.array([5, 6], dtype=i64))
case("SparseReshape", lambda at: list(raw.SparseReshape(input_indices=at, input_shape=np.array([2, 6], dtype=i64), new_shape=np.array([3, -1], dtype=i64))), np.array([[0, 1], [1, 3]], dtype=i64))
for hashed in (True, False):
    case(f"SparseCross/{hashed}", lambda at, v, d, h=hashed: list(raw.SparseCross(indices=[at, at], values=[v, tf.constant([5, 6, 7], tf.int64) if h else v], shapes=[np.array([3, 2], dtype=i64)] * 2, dense_inputs=[d], hashed_output=h, num_buckets=1000 if h else 0, hash_key=956888297470, out_type=tf.int64 if h else tf.string, internal_type=tf.int64 if h else tf.string)), np.array([[0, 0], [0, 1], [2, 0]], dtype=i64), np.array([b"a", b"b", b"c"], dtype=object), np.array([[1, 2], [3, 4], [5, 6]], dtype=i64) if hashed else np.array([[b"x", b"y"], [b"z", b""], [b"u", b"v"]], dtype=object))
case("UnicodeDecode", lambda x: list(raw.UnicodeDecode(input=x, input_encoding="UTF-8")), np.array(["Grüße".encode(), b"", b"a\xffb\x01"], dtype=object))
case("UnicodeEncode", lambda x: raw.UnicodeEncode(input_values=x, input_splits=np.array([0, 2, 2, 3], dtype=i64), output_encoding="UTF-8"), np.array([252, 97, 0x1F600], dtype=i32))
case("SparseFillEmptyRows", lambda at, v: list(raw.SparseFillEmptyRows(indices=at, values=v, dense_shape=np.array([4, 6], dtype=i64), default_value=b"?")), np.array([[0, 1], [2, 3]], dtype=i64), np.array([b"a", b"b"], dtype=object))
for name in ["SparseSegmentSum", "SparseSegmentMean", "SparseSegmentSqrtN"]:
    case(name, lambda x, op=getattr(raw, name): op(data=x, indices=[0, 2, 1], segment_ids=[0, 0, 2]), normal(3, 2))
    case(name + "WithNumSegments", lambda x, op=getattr(raw, name + "WithNumSegments"): op(data=x, indices=[0, 2, 1], segment_ids=[0, 0, 2], num_segments=5), normal(3, 2))
case("SegmentSum", lambda x: raw.SegmentSum(data=x, segment_ids=[0, 0, 2]), normal(3, 2))
case("SparseTensorDenseMatMul", lambda x: raw.SparseTensorDenseMatMul(a_indices=np.array([[0, 1], [1, 0]], dtype=i64), a_values=np.array([2, 3], dtype=f32), a_shape=np.array([2, 2], dtype=i64), b=x), normal(2, 3))
case("DenseBincount", lambda x: raw.DenseBincount(input=x, size=5, weights=np.zeros(0, f32), binary_output=True), np.array([[1, 1, 3], [0, 4, 9]], dtype=i32))
case("RaggedBincount", lambda x: raw.RaggedBincount(splits=np.array([0, 2, 3], dtype=i64), values=x, size=5, weights=np.zeros(0, f32)), np.array([1, 1, 3], dtype=i32))
case("RaggedTensorToTensor", lambda x: raw.RaggedTensorToTensor(shape=np.array([-1, -1], dtype=i64), values=x, default_value=b"", row_partition_tensors=[np.array([0, 2, 5], dtype=i64)], row_partition_types=["ROW_SPLITS"]), WORDS)
case("RaggedTensorToSparse", lambda x: list(raw.RaggedTensorToSparse(rt_nested_splits=[np.array([0, 2, 5], dtype=i64)], rt_dense_values=x)), WORDS)


def example(**features):
    made = tf.train.Example()
    for key, values in features.items():
        feature = made.features.feature[key]
        if isinstance(values[0], bytes):
            feature.bytes_list.value.extend(values)
        elif isinstance(values[0], float):
            feature.float_list.value.extend(values)
        else:
            feature.int64_list.value.extend(values)
    return made.SerializeToString()


examples = np.array([example(a=[1.5, 2.5], b=[b"x", b"yz"], c=[3], d=[1, 2]), example(a=[0.5, 1.0], c=[7], d=[4])], dtype=object)
case("ParseExample", lambda x: [t for group in raw.ParseExample(serialized=x, names=tf.constant([], tf.string), sparse_keys=[b"b"], dense_keys=[b"a", b"c"], dense_defaults=[tf.constant([], tf.float32), tf.constant([9], tf.int64)], sparse_types=[tf.string], dense_shapes=[[2], [1]]) for t in group], examples)
case("ParseExampleV2", lambda x: [t for group in raw.ParseExampleV2(serialized=x, names=tf.constant([], tf.string), sparse_keys=tf.constant([b"b"]), dense_keys=tf.constant([b"a", b"c"]), ragged_keys=tf.constant([b"d"]), dense_defaults=[tf.constant([], tf.float32), tf.constant([9], tf.int64)], num_sparse=1, sparse_types=[tf.string], ragged_value_types=[tf.int64], ragged_split_types=[tf.int64], dense_shapes=[[2], [1]]) for t in group], examples)
case("ParseSingleExample", lambda x: [t for group in raw.ParseSingleExample(serialized=x, dense_defaults=[tf.constant([], tf.float32)], num_sparse=1, sparse_keys=["b"], dense_keys=["a"], sparse_types=[tf.string], dense_shapes=[[2]]) for t in group], examples[0])

# Bits of floats, as Keras asks for the sign of 0 before argmax, and batches counted from the end
case("Bitcast/float", lambda x: raw.Bitcast(input=x, type=tf.int32), np.array([0.0, -0.0, 1.5, -np.inf], dtype=f32))
case("Bitcast/bytes", lambda x, y: [raw.Bitcast(input=x, type=tf.uint8), raw.Bitcast(input=y, type=tf.int16)], np.array([0.0, -0.0, 1.5], dtype=f32), np.array([[1, 2], [3, 4]], dtype=np.uint8))
case("Bitcast/double", lambda x: raw.Bitcast(input=x, type=tf.int64), np.array([[0.0, -0.0], [1.5, -2.5]], dtype=f64))
case("Bitcast/int", lambda x: raw.Bitcast(input=x, type=tf.float16), np.array([0, 15360, -32768], dtype=np.int16))
case("GatherV2/batch-from-end", lambda x, at: tf.gather(x, at, axis=2, batch_dims=-1), np.arange(24, dtype=f32).reshape(2, 3, 4), np.array([[1, 0, 3], [2, 1, 1]], dtype=i32))

with open("ops.bin", "wb") as file:
    file.write(out)
print(len(names), "cases,", len(out), "bytes")
