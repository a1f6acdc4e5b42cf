"""Keras 2 (tf_keras): its files have other names and settings, and its SavedModels other graphs."""

import feeds
from catalogue import add
from late import L2, keras2


def legacy(layer, options, build):
    add("Keras 2", f"Keras 2 {layer}", options, build, write="keras2")


def one(layer, shape, options, feed=None, dtype="float32", shown=None):
    def build():
        x = keras2.Input(shape, dtype=dtype, name="x")
        return keras2.Model(x, getattr(L2, layer)(**options)(x)), {"x": feed} if feed else {}

    legacy(layer, shown if shown is not None else options, build)


IMAGE = (8, 9, 4)
CASES = [
    ("Dense", (5,), dict(units=3, activation="relu")),
    ("Dense", (4, 5), dict(units=3)),
    ("Activation", (5,), dict(activation="hard_sigmoid")),
    ("Activation", (5,), dict(activation="gelu")),
    ("Activation", (5,), dict(activation="swish")),
    ("LeakyReLU", (5,), dict(alpha=0.2)),
    ("ReLU", (5,), dict(max_value=0.5, negative_slope=0.1)),
    ("ThresholdedReLU", (5,), dict(theta=0.3)),
    ("PReLU", (4, 5), dict()),
    ("ELU", (5,), dict(alpha=0.7)),
    ("Softmax", (4, 5), dict(axis=1)),
    ("Conv1D", (9, 3), dict(filters=4, kernel_size=3, padding="causal")),
    ("Conv2D", IMAGE, dict(filters=3, kernel_size=3, padding="same", strides=2)),
    ("Conv2D", IMAGE, dict(filters=4, kernel_size=3, groups=2, dilation_rate=1)),
    ("Conv3D", (5, 6, 4, 2), dict(filters=3, kernel_size=2)),
    ("Conv2DTranspose", IMAGE, dict(filters=3, kernel_size=3, strides=2, padding="same")),
    ("Conv2DTranspose", IMAGE, dict(filters=3, kernel_size=3, strides=2, output_padding=1)),
    ("Conv1DTranspose", (6, 3), dict(filters=3, kernel_size=3, strides=2)),
    ("Conv3DTranspose", (4, 3, 5, 2), dict(filters=3, kernel_size=3, strides=2, padding="same")),
    ("SeparableConv1D", (9, 3), dict(filters=4, kernel_size=3)),
    ("SeparableConv2D", IMAGE, dict(filters=4, kernel_size=3, padding="same")),
    ("DepthwiseConv1D", (9, 3), dict(kernel_size=3, padding="same")),
    ("DepthwiseConv2D", IMAGE, dict(kernel_size=3, depth_multiplier=2)),
    ("MaxPooling2D", IMAGE, dict(padding="same")),
    ("AveragePooling2D", IMAGE, dict(pool_size=3, strides=2, padding="same")),
    ("GlobalAveragePooling2D", IMAGE, dict()),
    ("BatchNormalization", IMAGE, dict()),
    ("BatchNormalization", IMAGE, dict(axis=1)),
    ("BatchNormalization", (6,), dict(epsilon=1e-5)),
    ("LayerNormalization", IMAGE, dict(axis=[1, 2])),
    ("LayerNormalization", (4, 6), dict()),
    ("GroupNormalization", IMAGE, dict(groups=2)),
    ("UnitNormalization", (6,), dict()),
    ("UpSampling2D", IMAGE, dict(interpolation="bilinear")),
    ("ZeroPadding2D", IMAGE, dict(padding=((1, 0), (2, 3)))),
    ("Cropping2D", IMAGE, dict(cropping=1)),
    ("LocallyConnected1D", (6, 3), dict(filters=2, kernel_size=3)),
]
for layer, shape, options in CASES:
    one(layer, shape, options, shown={**options, "input": f"{len(shape) + 1}d"})
for layer in ("SimpleRNN", "GRU", "LSTM"):
    for options in [
        dict(),
        dict(return_sequences=True),
        dict(go_backwards=True),
        dict(activation="relu"),
        dict(recurrent_dropout=0.2),
        dict(unroll=True),
        dict(use_bias=False, return_sequences=True),
        dict(return_state=True),
    ]:
        one(layer, (6, 3), dict(units=4, **options), shown=options)
one("GRU", (6, 3), dict(units=4, reset_after=False), shown=dict(reset_after=False))
one("LSTM", (None, 3), dict(units=4), shown=dict(steps="open"), feed=feeds.floats(5, 3))
one("GRU", (None, 3), dict(units=4), shown=dict(steps="open"), feed=feeds.floats(5, 3))
one("Embedding", (6,), dict(input_dim=9, output_dim=4), dtype="int32", feed=feeds.ints(6, high=9, dtype="int32"))


def wrapped(layer, merge, mask):
    def build():
        x = keras2.Input((7, 3), name="x")
        y = L2.Masking()(x) if mask else x
        y = L2.Bidirectional(getattr(L2, layer)(4, return_sequences=True), merge_mode=merge)(y)
        y = L2.Bidirectional(getattr(L2, layer)(3), merge_mode=merge)(y)
        return keras2.Model(x, y), {"x": feeds.padded(7, 3)}

    return build


for layer in ("GRU", "LSTM"):
    for mask in (False, True):
        legacy(f"Bidirectional {layer}", dict(merge_mode="concat", mask=mask), wrapped(layer, "concat", mask))
    legacy(f"Bidirectional {layer}", dict(merge_mode="sum", mask=False), wrapped(layer, "sum", False))


def words(layer):
    def build():
        x = keras2.Input((None,), dtype="int32", name="words")
        y = L2.Embedding(12, 5, mask_zero=True)(x)
        y = L2.Dense(1, activation="sigmoid")(getattr(L2, layer)(4)(y))
        return keras2.Model(x, y), {"words": feeds.padded_ints(6, 12)}

    return build


for layer in ("SimpleRNN", "GRU", "LSTM"):
    legacy(f"Embedding and {layer}", {}, words(layer))


def jena():
    return keras2.Sequential(
        [
            keras2.Input((None, 14)),
            L2.GRU(16, dropout=0.1, recurrent_dropout=0.5, return_sequences=True),
            L2.GRU(24, activation="relu", dropout=0.1, recurrent_dropout=0.5),
            L2.Dense(1),
        ]
    ), {"input_1": feeds.floats(24, 14)}


legacy("weather GRU", dict(levels=2), jena)


def residual():
    x = keras2.Input((16, 16, 3), name="image")
    y = L2.Conv2D(8, 3, padding="same", use_bias=False)(x)
    y = L2.ReLU()(L2.BatchNormalization()(y))
    z = L2.BatchNormalization()(L2.Conv2D(8, 3, padding="same")(y))
    y = L2.ReLU()(L2.Add()([y, z]))
    y = L2.Dense(4, activation="softmax")(L2.GlobalAveragePooling2D()(y))
    return keras2.Model(x, y)


legacy("residual network", {}, residual)


def two_ends():
    a, b = keras2.Input((4,), name="first"), keras2.Input((3,), name="second")
    shared = L2.Dense(5, activation="tanh", name="shared")
    y = L2.Concatenate()([shared(a), shared(L2.Dense(4)(b))])
    inner = keras2.Sequential([L2.Dense(6, activation="relu"), L2.Dense(2)], name="inner")
    return keras2.Model([a, b], [L2.Dense(1, name="left")(y), inner(y)])


legacy("two inputs, two outputs, nested and shared", {}, two_ends)


def operations():
    x = keras2.Input((4,), name="x")
    y = L2.Dense(4)(x) * 2.0 + 1.0
    return keras2.Model(x, L2.Dense(2)(y - x))


legacy("operator layers", {}, operations)


def sequential_without_input():
    model = keras2.Sequential([L2.Dense(4, activation="relu", input_shape=(5,)), L2.Dropout(0.3), L2.Dense(2)])
    return model


legacy("Sequential with input_shape", {}, sequential_without_input)


def self_attention():
    x = keras2.Input((6, 8), name="x")
    y = L2.LayerNormalization()(L2.Add()([x, L2.MultiHeadAttention(2, 4)(x, x)]))
    return keras2.Model(x, L2.Dense(2)(L2.GlobalMaxPooling1D()(y)))


legacy("MultiHeadAttention", {}, self_attention)


def text():
    x = keras2.Input((1,), dtype="string", name="text")
    layer = L2.TextVectorization(vocabulary=["the", "cat", "sat"], output_sequence_length=5)
    return keras2.Model(x, L2.Embedding(6, 3)(layer(x)))


legacy("TextVectorization", {}, text)


def colours():
    x = keras2.Input((2,), dtype="string", name="x")
    return keras2.Model(x, L2.StringLookup(vocabulary=["red", "green", "blue"])(x))


legacy("StringLookup", {}, colours)


def colour_counts():
    x = keras2.Input((2,), dtype="string", name="x")
    return keras2.Model(x, L2.StringLookup(vocabulary=["red", "green", "blue"], output_mode="multi_hot")(x))


legacy("StringLookup", dict(output_mode="multi_hot"), colour_counts)

SMALL = [
    ("MobileNetV2", dict(alpha=0.35), 32),
    ("ResNet50V2", {}, 32),
    ("DenseNet121", {}, 32),
]


def application(name, options, size):
    def build():
        maker = getattr(keras2.applications, name)
        shape = (size, size, 3)
        model = maker(input_shape=shape, weights=None, classes=5, classifier_activation=None, **options)
        return model, {model.input_names[0]: feeds.pictures(*shape)}

    return build


for name, options, size in SMALL:
    add("applications", f"Keras 2 {name}", options, application(name, options, size), write="keras2")
