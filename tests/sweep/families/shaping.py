"""Merging, reshaping, padding, cropping and upsampling."""

import feeds
from catalogue import add
from families.one_layer import one_layer
from late import L, keras

FIRST = "channels_first"


def merging(layer, options, shapes):
    def build():
        given = [keras.Input(shape, name=f"x{i}") for i, shape in enumerate(shapes)]
        return keras.Model(given, getattr(L, layer)(**options)(given))

    return build


SAME2, SAME3 = [(4, 5), (4, 5)], [(4, 5)] * 3
MERGES = [
    ("Add", {}, SAME2, "2 inputs"),
    ("Add", {}, SAME3, "3 inputs"),
    ("Add", {}, [(4, 5), (1, 5)], "broadcast"),
    ("Add", {}, [(4, 5), (5,)], "broadcast ranks"),
    ("Subtract", {}, SAME2, "2 inputs"),
    ("Multiply", {}, SAME3, "3 inputs"),
    ("Multiply", {}, [(4, 6, 5), (1, 1, 5)], "broadcast"),
    ("Average", {}, SAME3, "3 inputs"),
    ("Maximum", {}, SAME3, "3 inputs"),
    ("Minimum", {}, SAME2, "2 inputs"),
    ("Concatenate", {}, [(4, 5), (4, 2), (4, 1)], "3 inputs"),
    ("Concatenate", dict(axis=1), [(4, 5), (2, 5)], "2 inputs"),
    ("Concatenate", dict(axis=-2), [(3, 4, 5), (3, 2, 5)], "2 inputs"),
    ("Concatenate", dict(axis=1), [(3, 4, 5), (2, 4, 5)], "2 inputs 4d"),
    ("Dot", dict(axes=1), [(5,), (5,)], "vectors"),
    ("Dot", dict(axes=1, normalize=True), [(5,), (5,)], "vectors"),
    ("Dot", dict(axes=2), [(4, 5), (3, 5)], "matrices"),
    ("Dot", dict(axes=(2, 1)), [(4, 5), (5, 3)], "matrices"),
    ("Dot", dict(axes=(1, 2), normalize=True), [(5, 4), (3, 5)], "matrices"),
    ("Dot", dict(axes=-1), [(5,), (3, 5)], "vector and matrix"),
]
for layer, options, shapes, what in MERGES:
    add("merge", layer, {**options, "of": what}, merging(layer, options, shapes))

SHAPING = [
    ("Flatten", (3, 4, 2), dict()),
    ("Flatten", (3, 4, 2), dict(data_format=FIRST)),
    ("Flatten", (5,), dict()),
    ("Reshape", (3, 4), dict(target_shape=(6, 2))),
    ("Reshape", (3, 4), dict(target_shape=(-1,))),
    ("Reshape", (3, 4), dict(target_shape=(2, -1, 3))),
    ("Reshape", (4,), dict(target_shape=(4, 1))),
    ("Permute", (3, 4, 5), dict(dims=(3, 1, 2))),
    ("Permute", (3, 4), dict(dims=(2, 1))),
    ("RepeatVector", (4,), dict(n=3)),
    ("ZeroPadding1D", (5, 3), dict(padding=2)),
    ("ZeroPadding1D", (5, 3), dict(padding=(0, 3))),
    ("ZeroPadding2D", (5, 4, 3), dict(padding=1)),
    ("ZeroPadding2D", (5, 4, 3), dict(padding=(2, 1))),
    ("ZeroPadding2D", (5, 4, 3), dict(padding=((0, 1), (2, 3)))),
    ("ZeroPadding2D", (3, 5, 4), dict(padding=((0, 1), (2, 3)), data_format=FIRST)),
    ("ZeroPadding3D", (3, 4, 5, 2), dict(padding=1)),
    ("ZeroPadding3D", (3, 4, 5, 2), dict(padding=((0, 1), (2, 3), (1, 0)))),
    ("Cropping1D", (7, 3), dict(cropping=2)),
    ("Cropping1D", (7, 3), dict(cropping=(0, 3))),
    ("Cropping2D", (7, 8, 3), dict(cropping=1)),
    ("Cropping2D", (7, 8, 3), dict(cropping=((0, 1), (2, 3)))),
    ("Cropping2D", (3, 7, 8), dict(cropping=((0, 1), (2, 0)), data_format=FIRST)),
    ("Cropping3D", (5, 6, 7, 2), dict(cropping=1)),
    ("Cropping3D", (5, 6, 7, 2), dict(cropping=((0, 1), (2, 1), (1, 0)))),
    ("UpSampling1D", (5, 3), dict(size=3)),
    ("UpSampling2D", (4, 5, 3), dict()),
    ("UpSampling2D", (4, 5, 3), dict(size=(3, 1))),
    ("UpSampling2D", (4, 5, 3), dict(interpolation="bilinear")),
    ("UpSampling2D", (4, 5, 3), dict(size=3, interpolation="bilinear")),
    ("UpSampling2D", (4, 5, 3), dict(interpolation="bicubic")),
    ("UpSampling2D", (4, 5, 3), dict(interpolation="lanczos3")),
    ("UpSampling2D", (3, 4, 5), dict(data_format=FIRST)),
    ("UpSampling3D", (3, 4, 2, 2), dict()),
    ("UpSampling3D", (3, 4, 2, 2), dict(size=(1, 2, 3))),
]
for layer, shape, options in SHAPING:
    shown = dict(input="2d") if shape == (5,) else {}
    one_layer("shaping", layer, shape, options, shown=shown)
one_layer("shaping", "Flatten", (None, 3), dict(), shown=dict(input="open"), feed=feeds.floats(4, 3))
one_layer("shaping", "Reshape", (None, 4), dict(target_shape=(-1, 2)), shown=dict(input="open"), feed=feeds.floats(5, 4))
one_layer("shaping", "UpSampling2D", (None, None, 3), dict(), shown=dict(input="open"), feed=feeds.floats(5, 4, 3))
one_layer("shaping", "ZeroPadding2D", (None, None, 3), dict(padding=1), shown=dict(input="open"), feed=feeds.floats(5, 4, 3))
one_layer("shaping", "Cropping2D", (None, None, 3), dict(cropping=1), shown=dict(input="open"), feed=feeds.floats(5, 4, 3))
