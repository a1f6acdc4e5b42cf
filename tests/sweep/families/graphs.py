"""TensorFlow 1 graphs: sessions, control flow v1, recurrent loops, and the graphs that canned estimators exported."""

import pathlib
import tempfile

from catalogue import add
from families.modules import example
from late import np, tf, v1

PREDICT, CLASSIFY, REGRESS = (f"tensorflow/serving/{kind}" for kind in ("predict", "classify", "regress"))
F32 = "float32"


def tf1(name, build, **options):
    add("TensorFlow 1", f"TF1 {name}", options, build, write="graph")


def predict(x, y, shape):
    """One signature, and batches of one and three."""
    outputs = y if isinstance(y, dict) else {"y": y}
    steps = lambda rng: [("serving_default", {"x": rng.uniform(-1, 1, (n, *shape)).astype(F32)}) for n in (1, 3)]  # noqa: E731
    return {"serving_default": (PREDICT, {"x": x}, outputs)}, steps


def weights(name, *shape):
    value = np.random.default_rng(len(name) + sum(shape)).normal(0, 0.4, shape).astype(F32)
    return v1.get_variable(name, initializer=value, use_resource=name.startswith("r"))


def perceptron():
    x = v1.placeholder(tf.float32, [None, 5], "x")
    y = tf.nn.relu(tf.matmul(x, weights("w1", 5, 4)) + weights("b1", 4))
    return predict(x, tf.nn.softmax(tf.nn.bias_add(tf.matmul(y, weights("w2", 4, 3)), weights("b2", 3))), (5,))


def resource_variables():
    x = v1.placeholder(tf.float32, [None, 5], "x")
    return predict(x, tf.matmul(x, weights("r1", 5, 4)) + weights("r2", 4), (5,))


def convolution():
    x = v1.placeholder(tf.float32, [None, 12, 12, 3], "image")
    y = tf.nn.conv2d(x, weights("k1", 3, 3, 3, 6), strides=2, padding="SAME")
    y, *_ = v1.nn.fused_batch_norm(y, weights("g", 6), weights("b", 6), weights("m", 6), tf.abs(weights("v", 6)) + 0.5, is_training=False)
    y = tf.nn.relu6(y)
    y = tf.nn.depthwise_conv2d(y, weights("k2", 3, 3, 6, 1), [1, 1, 1, 1], "SAME")
    y = tf.nn.max_pool2d(y, 2, 2, "VALID")
    y = tf.reduce_mean(y, axis=[1, 2])
    return predict(x, tf.matmul(y, weights("w", 6, 2)), (12, 12, 3))


def with_dropout_placeholder():
    x = v1.placeholder(tf.float32, [None, 5], "x")
    keep = v1.placeholder_with_default(tf.constant(1.0), [], "keep")
    y = tf.matmul(x, weights("w", 5, 3)) * keep
    return predict(x, y, (5,))


def while_loop():
    x = v1.placeholder(tf.float32, [None, 4], "x")
    w = weights("w", 4, 4)
    _, y = v1.while_loop(lambda i, _: i < 5, lambda i, t: (i + 1, tf.tanh(tf.matmul(t, w) + x)), (tf.constant(0), x))
    return predict(x, y, (4,))


def cond():
    x = v1.placeholder(tf.float32, [None, 4], "x")
    y = v1.cond(tf.reduce_sum(x) > 0, lambda: x * 2.0, lambda: tf.exp(x) - 1.0)
    return predict(x, y, (4,))


def nested_control_flow():
    x = v1.placeholder(tf.float32, [None, 4], "x")

    def body(i, t):
        return i + 1, v1.cond(tf.equal(i % 2, 0), lambda: t + x, lambda: t * 0.5)

    _, y = v1.while_loop(lambda i, _: i < 6, body, (tf.constant(0), tf.zeros_like(x)))
    return predict(x, y, (4,))


def loop_in_loop():
    x = v1.placeholder(tf.float32, [None, 4], "x")

    def outer(i, t):
        _, inner = v1.while_loop(lambda j, _: j < 3, lambda j, s: (j + 1, tf.tanh(s + x)), (tf.constant(0), t))
        return i + 1, inner * 0.9

    return predict(x, v1.while_loop(lambda i, _: i < 2, outer, (tf.constant(0), x))[1], (4,))


def array():
    x = v1.placeholder(tf.float32, [None, 6], "x")
    steps = tf.TensorArray(tf.float32, size=6, element_shape=[None]).unstack(tf.transpose(x))
    out = tf.TensorArray(tf.float32, size=6, element_shape=[None])
    start = (tf.constant(0), tf.zeros([tf.shape(x)[0]]), out)

    def body(i, total, out):
        total = 0.5 * total + steps.read(i)
        return i + 1, total, out.write(i, total)

    _, total, out = v1.while_loop(lambda i, *_: i < 6, body, start)
    return predict(x, {"last": total, "all": tf.transpose(out.stack())}, (6,))


for build in (while_loop, cond, nested_control_flow, loop_in_loop, array):
    for version in ("v1", "v2"):
        tf1(build.__name__.replace("_", " "), build, control_flow=version)
for build in (perceptron, resource_variables, convolution, with_dropout_placeholder):
    tf1(build.__name__.replace("_", " "), build)
tf1("perceptron", perceptron, text=True)


def recurrent(cell, dynamic):
    def build():
        x = v1.placeholder(tf.float32, [None, 6, 3], "x")
        kinds = v1.nn.rnn_cell
        made = {
            "BasicRNNCell": lambda: kinds.BasicRNNCell(4),
            "GRUCell": lambda: kinds.GRUCell(4),
            "BasicLSTMCell": lambda: kinds.BasicLSTMCell(4),
            "LSTMCell": lambda: kinds.LSTMCell(4, use_peepholes=True),
            "MultiRNNCell": lambda: kinds.MultiRNNCell([kinds.GRUCell(4), kinds.GRUCell(3)]),
        }[cell]()
        if dynamic:
            outputs, state = v1.nn.dynamic_rnn(made, x, dtype=tf.float32)
            return predict(x, {"all": outputs, "state": tf.nest.flatten(state)[-1]}, (6, 3))
        outputs, _ = v1.nn.static_rnn(made, tf.unstack(x, axis=1), dtype=tf.float32)
        return predict(x, outputs[-1], (6, 3))

    return build


for cell in ("BasicRNNCell", "GRUCell", "BasicLSTMCell", "LSTMCell", "MultiRNNCell"):
    tf1("dynamic_rnn", recurrent(cell, True), cell=cell)
    tf1("static_rnn", recurrent(cell, False), cell=cell)


def dynamic_lengths():
    x = v1.placeholder(tf.float32, [None, 6, 3], "x")
    n = v1.placeholder(tf.int32, [None], "lengths")
    outputs, state = v1.nn.dynamic_rnn(v1.nn.rnn_cell.GRUCell(4), x, n, dtype=tf.float32)
    given = lambda rng: [  # noqa: E731
        ("serving_default", {"x": rng.uniform(-1, 1, (k, 6, 3)).astype(F32), "lengths": rng.integers(1, 7, k).astype("int32")})
        for k in (1, 3)
    ]
    return {"serving_default": (PREDICT, {"x": x, "lengths": n}, {"all": outputs, "state": state})}, given


tf1("dynamic_rnn", dynamic_lengths, sequence_length=True)

# What canned estimators exported


def rows():
    return [
        example(age=[31.0], income=[2.5], job=["baker"], city=["Ulm", "Bonn"], code=[3]),
        example(age=[52.0], income=[-1.0], job=["nobody"], code=[8]),
        example(age=[18.0], income=[0.25], city=["Rome"], code=[3]),
    ]


def asked(*names):
    return [(name, {"inputs": np.array(rows()[:n], dtype=object)}) for n in (1, 3) for name in names]


def parsed():
    examples = v1.placeholder(tf.string, [None], "input_example_tensor")
    features = v1.parse_example(
        examples,
        {
            "age": tf.io.FixedLenFeature([1], tf.float32),
            "income": tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0]),
            "job": tf.io.VarLenFeature(tf.string),
            "city": tf.io.VarLenFeature(tf.string),
            "code": tf.io.FixedLenFeature([1], tf.int64, default_value=[0]),
        },
    )
    return examples, features


def linear_classifier():
    examples, features = parsed()
    table = tf.lookup.StaticVocabularyTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant(["baker", "smith"]), tf.constant([0, 1], tf.int64)), 1
    )
    jobs = features["job"]
    ids = tf.SparseTensor(jobs.indices, table.lookup(jobs.values), jobs.dense_shape)
    v1.add_to_collection(v1.GraphKeys.TABLE_INITIALIZERS, v1.tables_initializer())
    logits = tf.nn.safe_embedding_lookup_sparse(weights("jobs", 3, 1), ids, combiner="sum")
    logits += tf.matmul((features["age"] - 30.0) / 20.0, weights("age", 1, 1)) + weights("bias", 1)
    return binary_head(examples, logits)


def binary_head(examples, logits):
    chance = tf.sigmoid(logits)
    scores = tf.nn.softmax(tf.concat([tf.zeros_like(logits), logits], axis=-1))
    classes = tf.tile(tf.constant([["0", "1"]]), [tf.shape(logits)[0], 1])
    best = tf.expand_dims(tf.argmax(scores, axis=-1), -1)
    signatures = {
        "serving_default": (CLASSIFY, {"inputs": examples}, {"classes": classes, "scores": scores}),
        "regression": (REGRESS, {"inputs": examples}, {"outputs": chance}),
        "predict": (
            PREDICT,
            {"inputs": examples},
            {"class_ids": best, "classes": tf.as_string(best), "logits": logits, "logistic": chance, "probabilities": scores},
        ),
    }
    return signatures, asked(*signatures)


def deep_regressor():
    examples, features = parsed()
    cities = features["city"]
    hashed = tf.SparseTensor(cities.indices, tf.strings.to_hash_bucket_fast(cities.values, 10), cities.dense_shape)
    city = tf.nn.safe_embedding_lookup_sparse(weights("cities", 10, 3), hashed, combiner="mean")
    code = tf.one_hot(tf.clip_by_value(features["code"][:, 0], 0, 4), 5)
    y = tf.concat([features["age"] / 50.0, features["income"], city, code], axis=1)
    y = tf.nn.relu(tf.matmul(y, weights("w1", 10, 6)) + weights("b1", 6))
    y = tf.matmul(y, weights("w2", 6, 1)) + weights("b2", 1)
    signatures = {
        "serving_default": (REGRESS, {"inputs": examples}, {"outputs": y}),
        "predict": (PREDICT, {"inputs": examples}, {"predictions": y}),
    }
    return signatures, asked(*signatures)


def multi_class():
    examples, features = parsed()
    y = tf.concat([features["age"] / 50.0, features["income"]], axis=1)
    scores = tf.nn.softmax(tf.matmul(y, weights("w", 2, 4)))
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.range(4, dtype=tf.int64), tf.constant(["red", "green", "blue", "grey"])), "?"
    )
    best, order = tf.nn.top_k(scores, 3)
    classes = table.lookup(tf.cast(order, tf.int64))
    signatures = {"serving_default": (CLASSIFY, {"inputs": examples}, {"classes": classes, "scores": best})}
    return signatures, asked("serving_default")


def feature_columns(kind):
    def build():
        column = v1.feature_column
        age = column.numeric_column("age", normalizer_fn=lambda x: (x - 40.0) / 10.0)
        job = column.categorical_column_with_vocabulary_list("job", ["baker", "smith"], num_oov_buckets=1)
        city = column.categorical_column_with_hash_bucket("city", 10)
        code = column.categorical_column_with_identity("code", 5, default_value=0)
        bucket = column.bucketized_column(column.numeric_column("income"), [-0.5, 0.5, 2.0])
        if kind == "linear":
            columns = [age, job, city, code, bucket, column.crossed_column(["job", "city"], 20)]
        else:
            columns = [age, column.indicator_column(job), column.embedding_column(city, 3), column.indicator_column(code), bucket]
        examples = v1.placeholder(tf.string, [None], "input_example_tensor")
        features = v1.parse_example(examples, column.make_parse_example_spec(columns))
        if kind == "linear":
            logits = column.linear_model(features, columns)
        else:
            y = column.input_layer(features, columns)
            logits = tf.matmul(tf.nn.relu(tf.matmul(y, weights("w1", y.shape[1], 5))), weights("w2", 5, 1))
        for variable in v1.global_variables():
            if "weights" in variable.name:
                value = np.random.default_rng(2).normal(0, 0.5, variable.shape.as_list()).astype(F32)
                variable._initializer_op = v1.assign(variable, value).op
        return binary_head(examples, logits)

    return build


def vocabulary_asset():
    folder = pathlib.Path(tempfile.mkdtemp())
    (folder / "words.txt").write_text("red\ngreen\nblue\n")
    x = v1.placeholder(tf.string, [None], "words")
    path = tf.constant(str(folder / "words.txt"))
    v1.add_to_collection("asset_filepaths", path)
    table = v1.lookup.StaticHashTable(
        v1.lookup.TextFileInitializer(
            path, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
        ),
        -1,
    )
    ids = table.lookup(x)
    steps = [("serving_default", {"x": np.array(words, dtype=object)}) for words in (["red"], ["blue", "pink", "green"])]
    return {"serving_default": (PREDICT, {"x": x}, {"id": ids, "known": ids >= 0})}, steps


tf1("linear classifier", linear_classifier)
tf1("deep regressor", deep_regressor)
tf1("multi-class classifier", multi_class)
tf1("feature columns", feature_columns("linear"), model="linear")
tf1("feature columns", feature_columns("deep"), model="deep")
tf1("vocabulary asset", vocabulary_asset)
