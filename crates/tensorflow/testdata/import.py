"""Makes import/: small graphs with control flow, lists, tables and state, and what TensorFlow answers.

Run with TensorFlow 2.21: python import.py. `expected.txt` has one line per run: the folder or file, the signature, and the
inputs and outputs as name=dtype[dims]:elements, inputs and outputs separated by a bar.
"""

import os
import pathlib
import shutil

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import saved_model_pb2

HERE = pathlib.Path(__file__).absolute().parent / "import"
v1 = tf.compat.v1
expected = []


def text(name, value):
    value = np.asarray(value)
    kind = "string" if value.dtype.kind in "OSU" else value.dtype.name
    elements = [e.decode() if isinstance(e, bytes) else str(e) for e in value.reshape(-1).tolist()]
    return f"{name}={kind}[{','.join(map(str, value.shape))}]:{','.join(elements)}"


def note(place, signature, inputs, outputs):
    sides = [" ".join(text(k, v) for k, v in sorted(side.items())) for side in (inputs, outputs)]
    expected.append(f"{place}|{signature}|{sides[0]}|{sides[1]}")


def slim(file):
    """Leaves out what only debuggers read."""
    model = saved_model_pb2.SavedModel()
    model.ParseFromString(file.read_bytes())
    for meta in model.meta_graphs:
        meta.graph_def.ClearField("debug_info")
        meta.object_graph_def.Clear()
        meta.meta_info_def.ClearField("stripped_op_list")
        slim_nodes(meta.graph_def)
    file.write_bytes(model.SerializeToString(deterministic=True))


def slim_nodes(graph):
    nodes = list(graph.node) + [node for function in graph.library.function for node in function.node_def]
    for node in nodes:
        node.ClearField("experimental_debug_info")
        for name in ("_output_shapes", "_read_only_resource_inputs", "_input_hostmem", "config_proto"):
            if name in node.attr:
                del node.attr[name]
    for function in graph.library.function:
        function.ClearField("arg_attr")


class Control(tf.Module):
    def __init__(self, words):
        super().__init__()
        self.total = tf.Variable(0.0, name="total")
        table = tf.lookup.TextFileInitializer(words, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE,
                                              tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER)
        self.table = tf.lookup.StaticVocabularyTable(table, 2)
        keys = tf.lookup.KeyValueTensorInitializer(tf.constant([3, 5], tf.int64), tf.constant(["three", "five"]))
        self.names = tf.lookup.StaticHashTable(keys, "many")

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])
    def scan(self, x):
        """A state over the rows, all of its values, and the last output in a list of one element."""
        n = tf.shape(x)[0]
        rows = tf.TensorArray(tf.float32, n).unstack(x)
        out = tf.TensorArray(tf.float32, n)
        last = tf.TensorArray(tf.float32, 1, element_shape=[3])
        state = tf.zeros([3])

        def body(i, state, out, last):
            state = tf.tanh(state + rows.read(i))
            return i + 1, state, out.write(i, state), last.write(0, state)

        _, state, out, last = tf.while_loop(lambda i, *_: i < n, body, (0, state, out, last), maximum_iterations=n)
        return {"all": out.stack(), "last": last.read(0), "state": state}

    @tf.function(input_signature=[tf.TensorSpec([], tf.int32, "n")])
    def collatz(self, n):
        """How often it goes on is not known before."""
        def body(n, steps):
            return tf.where(n % 2 == 0, n // 2, 3 * n + 1), steps + 1
        n, steps = tf.while_loop(lambda n, _: n != 1, body, (n, 0))
        return {"steps": steps}

    @tf.function(input_signature=[tf.TensorSpec([4], tf.float32, "x")])
    def backwards(self, x):
        """A list that is written from its end, and one that is read where it was written."""
        array = tf.TensorArray(tf.float32, 4, element_shape=[], clear_after_read=False)
        sums = tf.TensorArray(tf.float32, 5, element_shape=[], clear_after_read=False).write(0, 1.0)

        def body(i, array, sums):
            return i - 1, array.write(i, x[i] * 2.0), sums.write(4 - i, sums.read(3 - i) + x[i])

        _, array, sums = tf.while_loop(lambda i, *_: i >= 0, body, (3, array, sums))
        return {"doubled": array.stack(), "sums": sums.stack()}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x"), tf.TensorSpec([], tf.int32, "i")])
    def choose(self, x, i):
        branches = [lambda: x + 1.0, lambda: x[:1] * 10.0, lambda: tf.zeros_like(x)]
        picked = tf.switch_case(i, branches)
        signed = tf.cond(tf.reduce_sum(x) > 0.0, lambda: tf.cond(i > 0, lambda: x, lambda: -x), lambda: x * 0.5)
        return {"picked": picked, "signed": signed}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "word")])
    def words(self, word):
        ids = self.table.lookup(word)
        return {"id": ids, "name": self.names.lookup(ids + 3)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, "amount")])
    def add(self, amount):
        """Adds what is positive."""
        if amount > 0.0:
            self.total.assign_add(amount)
        return {"total": self.total.read_value()}

    @tf.function(input_signature=[])
    def get(self):
        return {"total": self.total.read_value()}


def saved_model():
    folder = HERE / "control"
    shutil.rmtree(folder, ignore_errors=True)
    # The file's path becomes part of the table's name, so that it is given as seen from its own folder.
    words = pathlib.Path("words.txt")
    words.write_text("ape\nbear\ncat\n")
    control = Control(str(words))
    names = ["scan", "collatz", "backwards", "choose", "words", "add", "get"]
    signatures = {name: getattr(control, name).get_concrete_function() for name in names}
    tf.saved_model.save(control, str(folder), signatures=signatures)
    words.unlink()
    (folder / "fingerprint.pb").unlink(missing_ok=True)
    loaded = tf.saved_model.load(str(folder))
    slim(folder / "saved_model.pb")
    f = np.float32
    runs = [
        ("scan", {"x": np.array([[0.1, -0.2, 0.3], [1, 2, 3], [-1, 0.5, 0]], f)}),
        ("scan", {"x": np.array([[0.5, 0.5, -0.5]], f)}),
        ("collatz", {"n": np.int32(7)}),
        ("collatz", {"n": np.int32(1)}),
        ("backwards", {"x": np.array([1, 2, 3, 4], f)}),
        ("choose", {"x": np.array([1, 2], f), "i": np.int32(0)}),
        ("choose", {"x": np.array([1, 2], f), "i": np.int32(1)}),
        ("choose", {"x": np.array([1, -2], f), "i": np.int32(7)}),
        ("words", {"word": np.array([b"cat", b"ape", b"dog"])}),
        ("get", {}),
        ("add", {"amount": f(2.5)}),
        ("add", {"amount": f(-1.0)}),
        ("get", {}),
    ]
    for name, inputs in runs:
        outputs = loaded.signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
        note("control", name, inputs, {key: value.numpy() for key, value in outputs.items()})


def old_control_flow():
    """Enter, Exit, Switch and Merge, with a TensorArray and a loop in a loop in a condition."""
    v1.disable_control_flow_v2()
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 2], "x")
        flag = v1.placeholder(tf.bool, [], "flag")
        training = v1.placeholder_with_default(False, [], "training")
        n = tf.shape(x)[0]
        rows = tf.TensorArray(tf.float32, n).unstack(x)
        out = tf.TensorArray(tf.float32, n)

        def body(i, state, out):
            state = state * 0.5 + rows.read(i)
            return i + 1, state, out.write(i, state)

        _, state, out = v1.while_loop(lambda i, *_: i < n, body, (0, tf.zeros([2]), out))

        def nested():
            def outer(i, total):
                _, total = v1.while_loop(lambda j, _: j < i, lambda j, t: (j + 1, t + state), (0, total))
                return i + 1, total
            return v1.while_loop(lambda i, _: i < 4, outer, (0, tf.zeros([2])))[1]

        picked = v1.cond(flag, nested, lambda: state - 1.0)
        dropped = v1.cond(training, lambda: tf.nn.dropout(state, 0.5), lambda: state)
        tf.identity(out.stack(), "all")
        tf.identity(picked, "picked")
        tf.identity(dropped, "kept")
        definition = graph.as_graph_def()
        slim_nodes(definition)
        (HERE / "old.pb").write_bytes(definition.SerializeToString(deterministic=True))
        with v1.Session(graph=graph) as session:
            for flag_, rows_ in ((True, [[1, 2], [3, 4], [5, 6]]), (False, [[1, -1]])):
                inputs = {"x": np.array(rows_, np.float32), "flag": np.bool_(flag_)}
                outputs = session.run({name: f"{name}:0" for name in ("all", "picked", "kept")},
                                      {f"{name}:0": value for name, value in inputs.items()})
                note("old.pb", "serving_default", inputs, outputs)


def lowered():
    """The same loops as functions, as the converter to frozen graphs lowers them."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
    words = pathlib.Path("words.txt")
    words.write_text("ape\n")
    scan = Control(str(words)).scan.get_concrete_function()
    words.unlink()
    frozen = convert_variables_to_constants_v2(scan, lower_control_flow=True)
    definition = graph_pb2.GraphDef()
    definition.CopyFrom(frozen.graph.as_graph_def())
    slim_nodes(definition)
    (HERE / "lowered.pb").write_bytes(definition.SerializeToString(deterministic=True))
    inputs = {"x": np.array([[0.1, -0.2, 0.3], [1, 2, 3]], np.float32)}
    outputs = frozen(tf.constant(inputs["x"]))
    names = [tensor.name.split(":")[0] for tensor in frozen.outputs]
    note("lowered.pb", "serving_default", inputs, dict(zip(names, [value.numpy() for value in outputs])))


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    os.chdir(HERE)
    saved_model()
    lowered()
    old_control_flow()
    (HERE / "expected.txt").write_text("\n".join(expected) + "\n")
