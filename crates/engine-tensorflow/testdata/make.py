"""Writes the SavedModels that the tests of this engine load. Run it with TensorFlow 2.21: python make.py

text: strings in and out, a table that is filled from an asset, an input with a default value.
state: a variable that is read and assigned in steps, and a table that a signature adds to.
"""

import pathlib
import shutil
import tempfile

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

HERE = pathlib.Path(__file__).parent


class Text(tf.Module):
    def __init__(self, words):
        super().__init__()
        self.words = tf.saved_model.Asset(str(words))
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                self.words, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
            ),
            -1,
        )

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, "words"), tf.TensorSpec([], tf.string, "suffix")]
    )
    def run(self, words, suffix):
        return {
            "upper": tf.strings.upper(words),
            "ended": words + suffix,
            "n_bytes": tf.strings.length(words),
            "ids": self.table.lookup(words),
            "all": tf.strings.reduce_join(words, separator=" "),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "numbers")])
    def parse(self, numbers):
        return {"values": tf.strings.to_number(numbers)}


class State(tf.Module):
    def __init__(self):
        super().__init__()
        self.total = tf.Variable(0.0)
        self.table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, "delta")])
    def add(self, delta):
        self.total.assign(self.total.read_value() + delta)
        return {"total": self.total.read_value()}

    @tf.function(input_signature=[])
    def get(self):
        return {"total": self.total.read_value()}

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, "keys"), tf.TensorSpec([None], tf.int64, "values")]
    )
    def put(self, keys, values):
        self.table.insert(keys, values)
        return {"n": tf.identity(self.table.size())}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "keys")])
    def look(self, keys):
        return {"values": self.table.lookup(keys)}


def save(name, module, signatures, defaults):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    options = tf.saved_model.SaveOptions(save_debug_info=False)
    tf.saved_model.save(module, str(folder), signatures=signatures, options=options)
    (folder / "fingerprint.pb").unlink()
    file = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for alias, value in defaults.items():
        model.meta_graphs[0].signature_def["serving_default"].defaults[alias].CopyFrom(tf.make_tensor_proto(value))
    file.write_bytes(model.SerializeToString(deterministic=True))


def main():
    with tempfile.TemporaryDirectory() as temporary:
        words = pathlib.Path(temporary) / "words.txt"
        words.write_text("one\ntwo\nthree\n")
        text = Text(words)
        save("text", text, {"serving_default": text.run, "parse": text.parse}, {"suffix": b"!"})
        state = State()
        signatures = {"add": state.add, "get": state.get, "put": state.put, "look": state.look}
        save("state", state, signatures, {})


main()
