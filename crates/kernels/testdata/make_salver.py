"""Writes salver.jsonl: calls of the operators of the domain `salver`, with TensorFlow's own answers.

    python make_salver.py        (needs TensorFlow; made with 2.21)

One case per line: operator, attributes, inputs, and either the outputs or the text of the error. Elements of a fixed size
are hexadecimal little-endian bytes, strings are texts whose code points are bytes.
"""

import json
import os
import pathlib
import random
import re

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf

R = tf.raw_ops
I64, I32, F32, F64 = np.int64, np.int32, np.float32, np.float64
OUT = []
random.seed(3)


def strings(*shape_and_items):
    return np.array(shape_and_items, dtype=object)


def text(value):
    return (value.encode() if isinstance(value, str) else bytes(value)).decode("latin-1")


def tensor(value):
    if hasattr(value, "numpy"):
        dtype, value = value.dtype, value.numpy()
        if dtype == tf.string:
            array = np.empty(np.shape(value), dtype=object)
            array[...] = value
            value = array
    value = np.asarray(value)
    if value.dtype.kind in "OSU":
        return {"dtype": "string", "dims": list(value.shape), "values": [text(item) for item in value.ravel()]}
    name = "bfloat16" if value.dtype == tf.bfloat16.as_numpy_dtype else value.dtype.name
    return {"dtype": name, "dims": list(value.shape), "values": value.tobytes().hex()}


def attribute(value):
    if isinstance(value, np.ndarray):
        return {"tensor": tensor(value)}
    if isinstance(value, tf.DType):
        return {"dtype": value.name}
    if isinstance(value, list) and value and isinstance(value[0], tf.DType):
        return {"dtypes": [item.name for item in value]}
    if isinstance(value, list) and value and isinstance(value[0], str):
        return {"strings": value}
    if isinstance(value, list) and value and isinstance(value[0], float):
        return {"floats": value}
    if isinstance(value, list):
        return {"ints": value}
    if isinstance(value, (bool, int)):
        return {"int": int(value)}
    if isinstance(value, float):
        return {"float": value}
    return {"string": value}


def case(op, inputs, compute, **attributes):
    """Inputs are arrays; `compute` asks TensorFlow."""
    record = {"op": op, "attributes": {name: attribute(value) for name, value in attributes.items()}}
    record["inputs"] = [tensor(value) for value in inputs]
    try:
        result = compute()
        outputs = tf.nest.flatten(list(result) if isinstance(result, tuple) else result)
        record["outputs"] = [tensor(value) for value in outputs]
    except (tf.errors.OpError,) as error:
        record["error"] = re.sub(r"^\{\{.*?\}\} | \[Op:\w+\].*$", "", error.message, flags=re.S)
    OUT.append(record)


def op(name, arguments, tf_name=None, renamed=None, **attributes):
    """A case whose inputs and attributes are named as TensorFlow names them."""
    arguments = {key: value if isinstance(value, (list, np.ndarray, tf.Tensor)) else np.asarray(value) for key, value in arguments.items()}
    flat = []
    for value in arguments.values():
        flat.extend(value if isinstance(value, list) else [value])
    passed = {(renamed or {}).get(key, key): value for key, value in attributes.items()}
    case(name, flat, lambda: getattr(R, tf_name or name)(**arguments, **passed), **attributes)


# Strings ----------------------------------------------------------------------------------------------------------------

WORDS = strings("", "Hello World", "  a\tb \n", "ÄÖÜ straße", b"\xff\xfeA", "\v\f x  ", "ΑΣΣ", "İi", "a,b,,c", "日本語 text")
for encoding in ["", "utf-8"]:
    op("StringLower", {"input": WORDS}, encoding=encoding)
    op("StringUpper", {"input": WORDS}, encoding=encoding)
op("StringStrip", {"input": WORDS.reshape(2, 5)})
for unit in ["BYTE", "UTF8_CHAR"]:
    op("StringLength", {"input": WORDS}, unit=unit)
op("StringLength", {"input": strings(b"\x80\x80a", b"\xff")}, unit="UTF8_CHAR")
op("StringJoin", {"inputs": [strings("a", "b"), np.array("-", object), strings("c", "")]}, separator="_")
op("StringJoin", {"inputs": [np.array("x", object), np.array("y", object)]})
op("StringJoin", {"inputs": [strings("a"), strings("b", "c")]})
op("StringJoin", {"inputs": [np.zeros([0], object)]})
CUBE = np.array([f"{i}{j}{k}" for i in range(2) for j in range(3) for k in range(2)], object).reshape(2, 3, 2)
for axes in [[0], [1], [2], [0, 1], [1, 0], [0, 1, 2], [2, 1, 0], [1, 2], [-1], [-3, 2], []]:
    for keep in [False, True]:
        op("ReduceJoin", {"inputs": CUBE, "reduction_indices": np.array(axes, I32)}, keep_dims=keep, separator="|" if keep else "")
op("ReduceJoin", {"inputs": np.zeros([2, 0], object), "reduction_indices": np.array([1], I32)})
op("ReduceJoin", {"inputs": CUBE, "reduction_indices": np.array([3], I32)})
op("ReduceJoin", {"inputs": CUBE, "reduction_indices": np.array([1, -2], I32)})
for unit, value in [("BYTE", strings("abcdef", "xyz", "123")), ("UTF8_CHAR", strings("äöü€xy", "日本語", "abc"))]:
    for position, length in [(0, 2), (1, 10), (-2, 1), (-3, 2), (3, 5), (2, 0), (4, 1), (-4, 1)]:
        op("Substr", {"input": value, "pos": I32(position), "len": I32(length)}, unit=unit)
    op("Substr", {"input": value, "pos": np.array([0, 1, 2], I64), "len": np.array([3, 2, 1], I64)}, unit=unit)
op("Substr", {"input": np.array("abcdef", object), "pos": np.array([1, -3], I32), "len": np.array([1, 10], I32)})
op("Substr", {"input": np.array([["abcdef", "xyz"], ["123", "456"]], object), "pos": np.array([1, 2], I32), "len": np.array([1, 1], I32)})
op("Substr", {"input": np.array([["abcdef", "xyz"], ["123", "456"]], object), "pos": np.array([1, 9], I32), "len": np.array([1, 1], I32)})
op("Substr", {"input": strings(b"\xff\x80\x80a"), "pos": I32(1), "len": I32(5)}, unit="UTF8_CHAR")

TEXTS = strings("Hello, W! 12", "", "aaa", "x_y-z [q]^b", "ä É 日", "t\tn\nl", "a.b*c\\d", "2024-01-31")
PATTERNS = [
    (r"[!\"#$%&()\*\+,-\./:;<=>?@\[\\\]^_`{|}~\']", ""), (r"a*", "<\\0>"), (r"", "-"), (r"(\w+)\s(\w+)", r"\2 \1"), (r"\d", "#"), (r"\D+", "."),
    (r"[^\w\s]", ""), (r"\bb", "B"), (r"(?i)HELLO", "bye"), (r"^.", "^"), (r".$", "$"), (r"[[:punct:]]", "p"), (r"[[:^alpha:]]", "n"), (r"\s+", " "),
    (r"[äÉ]", "e"), (r"\Qa.b*\E", "Q"), (r"(a)|(b)", r"[\1|\2]"), (r"x|", "y"), (r"[a-]", "m"), (r"[]a]", "r"), (r"[&~]", "s"), (r"\.", "dot"),
    (r"\p{L}", "L"), (r"[^\d-]", ""), (r"(\d{4})-(\d\d)", r"\2/\1\\"), (r"b", r"[\1]"), (r"b", r"[\q]x"), (r"\141", "oct"), (r"(?P<n>l+)", r"<\1>"),
    (r"\x41|\x{65e5}", "hex"), (r"a{2}", "2"), (r"[\[\]]", "br"), (r"(?s).+", "all"), (r"(?m)^n", "N"), (r"\S", "s"), (r"[\D]", "d"), (r"a+?", "l"),
    (r"(?U)a+", "u"), (r"\W", "w"), (r"[\S-]", "-"), (r"\z", "end"), (r"\A", "begin"), (r"[--/]", "range"), (r"[a-c&&b]", "and"), (r"\<", "lt"),
]
for pattern, rewrite in PATTERNS:
    for every in [True, False]:
        op("RegexReplace", {"input": TEXTS if every else TEXTS[:4], "pattern": np.array(pattern, object), "rewrite": np.array(rewrite, object)}, replace_global=every)
for pattern in [r"aaa", r"a*", r"a", r".*", r"(?s).*", r"\w+", r"(a|aa)+", r"[^a]*", r"Hello.*3", r"a|aaa", r"^aaa$", r"[äöüÉ日本 ]+"]:
    op("RegexFullMatch", {"input": TEXTS, "pattern": np.array(pattern, object)})
op("RegexReplace", {"input": strings(b"\xff\xfea\xc3"), "pattern": np.array(".", object), "rewrite": np.array("x", object)})
op("RegexReplace", {"input": strings(b"\xff\xfea\xc3"), "pattern": np.array("", object), "rewrite": np.array("-", object)})
for separator in ["", ",", "a", "--"]:
    for most in [-1, 0, 1, 2]:
        value = strings("a  b", "", "a,,b", ",a,", "  x y  z ", "--a----b--", "aaa", "\t\n")
        case("StringSplit", [value, np.array(separator, object)], lambda: R.StringSplitV2(input=value, sep=separator, maxsplit=most), maxsplit=most)
TOKENS = np.array(list("abcdefg"), object)
for widths, pad, short in [([1, 2], -1, False), ([3], 0, True), ([3], 1, True), ([2, 3], 1, False), ([5, 4], 0, True), ([4], 2, False), ([1], 5, False), ([9], 2, True)]:
    for dtype in [I32, I64]:
        # Of an array TensorFlow would make int64 here.
        splits = tf.constant([0, 3, 3, 4, 7], dtype)
        op("StringNGrams", {"data": TOKENS, "data_splits": splits}, separator="|", ngram_widths=widths, left_pad="L", right_pad="RR", pad_width=pad, preserve_short_sequences=short)
for splits in [[0, 9], [0, 3], [1, 7], [0, 5, 3, 7], [0]]:
    op("StringNGrams", {"data": TOKENS, "data_splits": np.array(splits, I64)}, separator=" ", ngram_widths=[2], left_pad="", right_pad="", pad_width=0, preserve_short_sequences=False)

# Text and numbers -------------------------------------------------------------------------------------------------------

FLOATS = [0.1, -1e10, np.inf, -np.inf, np.nan, 1e-10, 0.0, -0.0, 1e6, 123456789, 0.5, 1.5, 2.5, 1e5, 999999.5, 1e-5, 0.0001, 3.14159265, 1e30, -7.25]
STYLES = [
    {}, {"precision": 3}, {"precision": 0}, {"scientific": True}, {"shortest": True}, {"width": 12}, {"width": 12, "fill": "0"}, {"width": 12, "fill": "-"},
    {"width": 12, "fill": "+"}, {"width": 9, "fill": " "}, {"precision": 2, "scientific": True, "width": 12}, {"precision": 3, "shortest": True},
    {"precision": 0, "shortest": True}, {"precision": 12, "shortest": True}, {"scientific": True, "precision": 0}, {"shortest": True, "width": 10, "fill": "0"},
    {"shortest": True, "fill": "#"}, {"scientific": True, "shortest": True}, {"fill": "x", "width": 3}, {"fill": "00", "width": 3},
]
for style in STYLES:
    op("AsString", {"input": np.array(FLOATS[:8], F32)}, **style)
    op("AsString", {"input": np.array(FLOATS, F64)}, **style)
    op("AsString", {"input": np.array([0, 1, -2, 12345, -987654321], I32)}, **style)
op("AsString", {"input": np.array([0.1, 65504, 2.5], np.float16)})
op("AsString", {"input": np.array([0.1, 65504, 2.5], tf.bfloat16.as_numpy_dtype)})
op("AsString", {"input": np.array([200, 7], np.uint8)}, width=5, fill="0")
op("AsString", {"input": np.array([-(2**63), 2**63 - 1], I64)})
op("AsString", {"input": np.array([2**64 - 1], np.uint64)})
op("AsString", {"input": np.array([[True], [False]])}, width=8)
op("AsString", {"input": strings("q", "wwwww")}, width=4)
op("AsString", {"input": strings("q", "wwwww")}, width=4, fill="-")
NUMBERS = ["", " 1 ", "1e", "0x1f", "0x1p3", "-0x1.8p-2", "inf", "infinity", "-INF", "+inf", "nan", "1_0", "1.", ".5", "+5", "1e400", "-1e400", "1e-400", "\t2\n", "1 2", "1f",
           ".", "-", "--1", "+-1", "1e5", "0x", "\v3", "3.4028235e38", "16777217", "0.1", "1e-45", "2147483647", "2147483648", "-2147483648", "-2147483649", "-1",
           "4294967295", "4294967296", "9223372036854775807", "9223372036854775808", "18446744073709551615", "1.0", "007", "-0", "- 5"]
for dtype in [tf.float32, tf.float64, tf.int32, tf.int64, tf.uint32, tf.uint64]:
    good = []
    for number in NUMBERS:
        try:
            R.StringToNumber(string_tensor=number, out_type=dtype)
            good.append(number)
        except tf.errors.OpError:
            if dtype in (tf.float32, tf.int32):
                op("StringToNumber", {"string_tensor": strings(number)}, out_type=dtype)
    op("StringToNumber", {"string_tensor": np.array(good, object)}, out_type=dtype)
op("StringToNumber", {"string_tensor": np.array([["1", "2"]], object)})
BYTES = strings(b"", b"a", b"ab", b"abc", b"\xff\xfe\xfd\xfc", bytes(range(256)))
for pad in [False, True]:
    op("EncodeBase64", {"input": BYTES}, pad=pad)
for value in ["YQ==", "YQ=", "YQ", "Y", "YR", "YQ=Q", "", "====", "a+b/", "a-b_", "YQ==YQ==", "YQ\n", "YWI=", "YWJj", "YWJjZA", "=", "Y==="]:
    op("DecodeBase64", {"input": strings(value)})
for dtype in [tf.int16, tf.uint8, tf.float32, tf.float64, tf.int64, tf.float16, tf.complex64]:
    for little in [True, False]:
        value = strings(bytes(range(64, 80)), bytes(range(65, 81)))
        case("DecodeRaw", [value], lambda: R.DecodeRaw(bytes=value, out_type=dtype, little_endian=little), out_type=dtype, little_endian=little)
for value in [strings(b"abcd", b"abc"), strings(b"abc", b"abc"), strings(b"", b""), np.zeros([0], object), np.array([[b"\0\1"]], object)]:
    case("DecodeRaw", [value], lambda: R.DecodeRaw(bytes=value, out_type=tf.int16), out_type=tf.int16)
HASHED = np.array([random.randbytes(n) for n in list(range(0, 35)) + [63, 64, 65, 66, 70, 127, 128, 129, 200, 256, 300]], object)
for buckets in [2**62, 1000, 1]:
    value = HASHED if buckets == 2**62 else HASHED[:9]
    op("StringToHashBucketFast", {"input": value}, num_buckets=buckets)
    op("StringToHashBucketStrong", {"input": value}, num_buckets=buckets, key=[0x0123456789ABCDEF, 77])
    op("StringToHashBucket", {"string_tensor": value}, num_buckets=buckets)

# Integers ---------------------------------------------------------------------------------------------------------------

for dtype in [np.int8, I32, I64, np.uint8, np.uint64]:
    info = np.iinfo(dtype)
    x = np.array([info.min, info.max, 7, 0, 1, info.max // 2], dtype)
    y = np.array([3, info.max, 2, 5, 1, 4], dtype)
    for name in ["BitwiseAnd", "BitwiseOr", "BitwiseXor", "FloorDiv"]:
        op(name, {"x": x, "y": y})
    # A single number of bits: TensorFlow's answer to a count that is out of range depends on how it is vectorised.
    bits = info.bits
    for count in [0, 1, bits - 1]:
        op("LeftShift", {"x": x, "y": np.full(6, count, dtype)})
        op("RightShift", {"x": x, "y": np.full(6, count, dtype)})
    if info.min < 0:
        op("FloorDiv", {"x": np.array([-7, 7, -7, 7, -6, info.min], dtype), "y": np.array([2, -2, -2, 2, 3, -1], dtype)})
    op("FloorDiv", {"x": x, "y": np.zeros(6, dtype)})
op("LeftShift", {"x": np.int8([1, 1, 1, 1, -128]), "y": np.int8([-1, 7, 8, 100, 1])})
op("RightShift", {"x": np.int8([-128, -128, 64, 64]), "y": np.int8([-1, 8, 100, 7])})
op("FloorDiv", {"x": np.arange(-6, 6, dtype=I32).reshape(3, 4), "y": np.array([[2], [-3], [5]], I32)})
for dtype in [F32, F64, np.float16, tf.bfloat16.as_numpy_dtype]:
    op("FloorDiv", {"x": np.array([1, -7, 0, np.inf, 5, 7.5, -0.5], dtype), "y": np.array([0, 2, 0, 2, np.inf, -2, 3], dtype)})
for dtype in [F32, F64]:
    op("Rint", {"x": np.array([0.5, 1.5, -0.5, -2.5, np.nan, 3.49, -1e9], dtype)})

# Buckets and counts -----------------------------------------------------------------------------------------------------

for dtype in [I32, I64, F32, F64]:
    op("Bucketize", {"input": np.array([[-5, 0, 1], [3, 10, 100]], dtype)}, boundaries=[0.0, 3.0, 10.0])
op("Bucketize", {"input": np.array([np.nan, np.inf, -np.inf, 0.1], F32)}, boundaries=[0.1, 0.2])
op("Bucketize", {"input": np.array([0.1, 0.3], F64)}, boundaries=[0.1, 0.3])
op("Bucketize", {"input": np.array([1.0], F32)}, boundaries=[3.0, 2.0])
op("Bucketize", {"input": np.array([1.0], F32)}, boundaries=[])
for dtype in [I32, I64, F32, F64]:
    for binary in [False, True]:
        op("DenseBincount", {"input": np.array([1, 5, 1, 0], I32), "size": I32(3), "weights": np.array([], dtype)}, binary_output=binary)
        op("DenseBincount", {"input": np.array([[1, 5, 1], [0, 0, 2]], I64), "size": I64(3), "weights": np.array([[1, 2, 3], [4, 5, 6]], dtype)}, binary_output=binary)
        op("RaggedBincount", {"splits": np.array([0, 1, 1, 4], I64), "values": np.array([1, 1, 5, 1], I32), "size": I32(3), "weights": np.array([], dtype)}, binary_output=binary)
        op("RaggedBincount", {"splits": np.array([0, 1, 4], I64), "values": np.array([1, 1, 5, 1], I32), "size": I32(3), "weights": np.array([2, 3, 4, 5], dtype)}, binary_output=binary)
op("DenseBincount", {"input": I32(1), "size": I32(3), "weights": np.array([], F32)})
op("DenseBincount", {"input": np.array([-1], I32), "size": I32(3), "weights": np.array([], F32)})
op("DenseBincount", {"input": np.array([1], I32), "size": I32(-3), "weights": np.array([], F32)})
op("DenseBincount", {"input": np.array([1, 1], I32), "size": I32(3), "weights": np.array([1], F32)})
op("DenseBincount", {"input": np.zeros([0], I32), "size": I32(2), "weights": np.array([], F32)})
op("RaggedBincount", {"splits": np.array([0, 5], I64), "values": np.array([1], I32), "size": I32(3), "weights": np.array([], F32)})

# Sparse, segments, ragged -----------------------------------------------------------------------------------------------

for values, default in [(np.array([5, 6, 7], I32), I32(-1)), (np.array([5, 6, 7], F64), F64(0)), (strings("a", "b", "c"), np.array("?", object)), (np.array([True, False, True]), np.bool_(False))]:
    op("SparseToDense", {"sparse_indices": np.array([[0, 1], [1, 0], [2, 2]], I64), "output_shape": np.array([3, 3], I64), "sparse_values": values, "default_value": default})
for indices, shape, values, check in [([[0, 0], [0, 0]], [1, 1], [1, 2], True), ([[0, 1], [0, 0]], [1, 2], [1, 2], True), ([[0, 5]], [1, 2], [1], True),
                                      ([[0, 1], [0, 0], [0, 1]], [1, 2], [1, 2, 3], False), ([[0, 7]], [1, 2], [1], False), (1, [3], 5, True), ([0, 2], [3], 5, True), ([[0, -1]], [1, 2], [1], True)]:
    op("SparseToDense", {"sparse_indices": np.array(indices, I32), "output_shape": np.array(shape, I32), "sparse_values": np.array(values, F32), "default_value": F32(0.5)}, validate_indices=check)
for shape in [[-1], [3, 2], [6, 1], [2, -1, 1], [4], [-1, -1], [4, -1], [-2, 3], [1, 1, 2, 3]]:
    op("SparseReshape", {"input_indices": np.array([[0, 1], [1, 2]], I64), "input_shape": np.array([2, 3], I64), "new_shape": np.array(shape, I64)})
op("SparseReshape", {"input_indices": np.zeros([0, 2], I64), "input_shape": np.array([0, 3], I64), "new_shape": np.array([-1, 3], I64)})
op("SparseReshape", {"input_indices": np.zeros([0, 2], I64), "input_shape": np.array([0, 3], I64), "new_shape": np.array([-1, 0], I64)})
for indices, values, shape, default in [([[3, 0], [1, 1], [1, 0]], np.array([1, 2, 3], I32), [5, 2], I32(9)), ([[7, 0]], np.array([1], I32), [5, 2], I32(9)), ([[-1, 0]], np.array([1], I32), [5, 2], I32(9)),
                                        (np.zeros([0, 2]), np.array([], F32), [2, 0], F32(9)), ([[0, 0]], np.array([1], I32), [0, 2], I32(9)), ([[0, 0, 4]], strings("x"), [2, 2, 5], np.array("?", object)),
                                        (np.zeros([0, 2]), np.array([], F32), [0, 2], F32(9)), ([[0, 0], [1, 0]], np.array([1, 2], I64), [2, 2], I64(9))]:
    op("SparseFillEmptyRows", {"indices": np.array(indices, I64), "values": values, "dense_shape": np.array(shape, I64), "default_value": default})
DATA = np.array([[1, 2], [3.5, -4], [5, 6], [0.25, 8]])
for name in ["SparseSegmentSum", "SparseSegmentMean", "SparseSegmentSqrtN"]:
    for dtype in [F32, F64, np.float16, tf.bfloat16.as_numpy_dtype]:
        op(name, {"data": DATA.astype(dtype), "indices": np.array([0, 2, 1, 3, 3], I32), "segment_ids": np.array([0, 0, 2, 2, 2], I32)})
    op(name, {"data": DATA.astype(F32), "indices": np.array([0, 2, 1], I64), "segment_ids": np.array([0, 0, 4], I64)})
    op(name, {"data": DATA.astype(F32), "indices": np.array([], I64), "segment_ids": np.array([], I64)})
    op(name, {"data": DATA.astype(F32), "indices": np.array([0, 2], I32), "segment_ids": np.array([1, 1], I32), "num_segments": I32(4)}, tf_name=name + "WithNumSegments")
    op(name, {"data": DATA.astype(F32), "indices": np.array([0, 2], I32), "segment_ids": np.array([1, 7], I32), "num_segments": I32(4)}, tf_name=name + "WithNumSegments")
op("SparseSegmentSum", {"data": DATA.astype(I32), "indices": np.array([0, 2, 1], I32), "segment_ids": np.array([0, 0, 2], I32)})
for indices, ids in [([0, 9, 1], [0, 0, 2]), ([0, 2, 1], [0, 2, 1]), ([0, 2, 1], [-1, 0, 1]), ([0, 2], [0])]:
    op("SparseSegmentSum", {"data": DATA.astype(F32), "indices": np.array(indices, I32), "segment_ids": np.array(ids, I32)})
for dtype in [I32, F64, np.uint8, np.float16]:
    op("SegmentSum", {"data": np.array([[1, 2], [3, 4], [5, 6]], dtype), "segment_ids": np.array([0, 0, 3], I32)})
for ids in [[1, 0, 0], [1, 1], [-1, 0, 0]]:
    op("SegmentSum", {"data": np.array([[1, 2], [3, 4], [5, 6]], F32), "segment_ids": np.array(ids, I64)})
op("SegmentSum", {"data": F32(5), "segment_ids": np.array([1], I64)})
A = {"a_indices": np.array([[0, 1], [1, 0], [1, 2], [0, 1]], I64), "a_values": np.array([2, 3, -1, 0.5]), "a_shape": np.array([2, 3], I64)}
for dtype in [F32, I32]:
    for adjoint_a in [False, True]:
        for adjoint_b in [False, True]:
            b = np.arange((2 if adjoint_a else 3) * 4).reshape((2 if adjoint_a else 3), 4)
            op("SparseTensorDenseMatMul", {**A, "a_values": A["a_values"].astype(dtype), "b": (b.T.copy() if adjoint_b else b).astype(dtype)}, adjoint_a=adjoint_a, adjoint_b=adjoint_b)
op("SparseTensorDenseMatMul", {**A, "a_indices": np.array([[0, 7], [1, 0], [1, 2], [0, 1]], I64), "a_values": A["a_values"].astype(F32), "b": np.ones([3, 2], F32)})
op("SparseTensorDenseMatMul", {**A, "a_indices": np.array([[5, 1], [1, 0], [1, 2], [0, 1]], I64), "a_values": A["a_values"].astype(F32), "b": np.ones([3, 2], F32)})


def ragged(shape, values, default, partitions, types):
    op("RaggedTensorToTensor", {"shape": np.array(shape, I64), "values": values, "default_value": default, "row_partition_tensors": [np.array(p, I64) for p in partitions]}, row_partition_types=types)


V = np.array([1, 2, 3], I32)
ragged([-1, -1], V, I32(0), [[0, 2, 2, 3]], ["ROW_SPLITS"])
ragged([4, 1], V, I32(9), [3, [0, 0, 2]], ["FIRST_DIM_SIZE", "VALUE_ROWIDS"])
ragged([2, 4], V, I32(9), [3, [0, 0, 2]], ["FIRST_DIM_SIZE", "VALUE_ROWIDS"])
ragged([-1, -1, 2], np.array([[1, 2], [3, 4], [5, 6]], F32), F32(0.5), [[0, 2, 2, 3]], ["ROW_SPLITS"])
ragged([-1, -1, -1], np.array([[1, 2], [3, 4], [5, 6]], F32), np.array([7, 8], F32), [[0, 2, 2, 3]], ["ROW_SPLITS"])
ragged(-1, V, I32(0), [[0, 2, 3], [0, 1, 1, 3]], ["ROW_SPLITS"] * 2)
ragged([-1, 3, 1], V, I32(0), [[0, 2, 3], [0, 1, 1, 3]], ["ROW_SPLITS"] * 2)
ragged(-1, strings("a", "b", "c"), np.array("", object), [2, [0, 0, 1], [0, 1, 1]], ["FIRST_DIM_SIZE", "VALUE_ROWIDS", "VALUE_ROWIDS"])
ragged([-1, -1], np.array([], I32), I32(0), [[0]], ["ROW_SPLITS"])
ragged([-1, -1], V, I32(0), [[0, 2, 1, 3]], ["ROW_SPLITS"])
for splits, values in [([[0, 2, 2, 3]], V), ([[0, 2, 3], [0, 1, 1, 3]], np.array([[1, 9], [2, 9], [3, 9]], I32)), ([[0, 2, 7]], V), ([[0, 1, 3]], strings("a", "b", "c"))]:
    op("RaggedTensorToSparse", {"rt_nested_splits": [np.array(s, I64) for s in splits], "rt_dense_values": values})

# Lookup tables ----------------------------------------------------------------------------------------------------------

for keys, values, default, asked in [
    (strings("a", "b", ""), np.array([10, 20, 30], I64), I64(-1), strings("b", "z", "", "a")),
    (np.array([5, -3, 2**40], I64), strings("five", "minus", "big"), np.array("none", object), np.array([[2**40, 5], [0, -3]], I64)),
    (strings("x", "y"), np.array([0.5, 1.5], F32), F32(-1), np.array("y", object)),
    (np.array([1, 2], I64), np.array([10.5, 20.5], F32), F32(0), np.array([2, 3, 1], I64)),
    (np.array([1, 2], I32), np.array([3, 4], I32), I32(0), np.array([2, 3, 1], I32)),
]:
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(tf.constant(keys), tf.constant(values)), default)
    case("LookupTable", [asked, np.asarray(default)], lambda: table.lookup(tf.constant(asked)), keys=keys, values=values)

# Examples ---------------------------------------------------------------------------------------------------------------


def example(**features):
    made = {}
    for name, values in features.items():
        if values is None:
            made[name] = tf.train.Feature()
        elif values == "floats":
            made[name] = tf.train.Feature(float_list=tf.train.FloatList())
        elif values == "ints":
            made[name] = tf.train.Feature(int64_list=tf.train.Int64List())
        elif isinstance(values[0], bytes):
            made[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        elif isinstance(values[0], float):
            made[name] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
        else:
            made[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


def parse(serialized, sparse=(), dense=(), ragged=()):
    """Sparse: (key, type). Dense: (key, type, shape, default). Ragged: (key, type, type of splits)."""
    if isinstance(serialized, bytes):
        serialized = np.array(serialized, object)
    else:
        made = np.empty([len(serialized)], object)
        made[:] = serialized
        serialized = made
    defaults = [np.array([], dtype.as_numpy_dtype) if default is None else np.asarray(default, dtype.as_numpy_dtype) for _, dtype, _, default in dense]
    shapes = [list(shape) for _, _, shape, _ in dense]
    compute = lambda: R.ParseExampleV2(
        serialized=serialized, names=np.array([], object), sparse_keys=[s[0] for s in sparse], dense_keys=[d[0] for d in dense], ragged_keys=[r[0] for r in ragged],
        dense_defaults=defaults, num_sparse=len(sparse), sparse_types=[s[1] for s in sparse], ragged_value_types=[r[1] for r in ragged],
        ragged_split_types=[r[2] for r in ragged], dense_shapes=[[None if d == -1 else d for d in shape] for shape in shapes])
    case("ParseExample", [serialized, *defaults], compute, sparse_keys=[s[0] for s in sparse], dense_keys=[d[0] for d in dense], ragged_keys=[r[0] for r in ragged],
         sparse_types=[s[1] for s in sparse], dense_types=[d[1] for d in dense], ragged_value_types=[r[1] for r in ragged], ragged_split_types=[r[2] for r in ragged],
         dense_ranks=[len(shape) for shape in shapes], dense_dims=[d for shape in shapes for d in shape])


FL, IN, ST = tf.float32, tf.int64, tf.string
FULL = [example(f=[1.0, 2.0], i=[1, 2, 3], s=[b"a", b""]), example(i=[-5]), example(f=[3.5], s=[b"\xff"], other=[1])]
for batch in [FULL, []]:
    parse(batch, sparse=[("f", FL), ("i", IN), ("s", ST), ("none", ST)])
    parse(batch, ragged=[("f", FL, tf.int32), ("i", IN, tf.int64), ("s", ST, tf.int32)])
    parse(batch, dense=[("f", FL, [-1], 0.0), ("i", IN, [-1], -1), ("s", ST, [-1], b"?")])
    parse(batch, sparse=[("s", ST)], dense=[("d", FL, [2], [1.0, 2.0]), ("i", IN, [-1], 7)], ragged=[("f", FL, tf.int64)])
for single in [FULL[0], b""]:
    parse(single, sparse=[("f", FL), ("i", IN)], dense=[("d", ST, [], b"x"), ("i2", IN, [2, 1], [[1], [2]])], ragged=[("s", ST, tf.int32)])
    parse(single, dense=[("i", IN, [-1], -1)])
for batch in [[example(x=[1.0])], [example(x=[1.0]), example(x=[2.0])], [example(), example()], [example(x=None)], [example(x="floats")], [example(x="ints")], [example(x=[1.0]), example(x=[1])],
              [example(x=[b"1"])], [example(x=[1.0, 2.0])], [example(y=[1.0])]]:
    parse(batch, dense=[("x", FL, [], None)])
    parse(batch, dense=[("x", FL, [1], [3.0])])
    parse(batch, dense=[("x", FL, [-1, 1], 3.0)])
    parse(batch, sparse=[("x", FL)])
    parse(batch, ragged=[("x", FL, tf.int32)])
    # TensorFlow has other texts for a single example with a wrong number of values.
    if len(batch) == 1 and batch[0] != example(x="floats") and batch[0] != example(x=[1.0, 2.0]):
        parse(batch[0], dense=[("x", FL, [], None)])
        parse(batch[0], sparse=[("x", FL)])
parse([example(x=[1, 2, 3, 4])], dense=[("x", IN, [2, 2], None)])
parse([example(x=[1, 2, 3])], dense=[("x", IN, [2, 2], None)])
parse([example(x=[b"a", b"b"])], dense=[("x", ST, [2, 3], None)])
parse([example(x=[1, 2]), example(x=[1, 2, 3])], dense=[("x", IN, [-1, 2], 0)])
parse([example(x=[1, 2]), example(x=[1, 2, 3, 4]), example()], dense=[("x", IN, [-1, 2], 9)])
parse([example(x=[1.0])], dense=[("x", FL, [-1, 2], [0.0, 0.0])])
parse([example(x=[1.0])], dense=[("x", FL, [1], [0.0, 0.0])])
# A context in front of an example: the example's own features win.
context = example(x=[1.0], y=[10.0])
parse([context + example(x=[2.0]), context + example(), context + example(y=[3.0], x=[4.0])], dense=[("x", FL, [], None), ("y", FL, [], None)])
parse([context + example(x=[2.0])], sparse=[("x", FL), ("y", FL)])
parse([context + example(x=[2])], dense=[("x", FL, [], None)])
parse([context + example(x=[2])], dense=[("x", IN, [], None)])
wide = example(**{f"feature_{i}": [float(i)] for i in range(40)})
parse([wide, wide], dense=[(f"feature_{i}", FL, [], None) for i in range(0, 40, 9)])

path = pathlib.Path(__file__).with_name("salver.jsonl")
with path.open("w", encoding="utf-8") as out:
    for record in OUT:
        out.write(json.dumps(record, separators=(",", ":"), ensure_ascii=False) + "\n")
print(len(OUT), "cases,", path.stat().st_size, "bytes")
