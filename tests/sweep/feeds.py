"""What goes into a model: a feed is a function of a random generator and a batch size."""

from late import np

WORDS = ["red", "green", "blue", "", "Red", "yellow", "the cat sat", "Cat! on, the: MAT", "grün ☃", "[UNK]", "a", "b c"]


def floats(*shape, low=-1.0, high=1.0, dtype="float32"):
    return lambda rng, n: rng.uniform(low, high, (n, *shape)).astype(dtype)


def pixels(*shape):
    return floats(*shape, low=0.0, high=255.0)


def pictures(*shape, low=-1.0, high=1.0):
    """Coarse patches with noise on them: deep networks average plain noise away."""

    def feed(rng, n):
        height, width, depth = shape
        coarse = rng.uniform(low, high, (n, 3, 3, depth))
        rows, columns = np.arange(height) * 3 // height, np.arange(width) * 3 // width
        noise = rng.uniform(low, high, (n, *shape))
        return (0.75 * coarse[:, rows][:, :, columns] + 0.25 * noise).astype("float32")

    return feed


def ints(*shape, low=0, high=8, dtype="int64"):
    return lambda rng, n: rng.integers(low, high, (n, *shape)).astype(dtype)


def bools(*shape):
    return lambda rng, n: rng.uniform(0, 1, (n, *shape)) < 0.6


def strings(*shape, words=None):
    return lambda rng, n: rng.choice(np.array(words or WORDS, dtype=object), (n, *shape))


def padded(*shape, feature=None):
    """Sequences whose ends are zero, as masking layers expect them: of `shape[0]` steps."""

    def feed(rng, n):
        steps = np.arange(shape[0])[None, :] < rng.integers(1, shape[0] + 1, (n, 1))
        data = rng.uniform(-1, 1, (n, *shape)).astype("float32")
        return data * steps.reshape(n, shape[0], *[1] * (len(shape) - 1)).astype("float32")

    return feed


def padded_ints(steps, high=10, dtype="int32"):
    def feed(rng, n):
        kept = np.arange(steps)[None, :] < rng.integers(1, steps + 1, (n, 1))
        return (rng.integers(1, high, (n, steps)) * kept).astype(dtype)

    return feed


def by_type(dtype, shape):
    """The feed of an input of which only element type and shape are known."""
    shape = tuple(7 if size is None else size for size in shape)
    if dtype == "string":
        return strings(*shape)
    if dtype == "bool":
        return bools(*shape)
    if "int" in dtype:
        return ints(*shape, dtype=dtype)
    return floats(*shape, dtype=dtype)
