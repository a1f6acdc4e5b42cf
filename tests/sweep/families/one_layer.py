"""A network of one layer, which is the clearest place to see an option go wrong."""

from catalogue import add
from late import L, keras


def one_layer(family, layer, shape, options, *, feed=None, dtype="float32", after=None, shown=None, batch=None, refuse=None):
    """Lists a network of one layer of Keras 3 on an input of `shape`. `shown` is shown beside the options, and
    hides those that it gives as None."""
    shown = shown or {}
    seen = {key: value for key, value in {**options, **shown}.items() if key not in shown or shown[key] is not None}

    def build():
        x = keras.Input(shape, batch_size=batch, dtype=dtype, name="x")
        y = getattr(L, layer)(**options)(x)
        if after is not None:
            y = after(y)
        return keras.Model(x, y), {"x": feed} if feed else {}

    add(family, layer, seen, build, refuse=refuse)
