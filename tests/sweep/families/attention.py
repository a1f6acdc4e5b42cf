"""Embedding and attention."""

import feeds
from catalogue import add
from families.one_layer import one_layer
from late import L, keras, ops

one_layer("embedding", "Embedding", (6,), dict(input_dim=9, output_dim=4), dtype="int32", feed=feeds.ints(6, high=9, dtype="int32"))
one_layer("embedding", "Embedding", (6,), dict(input_dim=9, output_dim=4), dtype="int64", shown=dict(input="int64"), feed=feeds.ints(6, high=9))
one_layer("embedding", "Embedding", (6,), dict(input_dim=9, output_dim=4), shown=dict(input="float32"), feed=feeds.ints(6, high=9, dtype="float32"))
one_layer("embedding", "Embedding", (2, 3), dict(input_dim=9, output_dim=4), dtype="int32", shown=dict(input="3d"))
one_layer("embedding", "Embedding", (), dict(input_dim=9, output_dim=4), dtype="int32", shown=dict(input="1d"))


def embedding_then(after, mask_zero):
    def build():
        x = keras.Input((6,), dtype="int32", name="words")
        return keras.Model(x, after(L.Embedding(9, 4, mask_zero=mask_zero)(x))), {"words": feeds.padded_ints(6, 9)}

    return build


for mask_zero in (False, True):
    options = dict(mask_zero=mask_zero)
    add("embedding", "Embedding and GlobalAveragePooling1D", options, embedding_then(lambda y: L.GlobalAveragePooling1D()(y), mask_zero))
    add("embedding", "Embedding and Flatten", options, embedding_then(lambda y: L.Dense(2)(L.Flatten()(y)), mask_zero))
    add("embedding", "Embedding and Conv1D", options, embedding_then(lambda y: L.GlobalMaxPooling1D()(L.Conv1D(5, 3, activation="relu")(y)), mask_zero))
    add("embedding", "Embedding and MultiHeadAttention", options, embedding_then(lambda y: L.MultiHeadAttention(2, 3)(y, y), mask_zero))
    add("embedding", "Embedding and Attention", options, embedding_then(lambda y: L.Attention()([y, y]), mask_zero))


def reversible():
    x = keras.Input((6,), dtype="int32", name="words")
    embed = L.ReversibleEmbedding(9, 4)
    return keras.Model(x, embed(L.Dense(4)(embed(x)), reverse=True)), {"words": feeds.ints(6, high=9, dtype="int32")}


add("embedding", "ReversibleEmbedding", {}, reversible)


def attention(layer, options, call=None, third=True, masks=False):
    def build():
        query = keras.Input((5, 4), name="query")
        value = keras.Input((6, 4), name="value")
        given = [query, value]
        if third:
            given.append(keras.Input((6, 4), name="zkey"))
        extra = dict(call or {})
        inputs = list(given)
        if masks:
            names = [keras.Input((5,), dtype="bool", name="qmask"), keras.Input((6,), dtype="bool", name="vmask")]
            extra["mask"] = names + [None] * (len(given) - 2)
            inputs += names
        return keras.Model(inputs, getattr(L, layer)(**options)(given, **extra))

    return build


ATTENTIONS = [
    ("Attention", {}, {}, False),
    ("Attention", {}, {}, True),
    ("Attention", dict(use_scale=True), {}, True),
    ("Attention", dict(score_mode="concat"), {}, True),
    ("Attention", dict(score_mode="concat", use_scale=True), {}, False),
    ("Attention", {}, dict(use_causal_mask=True), True),
    ("Attention", {}, dict(return_attention_scores=True), True),
    ("Attention", dict(dropout=0.2), {}, True),
    ("AdditiveAttention", {}, {}, True),
    ("AdditiveAttention", dict(use_scale=False), {}, True),
    ("AdditiveAttention", {}, dict(return_attention_scores=True), False),
    ("AdditiveAttention", {}, dict(use_causal_mask=True), False),
]
for layer, options, call, third in ATTENTIONS:
    shown = {**options, **call, "inputs": 3 if third else 2}
    add("attention", layer, shown, attention(layer, options, call, third))
for layer in ("Attention", "AdditiveAttention"):
    add("attention", layer, dict(mask="query and value"), attention(layer, {}, masks=True))


def multi_head(options, call=None, kinds=("q", "v"), rank=3, mask=False, layer="MultiHeadAttention"):
    def build():
        middle = (3,) if rank == 4 else ()
        query = keras.Input((5, *middle, 6), name="query")
        inputs, extra = [query], dict(call or {})
        value = query
        if "v" in kinds:
            value = keras.Input((7, *middle, 4), name="value")
            inputs.append(value)
        if "k" in kinds:
            extra["key"] = keras.Input((7, *middle, 5), name="key")
            inputs.append(extra["key"])
        if mask:
            extra["attention_mask"] = keras.Input((5, value.shape[1]), dtype="bool", name="mask")
            inputs.append(extra["attention_mask"])
        return keras.Model(inputs, getattr(L, layer)(**options)(query, value, **extra))

    return build


HEADS = [
    (dict(), {}, "v"),
    (dict(), {}, ""),
    (dict(), {}, "vk"),
    (dict(value_dim=5), {}, "vk"),
    (dict(output_shape=9), {}, "v"),
    (dict(use_bias=False), {}, "v"),
    (dict(dropout=0.3), {}, "v"),
    (dict(), dict(use_causal_mask=True), ""),
    (dict(), dict(return_attention_scores=True), "v"),
    (dict(num_heads=1), {}, ""),
]
for options, call, kinds in HEADS:
    shown = {**options, **call, "inputs": "q" + kinds}
    add("attention", "MultiHeadAttention", shown, multi_head(dict(num_heads=2, key_dim=3) | options, call, kinds))
add("attention", "MultiHeadAttention", dict(attention_mask=True), multi_head(dict(num_heads=2, key_dim=3), mask=True))
add("attention", "MultiHeadAttention", dict(attention_axes=1, input="4d"), multi_head(dict(num_heads=2, key_dim=3, attention_axes=1), rank=4, kinds=""))
add("attention", "MultiHeadAttention", dict(attention_axes="1, 2", input="4d"), multi_head(dict(num_heads=2, key_dim=3, attention_axes=(1, 2)), rank=4, kinds=""))
GROUPED = dict(head_dim=3, num_query_heads=4, num_key_value_heads=2)
add("attention", "GroupQueryAttention", {}, multi_head(GROUPED, layer="GroupQueryAttention", kinds=""))
add("attention", "GroupQueryAttention", dict(use_bias=False), multi_head(GROUPED | dict(use_bias=False), layer="GroupQueryAttention", kinds=""))


class Positions:
    """Positions added to an embedding, with the operations of Keras 3 rather than a layer of one's own."""

    def __call__(self, x, size):
        steps = L.Embedding(size, x.shape[-1], name="positions")(ops.arange(size))
        return L.Add()([x, ops.broadcast_to(ops.expand_dims(steps, 0), (1, size, x.shape[-1]))])


def transformer(norm_first):
    def build():
        x = keras.Input((6,), dtype="int32", name="words")
        y = L.Embedding(12, 8)(x)
        for _ in range(2):
            inner = L.LayerNormalization(epsilon=1e-6)(y) if norm_first else y
            y = L.Add()([y, L.MultiHeadAttention(2, 4, dropout=0.1)(inner, inner)])
            y = y if norm_first else L.LayerNormalization(epsilon=1e-6)(y)
            inner = L.LayerNormalization(epsilon=1e-6)(y) if norm_first else y
            inner = L.Dropout(0.1)(L.Dense(8)(L.Dense(16, activation="gelu")(inner)))
            y = L.Add()([y, inner])
            y = y if norm_first else L.LayerNormalization(epsilon=1e-6)(y)
        return keras.Model(x, L.Dense(3, activation="softmax")(L.GlobalAveragePooling1D()(y))), {
            "words": feeds.ints(6, high=12, dtype="int32")
        }

    return build


add("attention", "transformer encoder", dict(norm="first"), transformer(True))
add("attention", "transformer encoder", dict(norm="last"), transformer(False))
