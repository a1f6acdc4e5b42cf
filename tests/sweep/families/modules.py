"""SavedModels that are not Keras: control flow, lists, tables, strings, tf.Example, integers, and state."""

import pathlib
import tempfile

from catalogue import add
from late import np, tf

F32, I32, I64 = "float32", "int32", "int64"


def spec(name, shape, dtype=F32):
    return tf.TensorSpec(shape, getattr(tf, dtype), name=name)


def function(body, *specs):
    """A tf.function whose result has names."""
    return tf.function(body, input_signature=list(specs))


def simple(name, body, specs, steps, **options):
    """Lists a module with one signature. `body` gives a dict; `steps` gives inputs by name for a random generator."""

    def build():
        module = tf.Module()
        module.f = function(body, *[spec(*one) for one in specs])
        return module, {"serving_default": module.f}, lambda rng: [("serving_default", s) for s in steps(rng)]

    add("tf.Module", f"module {name}", options, build, write="module")


def uniform(*shape):
    return lambda rng: [{"x": rng.uniform(-1, 1, (n, *shape)).astype(F32)} for n in (1, 3)]


def integers(low, high, *shape, dtype=I64):
    return lambda rng: [{"x": rng.integers(low, high, (n, *shape)).astype(dtype)} for n in (1, 3)]


def texts(words):
    return lambda rng: [{"x": np.array(words[:1], dtype=object)}, {"x": np.array(words, dtype=object)}]


# Control flow


def while_loop(x):
    _, total = tf.while_loop(lambda i, _: i < 5, lambda i, t: (i + 1, t * 0.5 + x), (0, tf.zeros_like(x)))
    return {"y": total}


def while_by_data(x):
    condition = lambda i, t: tf.logical_and(i < 20, tf.reduce_max(t) < 4.0)  # noqa: E731
    i, total = tf.while_loop(condition, lambda i, t: (i + 1, t + tf.abs(x) + 0.1), (0, tf.zeros_like(x)))
    return {"steps": i, "y": total}


def nested_loops(x):
    def outer(i, t):
        _, inner = tf.while_loop(lambda j, _: j < 3, lambda j, s: (j + 1, tf.tanh(s + x)), (0, t))
        return i + 1, inner * 0.9

    return {"y": tf.while_loop(lambda i, _: i < 2, outer, (0, x))[1]}


def branch(x):
    return {"y": tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2.0, lambda: x - 1.0)}


def nested_branches(x):
    total = tf.reduce_sum(x)
    small = lambda: tf.cond(total > -0.3, lambda: x + 1.0, lambda: x * x)  # noqa: E731
    return {"y": tf.cond(total > 0.5, lambda: tf.exp(x), small)}


def case(x):
    total = tf.reduce_sum(x)
    return {"y": tf.case([(total > 0.5, lambda: x), (total > 0.0, lambda: x * 2.0)], default=lambda: -x)}


def switch_case(x):
    which = tf.shape(x)[0] % 3
    return {"y": tf.switch_case(which, [lambda: x, lambda: x + 1.0, lambda: x * 3.0])}


def branch_in_loop(x):
    def body(i, t):
        return i + 1, tf.cond(i % 2 == 0, lambda: t + x, lambda: t * 0.5)

    return {"y": tf.while_loop(lambda i, _: i < 6, body, (0, x))[1]}


def python_loop(x):
    total = tf.zeros([tf.shape(x)[0]])
    for i in tf.range(tf.shape(x)[1]):
        total += x[:, i] * tf.cast(i, tf.float32)
    return {"y": total}


for body in (
    while_loop, while_by_data, nested_loops, branch, nested_branches, case, switch_case, branch_in_loop, python_loop,
):
    simple(body.__name__.replace("_", " "), body, [("x", [None, 4])], uniform(4))


def tensor_array(x):
    array = tf.TensorArray(tf.float32, size=tf.shape(x)[1])
    _, array = tf.while_loop(
        lambda i, _: i < tf.shape(x)[1],
        lambda i, a: (i + 1, a.write(i, tf.reduce_sum(x[:, : i + 1], axis=1))),
        (0, array),
    )
    return {"y": tf.transpose(array.stack())}


def reading_array(x):
    array = tf.TensorArray(tf.float32, size=4, element_shape=[None]).unstack(tf.transpose(x))
    _, total = tf.while_loop(
        lambda i, _: i < 4, lambda i, t: (i + 1, 0.5 * t + array.read(3 - i)), (0, tf.zeros([tf.shape(x)[0]]))
    )
    return {"y": total}


def growing_list(x):
    values = tf.TensorArray(tf.float32, size=0, dynamic_size=True)
    for i in tf.range(3):
        values = values.write(i, x * tf.cast(i + 1, tf.float32))
    return {"y": values.stack(), "z": values.concat()}


def mapped(x):
    return {"y": tf.map_fn(lambda row: tf.reduce_sum(row) * row, x)}


def folded(x):
    return {"y": tf.foldl(lambda a, row: a * 0.5 + row, x), "z": tf.scan(lambda a, row: a * 0.5 + row, x)}


def vectorised(x):
    return {"y": tf.vectorized_map(lambda row: tf.linalg.matvec(tf.reshape(row, [2, 2]), row[:2]), x)}


def own_recurrent_cell(x):
    """A recurrent network written by hand; no pattern of Keras."""
    w = tf.constant(np.random.default_rng(3).uniform(-0.5, 0.5, (4, 4)).astype(F32))
    state = tf.zeros([tf.shape(x)[0], 4])
    for step in tf.unstack(tf.stack([x, x * 0.5, -x], axis=1), axis=1):
        state = tf.tanh(step @ w + state)
    return {"y": state}


for body in (tensor_array, reading_array, growing_list, mapped, folded, vectorised, own_recurrent_cell):
    simple(body.__name__.replace("_", " "), body, [("x", [None, 4])], uniform(4))

# Numbers


def division(x):
    y = tf.constant([3, -3, 7, -7], tf.int64)
    return {"div": x // y, "mod": x % y, "truncated": tf.truncatediv(x, y), "rest": tf.truncatemod(x, y)}


simple("floor division", division, [("x", [None, 4], I64)], integers(-50, 50, 4))


def big_division(x):
    return {"div": x // 10_000_000_000, "mod": tf.math.floormod(x, -7_000_000_000), "times": x * 3 + 1}


simple(
    "floor division", big_division, [("x", [None, 4], I64)],
    integers(-(2**60), 2**60, 4), beyond="32 bits",
)


def float_division(x):
    return {"div": x // 0.3, "mod": tf.math.floormod(x, -0.3), "floor": tf.floor(x), "round": tf.round(x * 3)}


simple("floor division", float_division, [("x", [None, 4])], uniform(4), dtype=F32)


def doubles(x):
    return {"y": tf.reduce_sum(x * 1e8 + tf.constant(1.0, tf.float64) / 3, axis=1), "z": tf.sqrt(tf.abs(x))}


simple(
    "double precision", doubles, [("x", [None, 4], "float64")],
    lambda rng: [{"x": rng.uniform(-1, 1, (n, 4))} for n in (1, 3)],
)


def bits(x):
    return {
        "and": tf.bitwise.bitwise_and(x, 12),
        "or": tf.bitwise.bitwise_or(x, 3),
        "xor": tf.bitwise.bitwise_xor(x, 255),
        "left": tf.bitwise.left_shift(x, 3),
        "right": tf.bitwise.right_shift(x, 2),
    }


simple("bits", bits, [("x", [None, 4], I64)], integers(0, 2**40, 4))
simple(
    "comparisons and casts",
    lambda x: {
        "less": x < 3,
        "equal": tf.equal(x, 2),
        "cast": tf.cast(x, tf.float32) / 3,
        "clip": tf.clip_by_value(x, -1, 4),
        "sum": tf.reduce_sum(x, axis=1),
        "any": tf.reduce_any(x > 4, axis=1),
        "max": tf.argmax(x, axis=1),
    },
    [("x", [None, 4], I64)],
    integers(-8, 8, 4),
)


def shaping(x):
    n = tf.shape(x)[0]
    return {
        "slice": x[:, 1:, ::-1],
        "mask": x[:, tf.newaxis, ..., 0],
        "gather": tf.gather(x, [2, 0], axis=1),
        "pad": tf.pad(x, [[0, 0], [1, 2], [0, 0]], constant_values=0.5),
        "mirror": tf.pad(x, [[0, 0], [1, 1], [1, 1]], mode="REFLECT"),
        "tile": tf.tile(x, [1, 2, 1]),
        "reverse": tf.reverse(x, [1]),
        "reshape": tf.reshape(x, [n, -1]),
        "stack": tf.stack([x, -x], axis=1),
        "hot": tf.one_hot(tf.argmax(x, axis=-1), 4, on_value=2.0),
        "cumsum": tf.cumsum(x, axis=1, exclusive=True),
        "top": tf.math.top_k(x, 2).values,
        "which": tf.math.top_k(x, 2).indices,
        "diag": tf.linalg.diag_part(x[:, :3, :3]),
        "einsum": tf.einsum("bij,bkj->bik", x, x),
    }


simple("shaping", shaping, [("x", [None, 3, 4])], uniform(3, 4))


def mathematics(x):
    y = tf.abs(x) + 0.1
    return {
        "log": tf.math.log(y),
        "log1p": tf.math.log1p(y),
        "expm1": tf.math.expm1(x),
        "rsqrt": tf.math.rsqrt(y),
        "pow": tf.pow(y, 1.7),
        "atan2": tf.atan2(x, y),
        "sin": tf.sin(x) + tf.cos(x) * tf.tan(x),
        "hyper": tf.sinh(x) + tf.cosh(x) + tf.asinh(x),
        "erf": tf.math.erf(x) + tf.math.erfc(y),
        "squared": tf.math.squared_difference(x, 0.5),
        "norm": tf.nn.l2_normalize(x, axis=1),
        "moments": tf.nn.moments(x, axes=[1])[1],
        "logsumexp": tf.reduce_logsumexp(x, axis=1),
        "prod": tf.reduce_prod(y, axis=1),
        "std": tf.math.reduce_std(x, axis=1),
        "nonan": tf.math.divide_no_nan(x, tf.round(x)),
        "sign": tf.sign(x),
    }


simple("mathematics", mathematics, [("x", [None, 4])], uniform(4))


simple("lgamma", lambda x: {"y": tf.math.lgamma(tf.abs(x) + 0.1)}, [("x", [None, 4])], uniform(4))
simple("roll", lambda x: {"y": tf.roll(x, 1, axis=1)}, [("x", [None, 4])], uniform(4))


def pictures(x):
    return {
        "bilinear": tf.image.resize(x, [5, 9]),
        "nearest": tf.image.resize(x, [5, 9], method="nearest"),
        "cubic": tf.image.resize(x, [9, 5], method="bicubic"),
        "grey": tf.image.rgb_to_grayscale(x),
        "patches": tf.image.extract_patches(x, [1, 2, 2, 1], [1, 2, 2, 1], [1, 1, 1, 1], "VALID"),
        "depth": tf.nn.space_to_depth(x, 2),
        "standard": tf.image.per_image_standardization(x),
        "flip": tf.image.flip_left_right(x),
        "lrn": tf.nn.local_response_normalization(x),
    }


simple("pictures", pictures, [("x", [None, 6, 8, 3])], uniform(6, 8, 3))


def segments(x):
    index = tf.constant([0, 0, 1, 3])
    return {
        "sum": tf.math.segment_sum(tf.transpose(x), index),
        "unsorted": tf.math.unsorted_segment_sum(tf.transpose(x), index, 5),
        "scatter": tf.scatter_nd([[1], [3]], tf.constant([2.0, 5.0]), [6]),
        "update": tf.tensor_scatter_nd_update(x[0], [[1]], [9.0]),
        "where": tf.where(x > 0),
        "mask": tf.boolean_mask(x[0], x[0] > 0),
    }


simple("segments", segments, [("x", [None, 4])], uniform(4))

# Strings and tables

WORDS = ["The Cat", "dog", "", "  sat on it ", "grün", "10", "-3", "a,b;c"]


def strings(x):
    return {
        "lower": tf.strings.lower(x),
        "upper": tf.strings.upper(x),
        "strip": tf.strings.strip(x),
        "length": tf.strings.length(x),
        "chars": tf.strings.length(x, unit="UTF8_CHAR"),
        "join": tf.strings.join([x, x], "-"),
        "all": tf.strings.reduce_join(x, separator="|"),
        "part": tf.strings.substr(tf.strings.join([x, "abcd"]), 1, 2),
        "replaced": tf.strings.regex_replace(x, "[aeiou]+", "<\\0>"),
        "matches": tf.strings.regex_full_match(x, "[a-z]+"),
        "bucket": tf.strings.to_hash_bucket_fast(x, 100),
        "strong": tf.strings.to_hash_bucket_strong(x, 100, [1, 2]),
        "equal": tf.equal(x, "dog"),
    }


simple("strings", strings, [("x", [None], "string")], texts(WORDS))


def splitting(x):
    parts = tf.strings.split(x)
    return {
        "values": parts.values,
        "rows": parts.row_splits,
        "dense": parts.to_tensor(default_value="?"),
        "fixed": parts.to_tensor(shape=[None, 3]),
    }


simple("splitting", splitting, [("x", [None], "string")], texts(WORDS))


def numbers_as_text(x):
    return {"text": tf.strings.as_string(x, precision=3), "back": tf.strings.to_number(tf.strings.as_string(x, precision=3))}


simple("numbers as text", numbers_as_text, [("x", [None, 2])], uniform(2))


def encoded(x):
    base = tf.io.encode_base64(x)
    return {"base64": base, "back": tf.io.decode_base64(base), "raw": tf.io.decode_raw(tf.strings.join([x, "abcd"]), tf.uint8, little_endian=True)[:, :2]}


simple("encoded", encoded, [("x", [None], "string")], texts(["abc", "xyz", "123"]))


def table_of_words():
    keys, values = tf.constant(["dog", "cat", "grün"]), tf.constant([4, 5, 6], tf.int64)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), -1)


def lookup():
    module = tf.Module()
    module.table = table_of_words()
    module.back = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant([4, 5, 6], tf.int64), tf.constant(["Hund", "Katze", "Grün"])), "?"
    )

    def body(x):
        ids = module.table.lookup(x)
        return {"id": ids, "word": module.back.lookup(ids), "size": module.table.size()}

    module.f = function(body, spec("x", [None], "string"))
    steps = [("serving_default", {"x": np.array(words, dtype=object)}) for words in (["dog"], ["cat", "cow", "grün"])]
    return module, {"serving_default": module.f}, steps


add("tf.Module", "module StaticHashTable", {}, lookup, write="module")


def vocabulary_file():
    module = tf.Module()
    folder = pathlib.Path(tempfile.mkdtemp())
    (folder / "words.txt").write_text("red\ngreen\nblue\n")
    initializer = tf.lookup.TextFileInitializer(
        str(folder / "words.txt"), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
    )
    module.table = tf.lookup.StaticVocabularyTable(initializer, num_oov_buckets=2)
    module.weights = tf.Variable(np.arange(10, dtype=F32).reshape(5, 2))
    module.file = tf.saved_model.Asset(str(folder / "words.txt"))

    def body(x):
        ids = module.table.lookup(x)
        return {"id": ids, "vector": tf.nn.embedding_lookup(module.weights, ids)}

    module.f = function(body, spec("x", [None, 2], "string"))
    steps = [
        ("serving_default", {"x": np.array(words, dtype=object)})
        for words in ([["red", "pink"]], [["blue", "green"], ["", "red"], ["grey", "blue"]])
    ]
    return module, {"serving_default": module.f}, steps


add("tf.Module", "module vocabulary from an asset", {}, vocabulary_file, write="module")


def example(**features):
    made = {}
    for key, values in features.items():
        if isinstance(values[0], str):
            made[key] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[v.encode() for v in values]))
        elif isinstance(values[0], float):
            made[key] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
        else:
            made[key] = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


def example_batches():
    rows = [
        example(age=[31.5], name=["Ada"], codes=[3, 5]),
        example(age=[2.25], codes=[7]),
        example(age=[-1.0], name=["Bo"], pair=[1.0, 2.0]),
    ]
    return [("serving_default", {"examples": np.array(rows[:n], dtype=object)}) for n in (1, 3)]


def parsing():
    module = tf.Module()

    def body(examples):
        found = tf.io.parse_example(
            examples,
            {
                "age": tf.io.FixedLenFeature([], tf.float32),
                "name": tf.io.FixedLenFeature([1], tf.string, default_value=["nobody"]),
                "pair": tf.io.FixedLenFeature([2], tf.float32, default_value=[0.5, 0.25]),
                "codes": tf.io.VarLenFeature(tf.int64),
            },
        )
        return {
            "age": found["age"] * 2.0,
            "name": found["name"],
            "pair": found["pair"],
            "codes": tf.sparse.to_dense(found["codes"], default_value=-1),
            "hot": tf.reduce_sum(tf.one_hot(tf.sparse.to_dense(found["codes"]), 9), axis=1),
        }

    module.f = function(body, spec("examples", [None], "string"))
    return module, {"serving_default": module.f}, example_batches()


add("tf.Module", "module parse_example", {}, parsing, write="module")


def ragged_parsing():
    module = tf.Module()

    def body(examples):
        found = tf.io.parse_example(
            examples,
            {
                "codes": tf.io.RaggedFeature(tf.int64),
                "seq": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
            },
        )
        return {
            "codes": found["codes"].to_tensor(default_value=-1),
            "sums": tf.reduce_sum(found["codes"], axis=1),
            "seq": found["seq"],
        }

    module.f = function(body, spec("examples", [None], "string"))
    return module, {"serving_default": module.f}, example_batches()


add("tf.Module", "module parse_example", dict(ragged=True), ragged_parsing, write="module")

# State and signatures


def counter():
    module = tf.Module()
    module.count = tf.Variable(0.0, name="counter")
    module.steps = tf.Variable(0, dtype=tf.int64)

    def incremented(delta):
        module.steps.assign_add(1)
        return {"output": module.count.assign_add(delta), "steps": module.steps.read_value()}

    module.increase = function(incremented, spec("delta", []))
    module.reset = function(lambda: {"output": module.count.assign(0.0)})
    module.get = function(lambda: {"output": module.count.read_value()})
    signatures = {"increase": module.increase, "reset": module.reset, "get": module.get}
    two, four = {"delta": np.float32(2)}, {"delta": np.float32(4.5)}
    steps = [("get", {}), ("increase", two), ("increase", four), ("get", {}), ("reset", {}), ("get", {}), ("increase", two)]
    return module, signatures, steps


add("tf.Module", "module counter", {}, counter, write="module")


def several_signatures():
    module = tf.Module()
    module.w = tf.Variable(np.random.default_rng(5).normal(0, 1, (4, 3)).astype(F32))
    module.inner = tf.function(lambda x: tf.nn.relu(x @ module.w))
    module.a = function(lambda x: {"y": module.inner(x)}, spec("x", [None, 4]))
    module.b = function(lambda a, b: {"sum": module.inner(a + b), "product": a * b}, spec("a", [None, 4]), spec("b", [4]))
    rows = np.random.default_rng(6).normal(0, 1, (3, 4)).astype(F32)
    steps = [("serving_default", {"x": rows}), ("pair", {"a": rows, "b": rows[0]}), ("serving_default", {"x": rows[:1]})]
    return module, {"serving_default": module.a, "pair": module.b}, steps


add("tf.Module", "module several signatures", {}, several_signatures, write="module")


def shared_variables(x):
    return {"y": x}


simple("pass through", shared_variables, [("x", [None, 4])], uniform(4))
simple("unknown rank", lambda x: {"y": tf.reduce_sum(tf.reshape(x, [-1, 4]) * 2.0, axis=1)}, [("x", None)], uniform(2, 4))
simple(
    "half precision",
    lambda x: {"half": tf.cast(x, tf.float16) * 2, "brain": tf.cast(tf.cast(x, tf.bfloat16), tf.float32)},
    [("x", [None, 4])],
    uniform(4),
)
