"""Normalisation layers."""

from catalogue import add
from families.one_layer import one_layer
from late import L, keras

IMAGE = (5, 6, 4)
CASES = [
    ("BatchNormalization", IMAGE, dict()),
    ("BatchNormalization", IMAGE, dict(axis=1)),
    ("BatchNormalization", IMAGE, dict(axis=2)),
    ("BatchNormalization", IMAGE, dict(scale=False)),
    ("BatchNormalization", IMAGE, dict(center=False)),
    ("BatchNormalization", IMAGE, dict(scale=False, center=False, epsilon=0.1)),
    ("BatchNormalization", (7,), dict()),
    ("BatchNormalization", (7, 3), dict(epsilon=1e-5)),
    ("BatchNormalization", (4, 5, 3, 2), dict()),
    ("LayerNormalization", (6,), dict()),
    ("LayerNormalization", IMAGE, dict()),
    ("LayerNormalization", IMAGE, dict(axis=1)),
    ("LayerNormalization", IMAGE, dict(axis=[1, 2])),
    ("LayerNormalization", IMAGE, dict(axis=[1, 2, 3])),
    ("LayerNormalization", (5, 6), dict(scale=False, center=False)),
    ("LayerNormalization", (5, 6), dict(epsilon=1e-2)),
    ("LayerNormalization", (1, 6), dict(axis=1)),
    ("GroupNormalization", IMAGE, dict(groups=2)),
    ("GroupNormalization", IMAGE, dict(groups=-1)),
    ("GroupNormalization", IMAGE, dict(groups=1)),
    ("GroupNormalization", IMAGE, dict(groups=4, scale=False, center=False)),
    ("GroupNormalization", (4, 5, 6), dict(groups=2, axis=1)),
    ("GroupNormalization", (7, 6), dict(groups=3, epsilon=1e-2)),
    ("UnitNormalization", (6,), dict()),
    ("UnitNormalization", IMAGE, dict(axis=1)),
    ("UnitNormalization", IMAGE, dict(axis=[1, 2])),
    ("RMSNormalization", (5, 6), dict()),
    ("RMSNormalization", (5, 6), dict(epsilon=1e-2)),
]
for layer, shape, options in CASES:
    shown = dict(input=f"{len(shape) + 1}d") if shape != IMAGE else {}
    one_layer("normalisation", layer, shape, options, shown=shown)


def spectral():
    x = keras.Input((8, 8, 3), name="x")
    return keras.Model(x, L.SpectralNormalization(L.Conv2D(4, 3))(x))


add("normalisation", "SpectralNormalization", {}, spectral)


def conv_bn(order, axis, use_bias, layer):
    def build():
        x = keras.Input((9, 8, 3), name="x")
        conv = {
            "Conv2D": lambda: L.Conv2D(5, 3, use_bias=use_bias, padding="same"),
            "DepthwiseConv2D": lambda: L.DepthwiseConv2D(3, use_bias=use_bias, padding="same"),
            "Conv2DTranspose": lambda: L.Conv2DTranspose(5, 3, strides=2, use_bias=use_bias, padding="same"),
            "Dense": lambda: L.Dense(5, use_bias=use_bias),
        }[layer]()
        bn = L.BatchNormalization(axis=axis)
        y = bn(conv(x)) if order == "after" else conv(bn(x))
        return keras.Model(x, L.ReLU()(y))

    return build


for layer in ("Conv2D", "DepthwiseConv2D", "Conv2DTranspose", "Dense"):
    for order in ("after", "before"):
        for use_bias in (True, False):
            options = dict(norm=order, use_bias=use_bias)
            add("normalisation", f"{layer} and BatchNormalization", options, conv_bn(order, -1, use_bias, layer))
add("normalisation", "Conv2D and BatchNormalization", dict(axis=1), conv_bn("after", 1, True, "Conv2D"))
