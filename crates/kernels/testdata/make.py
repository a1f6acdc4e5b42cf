"""Writes golden.jsonl: one operator with inputs and outputs per line, computed by ONNX Runtime (by NumPy where ONNX
Runtime lacks an element type).

    python crates/kernels/testdata/make.py

needs onnx, onnxruntime and numpy. The inputs are random with a fixed seed and short in decimals, so that the file stays
small; floats are written so that they are read back exactly.
"""

import json
import pathlib

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(3)
lines = []
failed = []

F, D, I, L = np.float32, np.float64, np.int32, np.int64
INTS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]
NAMES = {"object": "string"}


def floats(*shape, low=-2.0, high=2.0, dtype=F):
    return np.round(rng.uniform(low, high, shape), 2).astype(dtype)


def ints(*shape, low=-9, high=10, dtype=L):
    if np.issubdtype(dtype, np.unsignedinteger):
        low = max(low, 0)
    return rng.integers(low, high, shape).astype(dtype)


def bools(*shape):
    return rng.integers(0, 2, shape).astype(bool)


def text(*shape):
    words = np.array(["", "a", "b", "cd", "hello", "ü"], dtype=object)
    return words[rng.integers(0, len(words), shape)]


def arr(values, dtype=L):
    return np.array(values, dtype=dtype)


def encode(array):
    if array is None:
        return None
    array = np.asarray(array)
    name = NAMES.get(str(array.dtype), str(array.dtype))
    flat = array.reshape(-1)
    if name == "string":
        data = [x.decode() if isinstance(x, bytes) else str(x) for x in flat]
    elif name == "bool":
        data = [int(x) for x in flat]
    elif name.startswith("float"):
        data = [json_float(x) for x in flat]
    elif name.startswith("complex"):
        data = [json_float(part) for x in flat for part in (x.real, x.imag)]
    else:
        data = [int(x) for x in flat]
    return [name, list(array.shape), data]


def json_float(x):
    if np.isnan(x):
        return "nan"
    if np.isinf(x):
        return "inf" if x > 0 else "-inf"
    if abs(float(x)) < 1e15 and float(x) == int(x):
        return int(x)
    return float(np.format_float_positional(x, unique=True)) if isinstance(x, (np.float32, np.float16)) else float(x)


def encode_attribute(value):
    if isinstance(value, np.ndarray):
        return {"tensor": encode(value)}
    if isinstance(value, type) or isinstance(value, np.dtype):
        name = str(np.dtype(value))
        return {"dtype": NAMES.get(name, name)}
    return value


def onnx_attribute(value):
    if isinstance(value, np.ndarray):
        return numpy_helper.from_array(value)
    if isinstance(value, type) or isinstance(value, np.dtype):
        return helper.np_dtype_to_tensor_dtype(np.dtype(value))
    return value


def onnx_type(array):
    if array.dtype == object:
        return TensorProto.STRING
    return helper.np_dtype_to_tensor_dtype(array.dtype)


def case(op, inputs, n_outputs=1, opset=18, expected=None, **attributes):
    inputs = [None if x is None else np.asarray(x) for x in inputs]
    if expected is None:
        names = ["" if x is None else f"i{n}" for n, x in enumerate(inputs)]
        outputs = [f"o{n}" for n in range(n_outputs)]
        node = helper.make_node(op, names, outputs, **{k: onnx_attribute(v) for k, v in attributes.items()})
        graph = helper.make_graph(
            [node],
            "g",
            [
                helper.make_tensor_value_info(name, onnx_type(x), x.shape)
                for name, x in zip(names, inputs)
                if x is not None
            ],
            [onnx.ValueInfoProto(name=name) for name in outputs],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        try:
            options = ort.SessionOptions()
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.log_severity_level = 4
            session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            feed = {name: x for name, x in zip(names, inputs) if x is not None}
            expected = session.run(None, feed)
        except Exception as error:
            failed.append(f"{op} {[str(x.dtype) for x in inputs if x is not None]} {attributes}: {str(error)[:150]}")
            return
    line = {
        "op": op,
        "attributes": {k: encode_attribute(v) for k, v in attributes.items()},
        "inputs": [encode(x) for x in inputs],
        "outputs": [encode(x) for x in expected],
    }
    lines.append(json.dumps(line, separators=(",", ":"), ensure_ascii=False))


def by_numpy(op, inputs, *expected, **attributes):
    case(op, inputs, expected=[np.asarray(x) for x in expected], **attributes)


def elementwise():
    any_ = ["Asinh", "Atan", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "Round", "Sigmoid", "Sin", "Sinh"]
    any_ += ["Softplus", "Softsign", "Tan", "Tanh", "Elu", "Selu", "Celu", "LeakyRelu", "ThresholdedRelu"]
    any_ += ["HardSigmoid", "HardSwish", "Relu", "Abs", "Neg", "Sign", "Mish", "Shrink", "Reciprocal"]
    x = np.concatenate([floats(12, low=-6, high=6), arr([0.5, 1.5, 2.5, -0.5, -1.5, 20, -20], F)])
    for op in any_:
        case(op, [x])
    for op in ["Acos", "Asin", "Atanh"]:
        case(op, [floats(8, low=-0.99, high=0.99)])
    case("Acosh", [floats(8, low=1, high=9)])
    for op in ["Log", "Sqrt"]:
        case(op, [floats(8, low=0.01, high=9)])
    for op in ["Exp", "Sqrt", "Log", "Sigmoid", "Floor", "Abs", "Neg", "Relu", "Round", "Reciprocal", "Erf"]:
        case(op, [floats(4, low=0.1, dtype=D)])
        case(op, [floats(4, low=0.1, dtype=np.float16)])
    for approximate in ["none", "tanh"]:
        case("Gelu", [x], opset=20, approximate=approximate)
    case("Elu", [x], alpha=0.3)
    case("Celu", [x], alpha=2.0)
    case("Selu", [x], alpha=2.0, gamma=0.5)
    case("LeakyRelu", [x], alpha=0.3)
    case("ThresholdedRelu", [x], alpha=0.3)
    case("HardSigmoid", [x], alpha=0.3, beta=0.1)
    case("Shrink", [x], bias=0.2, lambd=1.0)
    for dtype in [np.int8, np.int32, np.int64]:
        for op in ["Abs", "Neg", "Sign", "Relu"]:
            case(op, [ints(6, dtype=dtype)])
    by_numpy("Abs", [arr([-128, 5], np.int8)], arr([-128, 5], np.int8))
    for dtype in INTS:
        case("BitwiseNot", [ints(5, dtype=dtype)])
    case("Not", [bools(4)])
    special = arr([0, np.inf, -np.inf, np.nan], F)
    case("IsNaN", [special])
    case("IsInf", [special])
    case("IsInf", [special], detect_negative=0)
    case("Relu", [special])
    case("Clip", [x, arr(-1, F), arr(2, F)])
    case("Clip", [x, None, arr(2, F)])
    case("Clip", [x, arr(1, F)])
    case("Clip", [ints(9), arr(-3), arr(4)])
    case("Clip", [ints(9, dtype=np.uint8), arr(2, np.uint8), arr(4, np.uint8)])
    case("Clip", [x, arr(2, F), arr(-1, F)])


def binary():
    shapes = [((2, 3), (2, 3)), ((2, 3), ()), ((), (3,)), ((2, 1, 3), (4, 1)), ((3, 1), (1, 3)), ((0, 3), (1, 3))]
    for a, b in shapes:
        for op in ["Add", "Sub", "Mul", "Div", "Max", "Less", "Equal", "Pow"]:
            case(op, [floats(*a, low=0.5), floats(*b, low=0.5)])
    for dtype in INTS + [D, np.float16]:
        a, b = ints(6, dtype=dtype), ints(6, low=1, dtype=dtype)
        if dtype in (I, L, D):
            for op in ["Add", "Sub", "Mul", "Div"]:
                case(op, [a, b])
        elif dtype != np.float16:
            with np.errstate(over="ignore"):
                by_numpy("Add", [a * 20, b * 20], a * 20 + b * 20)
                by_numpy("Sub", [a, b], a - b)
                by_numpy("Mul", [a * 9, b * 9], (a * 9) * (b * 9))
                by_numpy("Div", [a, b], np.trunc(a / b).astype(dtype))
        for op in ["Less", "LessOrEqual", "Greater", "GreaterOrEqual"]:
            by_numpy(op, [a, b], {"Less": a < b, "LessOrEqual": a <= b, "Greater": a > b, "GreaterOrEqual": a >= b}[op])
        by_numpy("Equal", [a, b], a == b)
        by_numpy("Max", [a, b], np.maximum(a, b))
        by_numpy("Min", [a, b], np.minimum(a, b))
        if dtype not in (D, np.float16):
            c = np.where(b == 0, dtype(1), b)
            by_numpy("Mod", [a, c], np.mod(a, c))
            by_numpy("Mod", [a, c], np.fmod(a, c), fmod=1)
            for op, f in [("And", np.bitwise_and), ("Or", np.bitwise_or), ("Xor", np.bitwise_xor)]:
                by_numpy(f"Bitwise{op}", [a, b], f(a, b))
    case("Mod", [arr([-7, 7, -7, 7]), arr([3, -3, -3, 3])])
    case("Mod", [arr([-7, 7, -7, 7]), arr([3, -3, -3, 3])], fmod=1)
    case("Mod", [floats(6, low=-9, high=9), floats(6, low=1, high=3)], fmod=1)
    by_numpy("Div", [arr([-7, 7, -(2**63)]), arr([2, -2, -1])], arr([-3, -3, -(2**63)]))
    for dtype in [np.uint8, np.uint16, np.uint32, np.uint64]:
        for direction, f in [("LEFT", np.left_shift), ("RIGHT", np.right_shift)]:
            a, b = ints(5, high=99, dtype=dtype), ints(5, high=7, dtype=dtype)
            by_numpy("BitShift", [a, b], f(a, b), direction=direction)
    for a, b in [((2, 3), (3,)), ((2,), (2,))]:
        for op in ["And", "Or", "Xor", "Equal"]:
            case(op, [bools(*a), bools(*b)])
    case("Equal", [text(2, 5), text(5)], opset=19)
    case("Pow", [floats(5, low=0.5), arr(2, F)])
    case("Pow", [floats(5, low=0.5), arr(0.5, F)])
    case("Pow", [floats(5), arr([2, 3, 0, 1, 2])])
    case("Pow", [floats(5, low=0.1, dtype=D), floats(5, dtype=D)])
    case("Pow", [ints(5, dtype=I), arr([2, 3, 0, 1, 2], I)])
    by_numpy("Pow", [arr([2, 3, -1, -1, 5], L), arr([-1, 40, -3, -2, -2], L)], arr([0, 3**40 - 2**64, -1, 1, 0], L))
    case("PRelu", [floats(2, 3, 4), floats(3, 1)])
    for op in ["Max", "Min", "Sum", "Mean"]:
        case(op, [floats(2, 3), floats(3), floats(1, 1)])
        case(op, [floats(2, 3)])
    case("Max", [arr([1, np.nan, 2], F), arr([np.nan, 1, 3], F)])
    for x, y in [(floats(2, 3), floats(3)), (text(2, 3), text(2, 1)), (ints(2, 3), ints()), (bools(3), bools(2, 3))]:
        by_numpy("Where", [c := bools(2, 1), x, y], np.where(c, x, y))
    a, b = (floats(4) + 1j * floats(4)).astype(np.complex64), (floats(4) + 1j * floats(4)).astype(np.complex64)
    for op, result in [("Add", a + b), ("Sub", a - b), ("Mul", a * b), ("Div", a / b)]:
        by_numpy(op, [a, b], result)
    by_numpy("Neg", [a], -a)


def casts():
    samples = {
        "bool": bools(5),
        "float32": arr([0, 1.75, -2.5, 100.25, 3.99], F),
        "float64": arr([0, 1.75, -2.5, 100.25, 1e10], D),
        "float16": arr([0, 1.75, -2.5, 100.25, 3.99], np.float16),
    }
    for dtype in INTS:
        samples[np.dtype(dtype).name] = ints(5, high=120, dtype=dtype)
    for name, x in samples.items():
        for to in list(samples):
            # What does not fit has no meaning that all agree on.
            misfit = x.dtype.kind == "f" and (to.startswith("uint") or to == "int8")
            misfit |= name == "float64" and "int" in to and to != "int64"
            if to == name or misfit:
                continue
            case("Cast", [x], to=np.dtype(to))
    numbers = np.array(["1", "-2.5", "1e3", "0.125"], dtype=object)
    case("Cast", [numbers], to=F)
    case("Cast", [numbers], to=D)
    case("Cast", [np.array(["1", "-25", "9007199254740993"], dtype=object)], to=L)
    case("CastLike", [samples["float32"], arr([1])], opset=18)
    for x in [samples["int32"], arr([0.5, 1e-7, 123456789, -1e20, np.inf, np.nan, 0.1], F), bools(3)]:
        to_text(x)


def to_text(x):
    node = helper.make_node("Cast", ["i"], ["o"], to=TensorProto.STRING)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("i", onnx_type(x), x.shape)],
        [helper.make_tensor_value_info("o", TensorProto.STRING, x.shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"i": x})
    line = {"op": "Cast", "attributes": {"to": {"dtype": "string"}}, "inputs": [encode(x)], "outputs": [encode(expected[0])]}
    lines.append(json.dumps(line, separators=(",", ":"), ensure_ascii=False))


def movement():
    x = floats(2, 3, 4)
    everything = [x, ints(2, 3, 4), ints(2, 3, 4, dtype=np.uint8), bools(2, 3, 4), text(2, 3, 4), floats(2, 3, 4, dtype=np.float16), floats(2, 3, 4, dtype=D)]
    for t in everything:
        case("Transpose", [t], perm=[2, 0, 1])
        case("Slice", [t, arr([0, 1]), arr([9, -1]), arr([1, 2]), arr([2, 1])])
        case("Concat", [t, t[:, :1]], axis=1)
        # ONNX Runtime loses strings that are gathered along an inner axis.
        by_numpy("Gather", [t, index := arr([[0, -1], [1, 1]])], np.take(t, index, axis=1), axis=1)
        by_numpy("Expand", [t[:, :1], arr([2, 1, 3, 1])], np.broadcast_to(t[:, :1], (2, 2, 3, 4)))
        by_numpy("Tile", [t, arr([1, 2, 2])], np.tile(t, (1, 2, 2)))
        case("Identity", [t])
        case("Squeeze", [t[:1], arr([0])])
        case("Unsqueeze", [t, arr([0, -1])])
    c = (x + 1j * x).astype(np.complex128)
    by_numpy("Transpose", [c], c.transpose(2, 0, 1), perm=[2, 0, 1])
    case("Transpose", [x])
    case("Transpose", [floats(2, 1, 3)], perm=[1, 0, 2])
    case("Transpose", [floats(0, 3)])
    for shape in [[6, 4], [-1], [0, -1], [2, 0, 2, 2], [1, 2, -1, 1]]:
        case("Reshape", [x, arr(shape)])
    case("Reshape", [floats(0, 3), arr([3, 0])], allowzero=1)
    for axis in [0, 1, 2, 3, -1]:
        case("Flatten", [x], axis=axis)
    case("Squeeze", [floats(1, 3, 1)])
    for axis in [0, 1, 2, -1]:
        case("Concat", [x, x, x], axis=axis)
    case("Concat", [floats(0, 2), floats(3, 2)], axis=0)
    case("Split", [floats(5, 2), arr([2, 0, 3])], n_outputs=3, axis=0)
    case("Split", [floats(2, 7)], n_outputs=3, axis=1, num_outputs=3)
    case("Split", [text(2, 4)], n_outputs=2, axis=-1, num_outputs=2)
    slices = [
        ([1], [2], [0], None),
        ([-1], [-100], [1], [-1]),
        ([3], [0], [2], [-2]),
        ([-100], [100], [2], [3]),
        ([2], [1], [2], None),
        ([2**62], [-(2**62)], [2], [-1]),
        ([0, 3], [2, 0], [0, 2], [1, -1]),
    ]
    for starts, ends, axes, steps in slices:
        case("Slice", [x, arr(starts), arr(ends), arr(axes)] + ([arr(steps)] if steps else []))
    case("Slice", [x, arr([1, 0], I), arr([2, 2], I)])
    case("Gather", [x, arr(1)], axis=0)
    case("Gather", [x, arr([2, 0, -3], I)], axis=1)
    case("Gather", [text(4), arr([[0, 3]])])
    for axis in [0, 1, 2]:
        index = ints(2, 2, 3, low=-2, high=2)
        case("GatherElements", [x, index], axis=axis)
        case("ScatterElements", [x, index % 2 if axis == 0 else index, floats(2, 2, 3)], axis=axis, reduction="add")
    case("ScatterElements", [x, arr([[[0, 1]], [[2, -1]]]), floats(2, 1, 2)], axis=2)
    case("ScatterElements", [text(4), arr([1, 3]), np.array(["x", "y"], dtype=object)])
    for reduction in ["add", "mul", "max", "min"]:
        case("ScatterElements", [floats(5), arr([0, 0, 4]), floats(3)], reduction=reduction)
        case("ScatterND", [floats(4, 2), arr([[0], [0], [-1]]), floats(3, 2)], reduction=reduction)
    case("GatherND", [x, arr([[0, 1], [1, -1]])])
    case("GatherND", [x, arr([[[0, 1, 2]], [[1, 2, 3]]])])
    case("GatherND", [x, arr([[1], [2]])], batch_dims=1)
    case("GatherND", [text(2, 2), arr([[0], [1]])])
    case("ScatterND", [x, arr([[0, 1], [1, 2]]), floats(2, 4)])
    case("ScatterND", [text(4), arr([[1]]), text(1)])
    for mode in ["constant", "reflect", "edge", "wrap"]:
        case("Pad", [x, arr([0, 1, 2, 1, 2, 3])], opset=19, mode=mode)
    case("Pad", [x, arr([1, 2]), arr(7.5, F), arr([-1])])
    case("Pad", [x, arr([0, -1, 1, 0, 0, -2])])
    case("Pad", [ints(3), arr([2, 1]), arr(5)])
    by_numpy("Pad", [np.array(["a"], dtype=object), arr([1, 0]), np.array("z", dtype=object)], np.array(["z", "a"], dtype=object))
    for attributes in [{}, {"start": 1}, {"end": -1}, {"start": -2, "end": 9}]:
        case("Shape", [x], **attributes)
    case("Size", [x])
    case("ConstantOfShape", [arr([2, 3])])
    case("ConstantOfShape", [arr([2])], value=arr([7]))
    case("ConstantOfShape", [arr([], L)], value=arr([True], bool))
    by_numpy("Constant", [], arr([1, 2]), value_ints=[1, 2])
    for values in [([0, 10, 3], L), ([5, -5, -4], I), ([0, 1, 0.3], F), ([3, 1, 1], L), ([1, 0, -0.25], D)]:
        case("Range", [arr(v, values[1]) for v in values[0]])
    case("OneHot", [arr([0, 2, -1, 5]), arr(3), arr([0, 1], F)])
    case("OneHot", [arr([[0, 2]]), arr([4]), arr([5, 7])], axis=0)
    case("OneHot", [arr([[0, 2]]), arr(4), arr([5, 7])], axis=1)
    for k in [None, -1, 0, 1, 9, -9]:
        for upper in [0, 1]:
            case("Trilu", [floats(2, 3, 4)] + ([] if k is None else [arr(k)]), upper=upper)
    case("EyeLike", [floats(3, 4)], k=1)
    case("EyeLike", [ints(3, 2)], k=-1)
    by_numpy("EyeLike", [ints(2, 3)], np.eye(2, 3, dtype=F), dtype=F)
    for t in [floats(2, 3).round(), ints(2, 3, low=0, high=2), bools(2, 3), bools(4)]:
        case("NonZero", [t])
    case("Compress", [x, arr([True, False, True], bool)], axis=1)
    case("Compress", [x, bools(10)])
    case("Compress", [text(4), arr([True, False, True], bool)])
    t = arr([2, 1, 1, 3, 4, 3], F)
    for sorted_ in [0, 1]:
        case("Unique", [t], n_outputs=4, sorted=sorted_)
        case("Unique", [text(7)], n_outputs=4, sorted=sorted_)
        case("Unique", [arr([[1, 0, 0], [1, 0, 0], [2, 3, 4]], F)], n_outputs=4, axis=0, sorted=sorted_)
        case("Unique", [arr([[1, 1, 0], [2, 2, 0]], L)], n_outputs=4, axis=1, sorted=sorted_)
    case("ReverseSequence", [floats(4, 3), arr([1, 2, 4])])
    case("ReverseSequence", [floats(3, 4, 2), arr([1, 2, 4])], time_axis=1, batch_axis=0)
    case("DepthToSpace", [floats(1, 8, 2, 3)], blocksize=2)
    case("DepthToSpace", [floats(1, 8, 2, 3)], blocksize=2, mode="CRD")
    case("SpaceToDepth", [floats(1, 2, 4, 6)], blocksize=2)
    for attributes in [{}, {"exclusive": 1}, {"reverse": 1}, {"exclusive": 1, "reverse": 1}]:
        case("CumSum", [x, arr(1)], **attributes)
    case("CumSum", [ints(4), arr(-1, I)])
    y = arr([[3, 1, 3, 2], [0, 5, 5, 4]], F)
    for attributes in [{}, {"axis": 0}, {"largest": 0}]:
        case("TopK", [y, arr([2])], n_outputs=2, **attributes)
    case("TopK", [ints(3, 6), arr([6])], n_outputs=2)
    for op in ["ArgMax", "ArgMin"]:
        for attributes in [{"axis": 0}, {"axis": -1, "keepdims": 0}, {"axis": 1, "select_last_index": 1}]:
            case(op, [y], **attributes)
        case(op, [ints(3, 4, dtype=I)], axis=1)
    case("Dropout", [x], n_outputs=2)


def reductions():
    ops = ["Sum", "Mean", "Prod", "Max", "Min", "L1", "L2", "SumSquare", "LogSum", "LogSumExp"]
    x = floats(2, 3, 4, low=0.1)
    for op in ops:
        for axes in [None, [0], [1], [-1], [0, 2], [1, 2]]:
            for keepdims in [0, 1]:
                if keepdims == 0 and axes in ([1], [0, 2]):
                    continue
                case(f"Reduce{op}", [x] + ([] if axes is None else [arr(axes)]), keepdims=keepdims)
        case(f"Reduce{op}", [floats(2, 3, low=0.1, dtype=D), arr([1])])
        case(f"Reduce{op}", [ints(2, 3, low=1, dtype=I), arr([1])])
    for op in ["Sum", "Max", "Min", "Prod"]:
        case(f"Reduce{op}", [ints(2, 3), arr([0])])
    case("ReduceSum", [x], noop_with_empty_axes=1)
    case("ReduceSum", [floats(0, 3), arr([0])])
    case("ReduceMean", [ints(3, 3), arr([0])])
    by_numpy("ReduceSum", [arr([[100, 100]], np.int8), arr([1])], arr([[-56]], np.int8))
    by_numpy("ReduceMax", [b := bools(3, 2), arr([0])], b.max(axis=0, keepdims=True))
    case("ReduceLogSumExp", [arr([[1000, 1000]], F), arr([1])])


def algebra():
    shapes = [((2, 3), (3, 4)), ((3,), (3, 4)), ((2, 3), (3,)), ((3,), (3,)), ((2, 2, 3), (3, 2)), ((2, 1, 2, 3), (3, 3, 2)), ((2, 3), (2, 3, 2)), ((1, 40), (40, 9)), ((0, 3), (3, 2)), ((2, 0), (0, 3))]
    for a, b in shapes:
        case("MatMul", [floats(*a), floats(*b)])
    case("MatMul", [floats(17, 18), floats(18, 19)])
    case("MatMul", [floats(2, 3, dtype=D), floats(3, 2, dtype=D)])
    case("MatMul", [ints(2, 3), ints(3, 2)])
    case("MatMul", [ints(2, 3, dtype=I), ints(2, 3, 2, dtype=I)])
    for transA in [0, 1]:
        for transB in [0, 1]:
            a, b = floats(*((4, 17) if transA else (17, 4))), floats(*((15, 4) if transB else (4, 15)))
            if transA == transB:
                case("Gemm", [a, b, floats(15)], transA=transA, transB=transB, alpha=0.5, beta=2.0)
            else:
                case("Gemm", [a, b, floats(17, 1)], transA=transA, transB=transB)
    case("Gemm", [floats(2, 3), floats(3, 2)])
    case("Gemm", [floats(2, 3), floats(3, 2), arr(1.5, F)], beta=0.5)
    equations = [
        ("ij,jk->ik", (2, 3), (3, 4)),
        ("ij,jk", (2, 3), (3, 4)),
        ("ij->ji", (2, 3)),
        ("ii->i", (3, 3)),
        ("ii", (3, 3)),
        ("ij->", (2, 3)),
        ("bij,bjk->bik", (2, 2, 3), (2, 3, 2)),
        ("...ij,...jk->...ik", (2, 2, 3), (2, 3, 2)),
        ("...ij,jk->...ik", (2, 2, 3), (3, 2)),
        ("i,j->ij", (2,), (3,)),
        ("i,i->", (3,), (3,)),
        ("abc,cde->abde", (2, 2, 3), (3, 2, 2)),
        ("aecd,abcd->acbe", (1, 2, 2, 3), (1, 3, 2, 3)),
        ("acbe,aecd->abcd", (1, 2, 2, 3), (1, 3, 2, 2)),
        ("ij,jk,kl->il", (2, 3), (3, 2), (2, 2)),
        ("ij,kj->ik", (2, 3), (4, 3)),
        ("ij,i->j", (2, 3), (2,)),
        ("bhwc,hkc->bhwk", (1, 2, 2, 3), (2, 4, 3)),
        ("ij,ik->i", (2, 3), (2, 2)),
        ("...->...", (2, 3)),
        ("b...c->c...b", (2, 3, 2)),
    ]
    for equation, *shapes in equations:
        case("Einsum", [floats(*shape) for shape in shapes], equation=equation)
    case("Einsum", [ints(2, 3), ints(3, 2)], equation="ij, jk -> ki")


def convolutions():
    def conv(x, w, bias=True, **attributes):
        m = w[0]
        case("Conv", [floats(*x), floats(*w)] + ([floats(m)] if bias else []), **attributes)

    conv((1, 2, 7), (3, 2, 3))
    conv((2, 2, 7), (3, 2, 3), strides=[2], pads=[1, 2])
    conv((1, 2, 8), (4, 1, 3), group=2, dilations=[2])
    conv((1, 2, 5, 6), (3, 2, 3, 2))
    conv((1, 2, 5, 6), (3, 2, 3, 3), bias=False, pads=[1, 1, 1, 1])
    conv((1, 2, 5, 6), (3, 2, 3, 3), strides=[2, 3], pads=[0, 2, 1, 1])
    conv((1, 2, 6, 7), (3, 2, 2, 3), dilations=[2, 2], pads=[1, 0, 2, 3])
    conv((1, 4, 5, 5), (4, 1, 3, 3), group=4, pads=[1, 1, 1, 1])
    conv((1, 2, 5, 5), (4, 1, 3, 3), group=2)
    conv((2, 3, 3, 3), (5, 3, 1, 1))
    conv((1, 3, 4, 4), (2, 3, 1, 1), strides=[2, 2])
    conv((1, 1, 3, 4, 4), (2, 1, 2, 2, 3))
    conv((1, 1, 3, 4, 4), (2, 1, 2, 3, 3), pads=[1, 1, 0, 0, 1, 2], strides=[1, 2, 2])
    for auto_pad in ["SAME_UPPER", "SAME_LOWER", "VALID"]:
        conv((1, 1, 5, 6), (2, 1, 2, 3), auto_pad=auto_pad, strides=[2, 2])
    conv((1, 1, 2, 2), (1, 1, 3, 3), pads=[3, 3, 3, 3])

    def transposed(x, w, bias=True, groups=1, **attributes):
        case("ConvTranspose", [floats(*x), floats(*w)] + ([floats(w[1] * groups)] if bias else []), group=groups, **attributes)

    transposed((1, 2, 4), (2, 3, 3))
    transposed((1, 2, 4), (2, 3, 3), strides=[2], output_padding=[1], pads=[1, 0])
    transposed((1, 2, 3, 4), (2, 3, 3, 2))
    transposed((2, 2, 3, 4), (2, 3, 3, 2), bias=False, strides=[2, 3], pads=[1, 0, 1, 1])
    transposed((1, 4, 3, 3), (4, 1, 2, 2), groups=2, strides=[2, 2])
    transposed((1, 1, 3, 3), (1, 2, 2, 2), dilations=[2, 2])
    transposed((1, 1, 3, 3), (1, 2, 3, 3), strides=[2, 2], output_shape=[6, 7])
    transposed((1, 1, 2, 3, 2), (1, 2, 2, 2, 2), strides=[2, 2, 1])
    for auto_pad in ["SAME_UPPER", "SAME_LOWER", "VALID"]:
        transposed((1, 1, 3, 4), (1, 1, 3, 2), auto_pad=auto_pad, strides=[2, 2])

    x1, x2, x3 = floats(1, 2, 7), floats(2, 1, 6, 7), floats(1, 1, 4, 5, 4)
    for op in ["MaxPool", "AveragePool"]:
        opset = 19 if op == "AveragePool" else 18
        case(op, [x1], kernel_shape=[3])
        case(op, [x1], kernel_shape=[2], strides=[2], pads=[1, 0])
        case(op, [x2], kernel_shape=[3, 2], strides=[2, 3])
        case(op, [x2], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        case(op, [x2], kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1)
        case(op, [x2], kernel_shape=[3, 3], strides=[3, 3], pads=[1, 0, 0, 1], ceil_mode=1)
        case(op, [x2], opset=opset, kernel_shape=[2, 2], dilations=[2, 3])
        case(op, [x3], kernel_shape=[2, 3, 2], strides=[2, 1, 1])
        for auto_pad in ["SAME_UPPER", "SAME_LOWER", "VALID"]:
            case(op, [x2], kernel_shape=[3, 2], strides=[2, 2], auto_pad=auto_pad)
    case("AveragePool", [x2], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)
    case("AveragePool", [x2], opset=19, kernel_shape=[3, 3], strides=[3, 3], pads=[1, 0, 0, 1], ceil_mode=1, count_include_pad=1)
    case("MaxPool", [x2], n_outputs=2, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    case("MaxPool", [ints(1, 1, 4, 4, dtype=np.uint8)], kernel_shape=[2, 2])
    case("MaxPool", [floats(1, 1, 4, dtype=D)], kernel_shape=[2])
    case("LpPool", [x2], kernel_shape=[2, 2], p=3)
    case("LpPool", [x2], kernel_shape=[2, 2], strides=[2, 2])
    for op in ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"]:
        case(op, [x2])
        case(op, [x3])


def normalisations():
    x = floats(2, 3, 4)
    for op in ["Softmax", "LogSoftmax", "Hardmax"]:
        for axis in [0, 1, -1]:
            case(op, [x], axis=axis)
        case(op, [x])
    case("Softmax", [arr([[1000, -np.inf, 999]], F)])
    case("Softmax", [floats(2, 3, dtype=D)])
    for p in [1, 2]:
        case("LpNormalization", [x], axis=1, p=p)
    images = floats(2, 3, 2, 2)
    per_channel = [floats(3), floats(3), floats(3), floats(3, low=0.1)]
    case("BatchNormalization", [images] + per_channel)
    case("BatchNormalization", [images[:, :, 0, 0]] + per_channel, epsilon=0.01)
    case("InstanceNormalization", [images] + per_channel[:2], epsilon=0.01)
    case("LayerNormalization", [x, floats(4), floats(4)])
    case("LayerNormalization", [x, floats(3, 4)], axis=1, epsilon=0.01, n_outputs=3)
    case("MeanVarianceNormalization", [images])
    case("MeanVarianceNormalization", [images], axes=[1])
    for size in [1, 3, 5]:
        case("LRN", [floats(1, 4, 2, 2)], size=size, alpha=0.5, beta=0.6, bias=1.5)


def resizes():
    x = floats(1, 1, 3, 4)
    modes = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]
    for how in modes:
        for sizes in [(5, 7), (2, 3), (6, 8), (1, 1)]:
            for mode in ["linear", "cubic"]:
                case("Resize", [x, None, None, arr([1, 1, *sizes])], mode=mode, coordinate_transformation_mode=how, opset=19)
    for how in modes + ["tf_half_pixel_for_nn"]:
        for rounding in ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]:
            for sizes in [(5, 7), (2, 3), (6, 8)]:
                opset = 19 if how == "half_pixel_symmetric" else 13 if how == "tf_half_pixel_for_nn" else 18
                case("Resize", [x, None, None, arr([1, 1, *sizes])], mode="nearest", nearest_mode=rounding, coordinate_transformation_mode=how, opset=opset)
    case("Resize", [x, None, arr([1, 1, 2, 0.6], F)], mode="linear")
    case("Resize", [x, None, arr([1, 1, 2, 2], F)], mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric")
    case("Resize", [x, None, arr([1, 1, 0.8, 0.8], F)], mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1)
    case("Resize", [x, arr([0, 0, 0.2, -0.3, 1, 1, 0.9, 1.2], F), None, arr([1, 1, 4, 5])], mode="linear", coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=9.0)
    case("Resize", [floats(1, 2, 4), None, None, arr([1, 2, 7])], mode="linear")
    case("Resize", [x, None, None, arr([6, 6])], axes=[2, 3], keep_aspect_ratio_policy="not_larger", mode="nearest")
    case("Resize", [x, None, None, arr([6, 6])], axes=[2, 3], keep_aspect_ratio_policy="not_smaller", mode="linear")
    case("Resize", [ints(1, 1, 2, 3, dtype=np.uint8), None, arr([1, 1, 2, 2], F)], mode="nearest")


def suppression():
    boxes = np.concatenate([floats(2, 8, 2, low=0, high=3), floats(2, 8, 2, low=2, high=5)], axis=2)
    scores = floats(2, 3, 8, low=0, high=1)
    for most, overlap, least in [(3, 0.3, 0.2), (9, 0.5, None), (9, 0.1, 0.5), (0, 0.5, 0.1)]:
        inputs = [boxes, scores, arr(most), arr(overlap, F)] + ([] if least is None else [arr(least, F)])
        case("NonMaxSuppression", inputs)
        case("NonMaxSuppression", inputs, center_point_box=1)
    case("NonMaxSuppression", [boxes[..., ::-1], scores, arr(2), arr(0.5, F)])
    case("NonMaxSuppression", [boxes, scores])


def recurrent():
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}

    def layer(op, steps=4, batch=2, size=3, hidden=2, bias=True, state=False, lens=None, peepholes=False, batch_first=False, **attributes):
        dirs = 2 if attributes.get("direction") == "bidirectional" else 1
        g = gates[op]
        n = lambda *shape: floats(*shape, low=-1, high=1)
        x = n(steps, batch, size)
        inputs = [x, n(dirs, g * hidden, size), n(dirs, g * hidden, hidden)]
        inputs.append(n(dirs, 2 * g * hidden) if bias else None)
        inputs.append(None if lens is None else arr(lens, I))
        inputs.append(n(dirs, batch, hidden) if state else None)
        if op == "LSTM":
            inputs.append(n(dirs, batch, hidden) if state else None)
            inputs.append(n(dirs, 3 * hidden) if peepholes else None)
        while inputs[-1] is None:
            inputs.pop()
        n_outputs = 3 if op == "LSTM" else 2
        if not batch_first:
            case(op, inputs, n_outputs=n_outputs, hidden_size=hidden, **attributes)
            return
        # ONNX Runtime lacks layout 1: its result with the axes exchanged.
        before = len(lines)
        case(op, inputs, n_outputs=n_outputs, hidden_size=hidden, **attributes)
        line = json.loads(lines[before])
        line["attributes"]["layout"] = 1

        def flip(entry, order):
            name, shape, data = entry
            flipped = np.array(data, dtype=object).reshape(shape).transpose(order)
            return [name, list(flipped.shape), flipped.reshape(-1).tolist()]

        for i in (0, 5, 6):
            if i < len(line["inputs"]) and line["inputs"][i] is not None:
                line["inputs"][i] = flip(line["inputs"][i], (1, 0, 2))
        line["outputs"] = [flip(out, (2, 0, 1, 3) if i == 0 else (1, 0, 2)) for i, out in enumerate(line["outputs"])]
        lines[before] = json.dumps(line, separators=(",", ":"))

    for op in gates:
        for direction in ["forward", "reverse", "bidirectional"]:
            layer(op, direction=direction)
            layer(op, direction=direction, lens=[2, 4], state=True)
        layer(op, bias=False)
        layer(op, state=True, batch=1, hidden=17)
        layer(op, batch=9, hidden=3, size=2)
        layer(op, clip=0.4)
        layer(op, state=True, batch_first=True, direction="bidirectional")
        layer(op, steps=1, batch=1, size=1, hidden=1)
    for lens in [None, [1, 3]]:
        layer("GRU", linear_before_reset=1, lens=lens)
        layer("GRU", linear_before_reset=1, lens=lens, bias=False, state=True, direction="bidirectional")
    layer("GRU", linear_before_reset=1, batch=1, hidden=17)
    layer("LSTM", peepholes=True, state=True)
    layer("LSTM", peepholes=True, direction="bidirectional", lens=[4, 1])
    layer("LSTM", input_forget=1)
    for name, constants in [
        ("Relu", {}), ("Sigmoid", {}), ("Tanh", {}), ("Softsign", {}), ("Softplus", {}),
        ("HardSigmoid", {"activation_alpha": [0.3], "activation_beta": [0.4]}),
        ("Elu", {"activation_alpha": [0.5]}),
        ("LeakyRelu", {"activation_alpha": [0.3]}),
        ("ThresholdedRelu", {"activation_alpha": [0.3]}),
        ("ScaledTanh", {"activation_alpha": [0.7], "activation_beta": [0.6]}),
        ("Affine", {"activation_alpha": [0.7], "activation_beta": [0.1]}),
    ]:
        layer("RNN", activations=[name], **constants)
    layer("GRU", activations=["HardSigmoid", "Softsign"], activation_alpha=[0.2], activation_beta=[0.5])
    layer("GRU", activations=["Sigmoid", "Relu", "HardSigmoid", "Tanh"], direction="bidirectional")
    layer("LSTM", activations=["HardSigmoid", "Elu", "LeakyRelu"], activation_alpha=[0.2, 0.9, 0.1], activation_beta=[0.5])


for group in [elementwise, binary, casts, movement, reductions, algebra, convolutions, normalisations, resizes, suppression, recurrent]:
    before = len(lines)
    group()
    print(f"{group.__name__}: {len(lines) - before} cases")
for message in failed:
    print("left out:", message)
path = pathlib.Path(__file__).with_name("golden.jsonl")
path.write_text("\n".join(lines) + "\n")
print(len(lines), "cases,", path.stat().st_size // 1000, "kB")
