"""Pooling of all kinds."""

import feeds
from families.one_layer import one_layer

SHAPES = {1: (11, 3), 2: (9, 10, 3), 3: (6, 7, 5, 2)}
POOLS = [
    dict(pool_size=2),
    dict(pool_size=2, padding="same"),
    dict(pool_size=3, strides=2),
    dict(pool_size=3, strides=2, padding="same"),
    dict(pool_size=3, strides=1, padding="same"),
    dict(pool_size=2, strides=3),
]
for n, shape in SHAPES.items():
    for kind in ("Max", "Average"):
        for options in POOLS:
            one_layer("pooling", f"{kind}Pooling{n}D", shape, options)
        one_layer("pooling", f"Global{kind}Pooling{n}D", shape, dict())
        one_layer("pooling", f"Global{kind}Pooling{n}D", shape, dict(keepdims=True))
        first = (shape[-1], *shape[:-1])
        one_layer("pooling", f"Global{kind}Pooling{n}D", first, dict(data_format="channels_first"))
        one_layer("pooling", f"{kind}Pooling{n}D", first, dict(pool_size=2, data_format="channels_first"))
for kind in ("Max", "Average"):
    one_layer("pooling", f"{kind}Pooling2D", (9, 10, 3), dict(pool_size=(3, 2), strides=(1, 2), padding="same"))
    one_layer("pooling", f"Adaptive{kind}Pooling2D", (9, 10, 3), dict(output_size=(3, 4)))
    one_layer("pooling", f"Adaptive{kind}Pooling1D", (8, 3), dict(output_size=4))
    one_layer(
        "pooling", f"Global{kind}Pooling2D", (None, None, 3), dict(), shown=dict(input="open"), feed=feeds.floats(5, 6, 3)
    )
    one_layer(
        "pooling", f"{kind}Pooling2D", (None, None, 3), dict(pool_size=2, padding="same"), shown=dict(input="open"),
        feed=feeds.floats(5, 6, 3),
    )
