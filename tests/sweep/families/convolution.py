"""Convolutions: padding, strides, dilation, groups, layouts, and shapes that do not divide."""

import feeds
from catalogue import add
from families.one_layer import one_layer
from late import L, keras

FIRST = "channels_first"

CONV1D = [
    dict(padding="valid"),
    dict(padding="same"),
    dict(padding="causal"),
    dict(padding="causal", dilation_rate=2),
    dict(padding="same", strides=2),
    dict(padding="valid", strides=3),
    dict(padding="same", dilation_rate=2),
    dict(groups=3, filters=6),
    dict(activation="relu", use_bias=False),
    dict(kernel_size=4, padding="same"),
    dict(kernel_size=4, padding="same", strides=2),
    dict(data_format=FIRST, padding="same"),
]
for options in CONV1D:
    one_layer("convolution", "Conv1D", (11, 6), dict(filters=4, kernel_size=3) | options, shown=dict(filters=None))

CONV2D = [
    dict(padding="valid"),
    dict(padding="same"),
    dict(padding="same", strides=2),
    dict(padding="valid", strides=(2, 1)),
    dict(padding="same", strides=(3, 2), kernel_size=(2, 3)),
    dict(padding="same", dilation_rate=2),
    dict(padding="valid", dilation_rate=(1, 2)),
    dict(kernel_size=1),
    dict(kernel_size=1, strides=2, padding="same"),
    dict(kernel_size=(1, 5), padding="same"),
    dict(kernel_size=4, padding="same"),
    dict(kernel_size=4, padding="same", strides=2),
    dict(groups=2, filters=4),
    dict(groups=4, filters=8, padding="same"),
    dict(use_bias=False, activation="swish"),
    dict(activation="leaky_relu"),
    dict(data_format=FIRST),
    dict(data_format=FIRST, padding="same", strides=2),
]
for options in CONV2D:
    one_layer("convolution", "Conv2D", (9, 10, 4), dict(filters=3, kernel_size=3) | options, shown=dict(filters=None))
one_layer(
    "convolution", "Conv2D", (None, None, 3), dict(filters=3, kernel_size=3, padding="same", strides=2),
    shown=dict(input="open"), feed=feeds.floats(8, 7, 3),
)

CONV3D = [
    dict(padding="valid"),
    dict(padding="same"),
    dict(padding="same", strides=2),
    dict(padding="valid", strides=(1, 2, 1)),
    dict(padding="same", dilation_rate=2),
    dict(groups=2),
    dict(kernel_size=(1, 2, 3), padding="same"),
    dict(use_bias=False, activation="relu"),
]
for options in CONV3D:
    one_layer("convolution", "Conv3D", (6, 7, 5, 4), dict(filters=2, kernel_size=3) | options, shown=dict(filters=None))

SEPARABLE = [
    dict(padding="valid"),
    dict(padding="same"),
    dict(padding="same", strides=2),
    dict(padding="same", depth_multiplier=2),
    dict(padding="same", dilation_rate=2),
    dict(use_bias=False, activation="relu"),
]
for options in SEPARABLE:
    one_layer("convolution", "SeparableConv1D", (10, 4), dict(filters=5, kernel_size=3) | options)
    one_layer("convolution", "SeparableConv2D", (9, 8, 4), dict(filters=5, kernel_size=3) | options)

DEPTHWISE = [
    dict(padding="valid"),
    dict(padding="same"),
    dict(padding="same", strides=2),
    dict(padding="valid", strides=2),
    dict(padding="same", depth_multiplier=3),
    dict(padding="same", dilation_rate=2),
    dict(kernel_size=4, padding="same", strides=2),
    dict(use_bias=False, activation="relu6"),
]
for options in DEPTHWISE:
    one_layer("convolution", "DepthwiseConv1D", (10, 4), dict(kernel_size=3) | options)
    one_layer("convolution", "DepthwiseConv2D", (9, 8, 4), dict(kernel_size=3) | options)
one_layer("convolution", "DepthwiseConv2D", (9, 8, 4), dict(kernel_size=(2, 5), padding="same"))

TRANSPOSED = [
    dict(padding="valid"),
    dict(padding="same"),
    dict(padding="same", strides=2),
    dict(padding="valid", strides=2),
    dict(padding="valid", strides=3),
    dict(padding="same", strides=2, kernel_size=4),
    dict(padding="valid", strides=2, kernel_size=1),
    dict(padding="same", strides=2, output_padding=0),
    dict(padding="valid", strides=2, output_padding=1),
    dict(padding="same", dilation_rate=2),
    dict(use_bias=False, activation="tanh"),
]
for options in TRANSPOSED:
    for layer, shape in [
        ("Conv1DTranspose", (7, 3)),
        ("Conv2DTranspose", (5, 6, 3)),
        ("Conv3DTranspose", (4, 3, 5, 2)),
    ]:
        one_layer("convolution", layer, shape, dict(filters=4, kernel_size=3) | options, shown=dict(filters=None))
one_layer(
    "convolution", "Conv2DTranspose", (5, 6, 3), dict(filters=4, kernel_size=(2, 5), strides=(1, 3), padding="same")
)
one_layer(
    "convolution", "Conv2DTranspose", (None, None, 3), dict(filters=4, kernel_size=3, strides=2, padding="same"),
    shown=dict(input="open"), feed=feeds.floats(5, 4, 3),
)


def same_kernel_twice():
    x = keras.Input((8, 8, 3), name="x")
    shared = L.Conv2D(3, 3, padding="same", activation="relu", name="shared")
    return keras.Model(x, shared(shared(x)))


add("convolution", "Conv2D", dict(shared="twice"), same_kernel_twice)
