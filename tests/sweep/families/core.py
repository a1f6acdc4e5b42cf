"""Dense layers, activations, and layers that do nothing when a model answers."""

import feeds
from catalogue import add
from families.one_layer import one_layer
from late import L, keras

DENSE = [
    dict(),
    dict(use_bias=False),
    dict(activation="relu"),
    dict(activation="softmax"),
    dict(kernel_initializer="he_normal", bias_initializer="ones", kernel_regularizer="l2"),
    dict(lora_rank=2),
]
for options in DENSE:
    one_layer("core", "Dense", (6,), dict(units=5, **options))
one_layer("core", "Dense", (4, 6), dict(units=5, activation="tanh"), shown=dict(input="3d"))
one_layer("core", "Dense", (3, 4, 6), dict(units=2), shown=dict(input="4d"))
one_layer("core", "Dense", (6,), dict(units=5, dtype="float64"), shown=dict(dtype="float64"))
one_layer("core", "Dense", (6,), dict(units=5, dtype="float16"), shown=dict(dtype="float16"))
one_layer("core", "EinsumDense", (5, 6), dict(equation="abc,cd->abd", output_shape=(None, 4), bias_axes="d"))
one_layer("core", "EinsumDense", (5, 6), dict(equation="abc,cde->abde", output_shape=(5, 2, 3), activation="relu"))

ACTIVATIONS = (
    "celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu linear log_sigmoid "
    "log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus "
    "sparse_sigmoid sparsemax squareplus tanh tanh_shrink"
).split()
for name in ACTIVATIONS:
    one_layer(
        "activations", "Activation", (5, 6), dict(activation=name), feed=feeds.floats(5, 6, low=-4, high=4)
    )
ADVANCED = [
    ("ReLU", dict()),
    ("ReLU", dict(max_value=1.5)),
    ("ReLU", dict(negative_slope=0.2)),
    ("ReLU", dict(max_value=2.0, negative_slope=0.1, threshold=0.5)),
    ("LeakyReLU", dict()),
    ("LeakyReLU", dict(negative_slope=0.05)),
    ("PReLU", dict()),
    ("PReLU", dict(shared_axes=[1])),
    ("PReLU", dict(shared_axes=[1, 2])),
    ("ELU", dict()),
    ("ELU", dict(alpha=0.4)),
    ("Softmax", dict()),
    ("Softmax", dict(axis=1)),
    ("Softmax", dict(axis=[1, 2])),
]
for layer, options in ADVANCED:
    one_layer("activations", layer, (4, 5, 3), options, feed=feeds.floats(4, 5, 3, low=-3, high=3))

SILENT = [
    ("Dropout", (5,), dict(rate=0.4)),
    ("Dropout", (5, 4), dict(rate=0.4, noise_shape=(None, 1, 4))),
    ("AlphaDropout", (5,), dict(rate=0.4)),
    ("GaussianDropout", (5,), dict(rate=0.4)),
    ("GaussianNoise", (5,), dict(stddev=0.4)),
    ("SpatialDropout1D", (5, 4), dict(rate=0.4)),
    ("SpatialDropout2D", (5, 4, 3), dict(rate=0.4)),
    ("SpatialDropout3D", (5, 4, 3, 2), dict(rate=0.4)),
    ("ActivityRegularization", (5,), dict(l1=0.1)),
    ("Identity", (5,), dict()),
    ("Masking", (5, 3), dict()),
]
for layer, shape, options in SILENT:
    one_layer("identity", layer, shape, options, after=lambda x: L.Dense(3)(x))


def lambda_layer():
    x = keras.Input((4,), name="x")
    return keras.Model(x, L.Dense(2)(L.Lambda(lambda t: t * 2 + 1, output_shape=(4,))(x)))


def custom_layer():
    class Doubling(L.Layer):
        def call(self, x):
            return x * 2.0

        def compute_output_shape(self, shape):
            return shape

    x = keras.Input((4,), name="x")
    return keras.Model(x, L.Dense(2)(Doubling()(x)))


add("refused", "Lambda", {}, lambda_layer, refuse="Lambda")
add("refused", "custom layer", {}, custom_layer, refuse="Doubling")
add("core", "masked Softmax", {}, lambda: masked_softmax())


def masked_softmax():
    x = keras.Input((6,), name="x")
    mask = keras.Input((6,), dtype="bool", name="mask")
    return keras.Model([x, mask], L.Softmax()(x, mask))


