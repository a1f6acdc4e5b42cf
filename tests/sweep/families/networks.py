"""Whole networks: nesting, sharing, several inputs and outputs, and random compositions."""

import random

import feeds
from catalogue import add
from late import L, keras, ops


def network(name, build, **options):
    add("networks", name, options, build)


def perceptron():
    return keras.Sequential([keras.Input((8,)), L.Dense(6, "relu"), L.Dropout(0.2), L.Dense(3, "softmax")])


def without_names():
    return keras.Sequential([L.Input((5,)), L.Dense(4), L.Activation("tanh"), L.Dense(1)])


def images():
    return keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            L.Rescaling(1 / 255),
            L.Conv2D(8, 3, activation="relu"),
            L.MaxPooling2D(),
            L.Conv2D(12, 3, activation="relu"),
            L.MaxPooling2D(),
            L.Flatten(),
            L.Dense(16, activation="relu"),
            L.Dropout(0.5),
            L.Dense(10, activation="softmax"),
        ]
    ), {"image": feeds.pixels(28, 28, 1)}


def residual():
    x = keras.Input((16, 16, 3), name="x")
    y = L.Conv2D(8, 3, padding="same", use_bias=False)(x)
    for strides in (1, 2, 1):
        n = y.shape[-1] * strides
        z = L.ReLU()(L.BatchNormalization()(L.Conv2D(n, 3, strides, padding="same", use_bias=False)(y)))
        z = L.BatchNormalization()(L.Conv2D(n, 3, padding="same", use_bias=False)(z))
        short = y if strides == 1 else L.BatchNormalization()(L.Conv2D(n, 1, strides)(y))
        y = L.ReLU()(L.Add()([z, short]))
    return keras.Model(x, L.Dense(4)(L.GlobalAveragePooling2D()(y)))


def inception():
    x = keras.Input((12, 12, 4), name="x")
    a = L.Conv2D(3, 1, activation="relu")(x)
    b = L.Conv2D(4, 3, padding="same", activation="relu")(L.Conv2D(2, 1)(x))
    c = L.Conv2D(4, (5, 1), padding="same")(L.Conv2D(2, (1, 5), padding="same")(x))
    d = L.Conv2D(3, 1)(L.AveragePooling2D(3, 1, padding="same")(x))
    return keras.Model(x, L.GlobalMaxPooling2D()(L.Concatenate()([a, b, c, d])))


def squeeze_and_excite():
    x = keras.Input((9, 9, 6), name="x")
    s = L.Reshape((1, 1, 6))(L.GlobalAveragePooling2D()(x))
    s = L.Conv2D(6, 1, activation="hard_sigmoid")(L.Conv2D(2, 1, activation="relu")(s))
    return keras.Model(x, L.DepthwiseConv2D(3, padding="same", activation="hard_swish")(L.Multiply()([x, s])))


def u_net():
    x = keras.Input((16, 16, 2), name="x")
    a = L.Conv2D(4, 3, padding="same", activation="relu")(x)
    b = L.Conv2D(8, 3, padding="same", activation="relu")(L.MaxPooling2D()(a))
    c = L.Conv2D(8, 3, padding="same", activation="relu")(L.MaxPooling2D()(b))
    d = L.Concatenate()([L.UpSampling2D(interpolation="bilinear")(c), b])
    d = L.Conv2D(8, 3, padding="same", activation="relu")(d)
    e = L.Concatenate()([L.Conv2DTranspose(4, 2, strides=2)(d), a])
    return keras.Model(x, L.Conv2D(1, 1, activation="sigmoid", name="mask")(e))


def autoencoder():
    encoder = keras.Sequential(
        [keras.Input((12, 12, 1)), L.Conv2D(4, 3, 2, padding="same", activation="relu"), L.Flatten(), L.Dense(5)],
        name="encoder",
    )
    decoder = keras.Sequential(
        [
            keras.Input((5,)),
            L.Dense(36 * 2, activation="relu"),
            L.Reshape((6, 6, 2)),
            L.Conv2DTranspose(1, 3, strides=2, padding="same", activation="sigmoid"),
        ],
        name="decoder",
    )
    x = keras.Input((12, 12, 1), name="image")
    return keras.Model(x, decoder(encoder(x)))


def siamese():
    tower = keras.Sequential([keras.Input((6,)), L.Dense(5, "relu"), L.Dense(4), L.UnitNormalization()], name="tower")
    a, b = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    return keras.Model([a, b], L.Dot(axes=1)([tower(a), tower(b)]))


def nested_twice():
    inner = keras.Sequential([keras.Input((4,)), L.Dense(4, "tanh"), L.BatchNormalization()], name="inner")
    x = keras.Input((4,))
    middle = keras.Model(x, L.Add()([inner(x), inner(inner(x))]), name="middle")
    y = keras.Input((4,), name="x")
    return keras.Model(y, L.Dense(2)(middle(L.Dense(4)(y))))


def several_ends():
    a, b = keras.Input((4,), name="numbers"), keras.Input((6, 3), name="steps")
    y = L.Concatenate()([L.Dense(5, "relu")(a), L.GRU(4)(b)])
    return keras.Model([a, b], [L.Dense(1, name="value")(y), L.Dense(3, "softmax", name="kind")(y)])


def in_and_out_by_name():
    given = {"second": keras.Input((3,), name="second"), "first": keras.Input((4,), name="first")}
    y = L.Concatenate()([given["first"], given["second"]])
    return keras.Model(given, {"sum": L.Dense(2)(y), "part": L.Dense(1)(given["second"])})


def input_is_output():
    x = keras.Input((4,), name="x")
    y = L.Dense(3)(x)
    return keras.Model(x, [y, L.Activation("relu")(y)])


def operations():
    x = keras.Input((4, 6), name="x")
    y = x[:, 1:3, ::2] * 2.0 + 1.0
    y = ops.concatenate([y, -x[:, :2, :3]], axis=-1)
    y = ops.sqrt(ops.abs(y)) / (1.0 + ops.square(y))
    return keras.Model(x, L.Dense(2)(ops.mean(y, axis=1)))


def more_operations():
    x = keras.Input((4, 6), name="x")
    y = ops.matmul(x, ops.transpose(x, (0, 2, 1)))
    y = ops.softmax(y / 2.5, axis=-1)
    z = ops.reshape(ops.maximum(y, 0.2), (-1, 16))
    return keras.Model(x, [z, ops.sum(x, axis=(1, 2)), ops.argmax(x, axis=-1), ops.where(x > 0, x, 0.5 * x)])


def text_cnn():
    x = keras.Input((12,), dtype="int32", name="words")
    y = L.Embedding(20, 6)(x)
    parts = [L.GlobalMaxPooling1D()(L.Conv1D(4, n, activation="relu")(y)) for n in (2, 3, 4)]
    return keras.Model(x, L.Dense(2, "softmax")(L.Dropout(0.5)(L.Concatenate()(parts)))), {
        "words": feeds.ints(12, high=20, dtype="int32")
    }


def wide_and_deep():
    a = keras.Input((5,), name="wide")
    b = keras.Input((1,), dtype="int32", name="deep")
    y = L.Dense(4, "relu")(L.Flatten()(L.Embedding(10, 3)(b)))
    return keras.Model([a, b], L.Dense(1, "sigmoid")(L.Concatenate()([a, y]))), {
        "deep": feeds.ints(1, high=10, dtype="int32")
    }


def conv_and_rnn():
    x = keras.Input((24, 5), name="x")
    y = L.MaxPooling1D(2)(L.Conv1D(6, 5, activation="relu", padding="causal")(x))
    y = L.Bidirectional(L.LSTM(4, return_sequences=True))(y)
    return keras.Model(x, L.TimeDistributed(L.Dense(2))(L.LayerNormalization()(y)))


def video():
    x = keras.Input((4, 8, 8, 2), name="x")
    frame = keras.Sequential([keras.Input((8, 8, 2)), L.Conv2D(3, 3, activation="relu"), L.GlobalAveragePooling2D()])
    return keras.Model(x, L.Dense(2)(L.LSTM(4)(L.TimeDistributed(frame)(x))))


def channels_first():
    x = keras.Input((3, 10, 10), name="x")
    y = L.Permute((2, 3, 1))(x)
    y = L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(y))
    return keras.Model(x, L.Permute((3, 1, 2))(L.MaxPooling2D()(y)))


def fixed_batch():
    x = keras.Input(batch_shape=(2, 6), name="x")
    return keras.Model(x, L.Dense(3)(x))


def forecast():
    x = keras.Input((24, 3), name="window")
    last = L.Cropping1D((23, 0))(x)
    y = L.Conv1D(8, 2, dilation_rate=1, padding="causal", activation="relu")(x)
    for rate in (2, 4, 8):
        z = L.Conv1D(8, 2, dilation_rate=rate, padding="causal", activation="relu")(y)
        y = L.Add()([y, L.SpatialDropout1D(0.1)(z)])
    return keras.Model(x, L.Add()([L.Dense(3)(L.Cropping1D((23, 0))(y)), last]))


def half_precision():
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        return keras.Sequential([keras.Input((6,)), L.Dense(5, "relu"), L.Dense(2)])
    finally:
        keras.mixed_precision.set_dtype_policy("float32")


for build in (
    perceptron, without_names, images, residual, inception, squeeze_and_excite, u_net, autoencoder, siamese,
    nested_twice, several_ends, in_and_out_by_name, input_is_output, operations, more_operations, text_cnn,
    wide_and_deep, conv_and_rnn, video, channels_first, fixed_batch, forecast, half_precision,
):
    network(build.__name__.replace("_", " "), build)


# Random compositions: a seed fully decides each.


def random_image(seed):
    def build():
        dice = random.Random(seed)
        x = keras.Input((dice.choice([12, 15, 16]), dice.choice([12, 14, 17]), dice.choice([1, 3, 4])), name="x")
        ends = [x]
        for _ in range(dice.randint(5, 10)):
            y = image_step(dice, dice.choice(ends[-2:]))
            same = [other for other in ends[1:] if other.shape == y.shape]
            if same and dice.random() < 0.6:
                y = dice.choice([L.Add, L.Multiply, L.Maximum, L.Average])()([y, dice.choice(same)])
            elif dice.random() < 0.25:
                y = L.Concatenate()([y, image_same(dice, y)])
            ends.append(y)
        y = dice.choice([L.GlobalAveragePooling2D(), L.GlobalMaxPooling2D(), L.Flatten()])(ends[-1])
        outputs = [L.Dense(3, activation=dice.choice([None, "softmax", "sigmoid"]))(y)]
        if dice.random() < 0.3:
            outputs.append(ends[-1])
        return keras.Model(x, outputs)

    return build


def activation(dice):
    return dice.choice([None, "relu", "elu", "swish", "tanh", "leaky_relu", "hard_sigmoid", "gelu", "relu6"])


def image_same(dice, x):
    """A layer that keeps height and width."""
    return dice.choice(
        [
            lambda: L.Conv2D(dice.randint(2, 6), dice.choice([1, 2, 3]), padding="same", activation=activation(dice))(x),
            lambda: L.SeparableConv2D(dice.randint(2, 5), 3, padding="same")(x),
            lambda: L.DepthwiseConv2D(3, padding="same", dilation_rate=dice.choice([1, 2]))(x),
            lambda: L.BatchNormalization(scale=dice.random() < 0.7)(x),
            lambda: L.LayerNormalization()(x),
            lambda: L.Activation(activation(dice) or "softplus")(x),
            lambda: L.PReLU(shared_axes=[1, 2])(x),
            lambda: L.SpatialDropout2D(0.2)(x),
        ]
    )()


def image_step(dice, x):
    small = min(x.shape[1], x.shape[2]) < 6
    if small or dice.random() < 0.6:
        if max(x.shape[1:3]) < 10 and dice.random() < 0.3:
            return dice.choice(
                [
                    lambda: L.UpSampling2D(interpolation=dice.choice(["nearest", "bilinear"]))(x),
                    lambda: L.Conv2DTranspose(3, 3, strides=2, padding=dice.choice(["same", "valid"]))(x),
                    lambda: L.ZeroPadding2D(((1, 0), (0, 2)))(x),
                ]
            )()
        return image_same(dice, x)
    return dice.choice(
        [
            lambda: L.Conv2D(dice.randint(2, 6), 3, strides=dice.choice([1, 2]), activation=activation(dice))(x),
            lambda: L.MaxPooling2D(dice.choice([2, 3]), strides=2, padding=dice.choice(["same", "valid"]))(x),
            lambda: L.AveragePooling2D(3, strides=dice.choice([1, 2]), padding=dice.choice(["same", "valid"]))(x),
            lambda: L.Cropping2D(((0, 1), (1, 0)))(x),
            lambda: L.Permute((2, 1, 3))(x),
        ]
    )()


def random_sequence(seed):
    def build():
        dice = random.Random(seed)
        steps, width = dice.choice([8, 10, 12]), dice.choice([3, 5])
        x = keras.Input((steps, width), name="x")
        y = x
        for _ in range(dice.randint(3, 6)):
            y = sequence_step(dice, y)
        last = dice.choice(
            [L.GRU(4), L.LSTM(4), L.SimpleRNN(4), L.GlobalAveragePooling1D(), L.GlobalMaxPooling1D(), L.Flatten()]
        )
        return keras.Model(x, L.Dense(2, activation=activation(dice))(last(y)))

    return build


def sequence_step(dice, x):
    width = x.shape[-1]
    kind = dice.choice([L.GRU, L.LSTM, L.SimpleRNN])
    return dice.choice(
        [
            lambda: L.Conv1D(5, 3, padding=dice.choice(["same", "causal"]), activation=activation(dice))(x),
            lambda: kind(4, return_sequences=True, go_backwards=dice.random() < 0.3)(x),
            lambda: L.Bidirectional(kind(3, return_sequences=True), merge_mode=dice.choice(["concat", "sum", "ave"]))(x),
            lambda: L.TimeDistributed(L.Dense(4, activation=activation(dice)))(x),
            lambda: L.Add()([x, L.MultiHeadAttention(2, 3)(x, x)]),
            lambda: L.Attention()([x, x]),
            lambda: L.LayerNormalization()(x),
            lambda: L.BatchNormalization()(x),
            lambda: L.Multiply()([x, L.Dense(width, activation="sigmoid")(x)]),
            lambda: L.MaxPooling1D(2, 1, padding="same")(x),
            lambda: L.GaussianNoise(0.1)(L.Dropout(0.1)(x)),
        ]
    )()


def random_table(seed):
    def build():
        dice = random.Random(seed)
        given = [keras.Input((dice.randint(2, 6),), name=f"x{i}") for i in range(dice.randint(1, 3))]
        shared = L.Dense(5, activation=activation(dice))
        parts = [shared(L.Dense(4)(x)) for x in given] + [L.Dense(3, activation=activation(dice))(given[0])]
        y = L.Concatenate()(parts)
        for _ in range(dice.randint(1, 4)):
            z = L.Dense(6, activation=activation(dice))(y)
            z = dice.choice([L.BatchNormalization, L.LayerNormalization, L.UnitNormalization, L.Identity])()(z)
            y = L.Concatenate()([y, z]) if dice.random() < 0.4 else z
        return keras.Model(given, [L.Dense(1)(y), L.Dense(2, "softmax")(z)][: dice.randint(1, 2)])

    return build


for seed in range(12):
    add("random", "random image network", dict(seed=seed), random_image(seed))
    add("random", "random sequence network", dict(seed=seed), random_sequence(seed))
for seed in range(6):
    add("random", "random table network", dict(seed=seed), random_table(seed))
