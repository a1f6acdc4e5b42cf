"""Makes models as Keras 2 (the package tf_keras) writes them, each with inputs and its own answers.

    python make_legacy.py [FOLDER]    writes NAME.h5.zip (the .h5 file, packed), NAME.keras and NAME.json
"""

import json
import os
import sys
import zipfile

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tensorflow as tf
import tf_keras as keras

L = keras.layers
rng = np.random.default_rng(11)


def layers_case():
    x = keras.Input((5,), name="x")
    h = L.Dense(4, activation="hard_sigmoid", name="first")(x)
    outs = {}
    for i, a in enumerate(["relu", "elu", "selu", "softplus", "swish", "gelu", "exponential", "softmax", "mish", "linear"]):
        outs[f"act_{a}"] = L.Activation(a, name=f"act_{a}")(h)
    outs["leaky"] = L.LeakyReLU(0.1, name="leaky")(h)
    outs["thresholded"] = L.ThresholdedReLU(0.4, name="thresholded")(h)
    outs["relu_all"] = L.ReLU(max_value=0.9, negative_slope=0.2, threshold=0.1, name="relu_all")(h)
    outs["bn"] = L.BatchNormalization(name="bn")(h)
    outs["op"] = tf.reduce_mean(h, axis=-1, keepdims=True) * 2.0 + tf.nn.relu(1.0 - h[:, :1])
    outs["op2"] = tf.concat([h, h * h], axis=1) - tf.reshape(h, (-1, 2, 2))[:, 0, :1]
    return {"x": x}, outs


def rnn_case():
    x = keras.Input((5, 4), name="x")
    outs = {}
    outs["gru"] = L.GRU(3, name="gru")(x)
    outs["gru1"] = L.GRU(3, reset_after=False, recurrent_activation="hard_sigmoid", return_sequences=True, name="gru1")(x)
    a, h, c = L.LSTM(3, return_state=True, name="lstm")(x)
    outs["lstm"] = L.LSTM(3, name="lstm2")(x, initial_state=[h, c])
    outs["bi"] = L.Bidirectional(L.LSTM(2, return_sequences=True), name="bi")(x)
    outs["bi_sum"] = L.Bidirectional(L.GRU(2), merge_mode="sum", name="bi_sum")(x)
    outs["cells"] = L.RNN([L.LSTMCell(2), L.GRUCell(3)], name="cells")(x)
    outs["td"] = L.TimeDistributed(L.Dense(2), name="td")(x)
    outs["mha"] = L.MultiHeadAttention(2, 3, name="mha")(x, x)
    outs["ln"] = L.LayerNormalization(name="ln")(x)
    return {"x": x}, outs


def mask_case():
    t = keras.Input((6,), name="tokens", dtype="int32")
    e = L.Embedding(10, 3, mask_zero=True, name="e")(t)
    outs = {"lstm": L.LSTM(3, name="lstm")(e)}
    outs["seq"] = L.GRU(3, return_sequences=True, name="seq")(e)
    outs["bi"] = L.Bidirectional(L.LSTM(2, return_sequences=True), name="bi")(e)
    outs["pool"] = L.GlobalAveragePooling1D(name="pool")(e)
    outs["attention"] = L.Attention(name="attention")([e, e])
    outs["add"] = L.GRU(2, name="add_gru")(L.Add()([e, L.Dense(3)(e)]))
    outs["concat"] = L.GRU(2, name="concat_gru")(L.Concatenate()([e, e]))
    return {"tokens": t}, outs


def conv_case():
    x = keras.Input((6, 5, 3), name="x")
    outs = {}
    outs["conv"] = L.Conv2D(2, 3, padding="same", strides=2, activation="relu", name="conv")(x)
    outs["depth"] = L.DepthwiseConv2D(2, depth_multiplier=2, name="depth")(x)
    outs["sep"] = L.SeparableConv2D(2, 3, name="sep")(x)
    outs["trans"] = L.Conv2DTranspose(2, 3, strides=2, padding="same", name="trans")(x)
    outs["lstm"] = L.ConvLSTM2D(2, 2, name="lstm")(L.Reshape((2, 3, 5, 3))(x))
    outs["up"] = L.UpSampling2D(2, interpolation="bilinear", name="up")(x)
    outs["pool"] = L.MaxPooling2D(2, padding="same", name="pool")(x)
    return {"x": x}, outs


def nest_case():
    a = keras.Input((4,), name="a")
    b = keras.Input((4,), name="b")
    inner = keras.Sequential([L.Dense(3, input_shape=(4,), name="frozen", trainable=False), L.BatchNormalization(), L.Dense(4)], name="inner")
    i = keras.Input((4,))
    outer = keras.Model(i, [inner(i), L.Dense(2, name="d")(inner(inner(i)))], name="outer")
    p, q = outer(a)
    r, s = outer(b)
    last = keras.Sequential([L.Dense(2, input_shape=(4,)), L.BatchNormalization()], name="last")
    outs = {"p": p, "sum": L.Add(name="sum")([q, s]), "last": last(r)}
    return {"a": a, "b": b}, outs


CASES = {"keras2_layers": layers_case, "keras2_rnn": rnn_case, "keras2_mask": mask_case, "keras2_conv": conv_case,
         "keras2_nest": nest_case}


def encode(a):
    a = np.asarray(a)
    values = [float(f"{x:.7g}") if a.dtype.kind == "f" else x for x in a.ravel().tolist()]
    return {"dtype": a.dtype.name, "shape": list(a.shape), "values": values}


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    for name, case in CASES.items():
        keras.backend.clear_session()
        inputs, outs = case()
        model = keras.Model(list(inputs.values()), list(outs.values()))
        for w in model.weights:
            value = rng.normal(0, 0.5, w.shape)
            w.assign(np.abs(value) + 0.5 if "variance" in w.name else value)
        data = {}
        for key, t in inputs.items():
            shape = (2,) + tuple(t.shape[1:])
            data[key] = rng.normal(0, 1, shape).astype("float32")
            if key == "tokens":
                data[key] = np.array([[1, 2, 3, 0, 0, 0], [0, 4, 0, 5, 9, 0]], dtype="int32")
        answers = model([tf.constant(v) for v in data.values()], training=False)
        path = os.path.join(folder, name)
        text = {"inputs": {k: encode(v) for k, v in data.items()},
                "outputs": dict(zip(model.output_names, [encode(v) for v in answers]))}
        with open(path + ".json", "w") as f:
            json.dump(text, f, separators=(",", ":"))
        model.save(path + ".h5")
        with zipfile.ZipFile(path + ".h5.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
            packed.write(path + ".h5", "model.h5")
        os.remove(path + ".h5")
        model.save(path + ".keras")
        with zipfile.ZipFile(path + ".keras") as old:
            members = [(m, old.read(m)) for m in old.namelist()]
        with zipfile.ZipFile(path + ".keras", "w", zipfile.ZIP_DEFLATED) as new:
            for member, content in members:
                new.writestr(member, content)


main()
