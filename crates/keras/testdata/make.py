"""Makes the models of this folder, each with inputs and Keras' own answers. Run with Keras 3 and TensorFlow:

    python make.py            writes NAME.keras, NAME.json (and NAME.h5.zip, a packed .h5, for some) here
    python make.py --apart D  writes every output of every case as a model of its own into D, to find a fault
"""

import json
import os
import sys
import zipfile

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
from keras import layers as L
from keras import ops as K

rng = np.random.default_rng(7)


def images(c=3, h=6, w=5):
    return keras.Input((h, w, c), name="images")


def dense_case():
    x = keras.Input((5,), name="x")
    acts = ["relu", "sigmoid", "tanh", "softmax", "elu", "selu", "softplus", "softsign", "silu", "gelu", "exponential",
            "hard_sigmoid", "relu6", "leaky_relu", "hard_silu", "mish", "celu", "log_softmax", "log_sigmoid",
            "squareplus", "soft_shrink", "hard_shrink", "tanh_shrink", "sparse_plus", "hard_tanh", "linear",
            "sparse_sigmoid"]
    h = L.Dense(4, name="first")(x)
    outs = {f"act_{i}_{a}": L.Activation(a, name=f"a{i}")(h) for i, a in enumerate(acts)}
    outs["glu"] = L.Activation("glu", name="glu")(h)
    outs["leaky"] = L.LeakyReLU(negative_slope=0.1)(h)
    outs["prelu"] = L.PReLU()(h)
    outs["elu_a"] = L.ELU(alpha=0.7)(h)
    outs["relu_all"] = L.ReLU(max_value=0.9, negative_slope=0.2, threshold=0.1)(h)
    outs["relu_max"] = L.ReLU(max_value=0.5)(h)
    outs["softmax_layer"] = L.Softmax()(h)
    outs["no_bias"] = L.Dense(3, use_bias=False, activation=L.LeakyReLU(negative_slope=0.3))(x)
    outs["dropped"] = L.Dropout(0.5)(L.GaussianNoise(0.3)(L.AlphaDropout(0.2)(L.ActivityRegularization(l1=0.1)(h))))
    return {"x": x}, outs


def conv_case():
    x = images()
    outs = {}
    for i, kw in enumerate([dict(), dict(padding="same", strides=2, activation="relu"), dict(dilation_rate=2, use_bias=False),
                            dict(padding="same", dilation_rate=(2, 1), activation="softmax")]):
        outs[f"conv{i}"] = L.Conv2D(4, (3, 2), **kw)(x)
    outs["groups"] = L.Conv2D(4, 3, groups=2, padding="same")(L.Conv2D(4, 1)(x))
    outs["depth"] = L.DepthwiseConv2D(3, depth_multiplier=2, padding="same", activation="tanh")(x)
    outs["depth_s"] = L.DepthwiseConv2D(2, strides=2)(x)
    outs["sep"] = L.SeparableConv2D(3, 3, depth_multiplier=2, padding="same", strides=2)(x)
    outs["t_valid"] = L.Conv2DTranspose(2, 3, strides=2)(x)
    outs["t_same"] = L.Conv2DTranspose(2, 3, strides=2, padding="same", activation="relu")(x)
    outs["t_even"] = L.Conv2DTranspose(2, (4, 2), strides=(2, 3), padding="same")(x)
    outs["t_out"] = L.Conv2DTranspose(2, 3, strides=3, padding="same", output_padding=2)(x)
    outs["t_outv"] = L.Conv2DTranspose(2, 3, strides=2, padding="valid", output_padding=1)(x)
    outs["t_small"] = L.Conv2DTranspose(2, 2, strides=3)(x)
    outs["t_dil"] = L.Conv2DTranspose(2, 3, dilation_rate=2)(x)
    return {"images": x}, outs


def conv_first_case():
    # Channels first: TensorFlow computes most of these on GPUs only, so that the answers come from the layers that it has.
    x = keras.Input((3, 6, 5), name="images")
    outs = {}
    outs["max"] = L.MaxPooling2D(2, data_format="channels_first")(x)
    outs["avg"] = L.AveragePooling2D(2, padding="same", data_format="channels_first")(x)
    outs["gmax"] = L.GlobalMaxPooling2D(data_format="channels_first")(x)
    outs["gavg"] = L.GlobalAveragePooling2D(data_format="channels_first", keepdims=True)(x)
    outs["flat"] = L.Flatten(data_format="channels_first")(x)
    outs["pad"] = L.ZeroPadding2D(((1, 2), (0, 1)), data_format="channels_first")(x)
    outs["crop"] = L.Cropping2D(((1, 0), (2, 1)), data_format="channels_first")(x)
    outs["up"] = L.UpSampling2D((2, 3), data_format="channels_first")(x)
    outs["bn"] = L.BatchNormalization(axis=1)(x)
    outs["conv"] = L.Conv2D(2, 3, padding="same", data_format="channels_first")(x)
    return {"images": x}, outs


def conv13_case():
    x = keras.Input((9, 4), name="x")
    v = keras.Input((5, 4, 6, 2), name="v")
    outs = {}
    outs["causal"] = L.Conv1D(3, 3, padding="causal", dilation_rate=2)(x)
    outs["same"] = L.Conv1D(3, 4, padding="same", strides=2, activation="relu")(x)
    outs["sep"] = L.SeparableConv1D(3, 3, padding="same")(x)
    outs["depth"] = L.DepthwiseConv1D(3, depth_multiplier=2, strides=2)(x)
    outs["trans"] = L.Conv1DTranspose(2, 3, strides=2, padding="same")(x)
    outs["max"] = L.MaxPooling1D(3, strides=2, padding="same")(x)
    outs["avg"] = L.AveragePooling1D(2)(x)
    outs["gmax"] = L.GlobalMaxPooling1D()(x)
    outs["gavg"] = L.GlobalAveragePooling1D(keepdims=True)(x)
    outs["pad"] = L.ZeroPadding1D((1, 2))(x)
    outs["crop"] = L.Cropping1D((1, 2))(x)
    outs["up"] = L.UpSampling1D(2)(x)
    outs["amax"] = L.AdaptiveMaxPooling1D(4)(x)
    outs["aavg"] = L.AdaptiveAveragePooling1D(2)(x)
    outs["conv3"] = L.Conv3D(2, 2, padding="same", strides=(1, 2, 2))(v)
    outs["trans3"] = L.Conv3DTranspose(2, 2, strides=2)(v)
    outs["max3"] = L.MaxPooling3D(2)(v)
    outs["avg3"] = L.AveragePooling3D((2, 2, 3), padding="same", strides=2)(v)
    outs["gavg3"] = L.GlobalAveragePooling3D()(v)
    outs["pad3"] = L.ZeroPadding3D(1)(v)
    outs["crop3"] = L.Cropping3D(((1, 1), (0, 1), (2, 0)))(v)
    outs["up3"] = L.UpSampling3D((1, 2, 2))(v)
    return {"x": x, "v": v}, outs


def pool_case():
    x = images()
    outs = {}
    outs["max"] = L.MaxPooling2D()(x)
    outs["max_same"] = L.MaxPooling2D(3, strides=2, padding="same")(x)
    outs["avg"] = L.AveragePooling2D((2, 3), strides=1)(x)
    outs["avg_same"] = L.AveragePooling2D(3, strides=2, padding="same")(x)
    outs["gmax"] = L.GlobalMaxPooling2D(keepdims=True)(x)
    outs["gavg"] = L.GlobalAveragePooling2D()(x)
    outs["amax"] = L.AdaptiveMaxPooling2D((3, 4))(x)
    outs["aavg"] = L.AdaptiveAveragePooling2D((3, 4))(x)
    outs["pad"] = L.ZeroPadding2D(((1, 0), (2, 3)))(x)
    outs["crop"] = L.Cropping2D(((1, 2), (0, 1)))(x)
    outs["up"] = L.UpSampling2D((2, 3))(x)
    outs["up_lin"] = L.UpSampling2D((2, 3), interpolation="bilinear")(x)
    outs["up_cub"] = L.UpSampling2D((2, 3), interpolation="bicubic")(x)
    outs["up_lan"] = L.UpSampling2D((2, 2), interpolation="lanczos3")(x)
    outs["resize"] = L.Resizing(5, 9)(x)
    outs["resize_near"] = L.Resizing(5, 9, interpolation="nearest")(x)
    outs["resize_cub"] = L.Resizing(10, 4, interpolation="bicubic", antialias=True)(x)
    outs["resize_lan"] = L.Resizing(3, 4, interpolation="lanczos5", antialias=True)(x)
    outs["resize_crop"] = L.Resizing(4, 8, crop_to_aspect_ratio=True)(x)
    outs["resize_pad"] = L.Resizing(4, 8, pad_to_aspect_ratio=True, fill_value=0.3)(x)
    outs["centre"] = L.CenterCrop(4, 3)(x)
    outs["centre_big"] = L.CenterCrop(9, 8)(x)
    outs["flip"] = L.RandomRotation(0.2)(L.RandomFlip()(x))
    outs["prelu"] = L.PReLU(shared_axes=[1, 2])(x)
    outs["softmax"] = L.Softmax(axis=[1, 2])(x)
    return {"images": x}, outs


def norm_case():
    x = images(4)
    outs = {}
    outs["bn"] = L.BatchNormalization()(x)
    outs["bn_axis"] = L.BatchNormalization(axis=1, center=False, epsilon=0.01)(x)
    outs["bn_scale"] = L.BatchNormalization(scale=False)(x)
    outs["ln"] = L.LayerNormalization()(x)
    outs["ln_axes"] = L.LayerNormalization(axis=[2, 3], epsilon=0.01)(x)
    outs["ln_plain"] = L.LayerNormalization(center=False, scale=False, axis=1)(x)
    outs["ln_rms"] = L.LayerNormalization(rms_scaling=True)(x)
    outs["gn"] = L.GroupNormalization(groups=2)(x)
    outs["gn_axis"] = L.GroupNormalization(groups=-1, axis=1, center=False)(x)
    outs["unit"] = L.UnitNormalization(axis=[1, 3])(x)
    outs["rms"] = L.RMSNormalization(epsilon=1e-3)(x)
    outs["spectral"] = L.SpectralNormalization(L.Conv2D(2, 3))(x)
    return {"images": x}, outs


def rnn_case():
    x = keras.Input((5, 4), name="x")
    s = keras.Input((3,), name="s")
    outs = {}
    outs["simple"] = L.SimpleRNN(3)(x)
    outs["simple_seq"] = L.SimpleRNN(3, return_sequences=True, go_backwards=True, activation="relu")(x)
    outs["gru"] = L.GRU(3)(x)
    outs["gru_before"] = L.GRU(3, reset_after=False, return_sequences=True, recurrent_activation="hard_sigmoid")(x)
    outs["gru_nobias"] = L.GRU(3, use_bias=False, activation="relu")(x)
    outs["lstm"] = L.LSTM(3)(x)
    outs["lstm_back"] = L.LSTM(3, go_backwards=True, return_sequences=True, unroll=True)(x)
    a, h, c = L.LSTM(3, return_state=True, return_sequences=True)(x)
    outs["lstm_h"], outs["lstm_c"] = h, c
    outs["lstm_init"] = L.LSTM(3)(x, initial_state=[h, c])
    outs["gru_init"] = L.GRU(3, return_sequences=True)(x, initial_state=s)
    outs["gelu"] = L.GRU(3, activation="gelu", return_sequences=True)(x)
    outs["lstm_swish"] = L.LSTM(3, activation="swish", go_backwards=True)(x)
    return {"x": x, "s": s}, outs


def rnn_wrap_case():
    x = keras.Input((5, 4), name="x")
    outs = {}
    outs["cells"] = L.RNN([L.GRUCell(3), L.LSTMCell(2), L.SimpleRNNCell(4)], return_sequences=True)(x)
    outs["cell"] = L.RNN(L.LSTMCell(2))(x)
    outs["bi"] = L.Bidirectional(L.LSTM(3, return_sequences=True))(x)
    outs["bi_sum"] = L.Bidirectional(L.GRU(3), merge_mode="sum")(x)
    outs["bi_ave"] = L.Bidirectional(L.SimpleRNN(3, return_sequences=True), merge_mode="ave")(x)
    outs["bi_mul"] = L.Bidirectional(L.GRU(2, activation="gelu", return_sequences=True), merge_mode="mul")(x)
    outs["bi_none"] = L.Bidirectional(L.GRU(2), merge_mode=None)(x)[1]
    outs["bi_two"] = L.Bidirectional(L.LSTM(2), backward_layer=L.LSTM(2, go_backwards=True, activation="relu"))(x)
    outs["bi_state"] = L.Bidirectional(L.LSTM(2, return_state=True))(x)[3]
    outs["td"] = L.TimeDistributed(L.Dense(2, activation="relu"))(x)
    outs["td_conv"] = L.TimeDistributed(L.Conv1D(2, 2))(L.Reshape((5, 2, 2))(x))
    return {"x": x}, outs


def conv_lstm_case():
    v = keras.Input((4, 5, 4, 2), name="v")
    x = keras.Input((3, 6, 2), name="x")
    outs = {}
    outs["two"] = L.ConvLSTM2D(2, 3, padding="same", return_sequences=True)(v)
    outs["valid"] = L.ConvLSTM2D(2, (2, 3), strides=2, go_backwards=True)(v)
    outs["one"] = L.ConvLSTM1D(2, 3)(x)
    return {"v": v, "x": x}, outs


def mask_case():
    t = keras.Input((6,), name="tokens", dtype="int32")
    x = keras.Input((6, 3), name="x")
    e = L.Embedding(10, 3, mask_zero=True)(t)
    m = L.Masking(0.5)(x)
    outs = {"embedded": e, "masked": m}
    outs["lstm"] = L.LSTM(3)(e)
    outs["gru_seq"] = L.GRU(3, return_sequences=True)(m)
    outs["gru_back"] = L.GRU(3, return_sequences=True, go_backwards=True)(m)
    outs["rnn_zero"] = L.SimpleRNN(3, return_sequences=True, zero_output_for_mask=True)(e)
    outs["bi"] = L.Bidirectional(L.LSTM(2, return_sequences=True))(m)
    outs["bi_last"] = L.Bidirectional(L.GRU(2))(e)
    outs["chain"] = L.LSTM(2)(L.Dropout(0.1)(L.Dense(3)(e)))
    outs["pool"] = L.GlobalAveragePooling1D()(e)
    outs["add"] = L.GRU(2)(L.Add()([e, m]))
    outs["maximum"] = L.Maximum()([e, m])
    outs["concat"] = L.GRU(2)(L.Concatenate()([e, m]))
    outs["attention"] = L.Attention(use_scale=True)([e, m])
    outs["mha"] = L.MultiHeadAttention(2, 3)(e, m)
    outs["mha_drop"] = L.MultiHeadAttention(2, 3, dropout=0.1)(e, e, use_causal_mask=True)
    outs["td"] = L.GRU(2)(L.TimeDistributed(L.Dense(2))(e))
    return {"tokens": t, "x": x}, outs


def attention_case():
    q = keras.Input((4, 6), name="q")
    v = keras.Input((5, 6), name="v")
    p = keras.Input((3, 4, 6), name="p")
    outs = {}
    outs["dot"] = L.Attention()([q, v])
    outs["scale"] = L.Attention(use_scale=True, score_mode="concat")([q, v, v])
    outs["causal"] = L.Attention()([q, v], use_causal_mask=True)
    outs["additive"] = L.AdditiveAttention()([q, v])
    outs["mha"] = L.MultiHeadAttention(2, 3, value_dim=4)(q, v)
    outs["mha_key"] = L.MultiHeadAttention(2, 3, output_shape=5, use_bias=False)(q, v, key=v)
    a, s = L.MultiHeadAttention(2, 3)(q, v, return_attention_scores=True, use_causal_mask=True)
    outs["mha_a"], outs["mha_s"] = a, s
    outs["mha_axes"] = L.MultiHeadAttention(2, 2, attention_axes=(2,))(p, p)
    outs["mha_two"] = L.MultiHeadAttention(1, 2, attention_axes=(1, 2))(p, p)
    outs["gqa"] = L.GroupQueryAttention(4, 4, 2)(q, v)
    outs["einsum"] = L.EinsumDense("abc,cde->abde", output_shape=(None, 2, 3), bias_axes="de", activation="relu")(q)
    outs["einsum_dots"] = L.EinsumDense("...x,xy->...y", output_shape=4, bias_axes="y")(p)
    return {"q": q, "v": v, "p": p}, outs


def merge_case():
    a = keras.Input((4, 3), name="a")
    b = keras.Input((4, 3), name="b")
    c = keras.Input((3,), name="c")
    outs = {}
    for name in ["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"]:
        outs[name.lower()] = getattr(L, name)()([a, b])
    outs["add3"] = L.Add()([a, b, c])
    outs["concat"] = L.Concatenate(axis=1)([a, b])
    outs["dot"] = L.Dot(axes=(2, 2))([a, b])
    outs["dot_n"] = L.Dot(axes=1, normalize=True)([a, b])
    outs["dot_v"] = L.Dot(axes=(2, 1))([a, c])
    outs["dot_vv"] = L.Dot(axes=1, normalize=True)([c, c])
    outs["reshape"] = L.Reshape((2, -1))(a)
    outs["permute"] = L.Permute((2, 1))(a)
    outs["repeat"] = L.RepeatVector(3)(c)
    outs["flat"] = L.Flatten()(a)
    return {"a": a, "b": b, "c": c}, outs


def ops_case():
    a = keras.Input((4, 3), name="a")
    b = keras.Input((3,), name="b")
    outs = {}
    outs["scale"] = a * 2.0 + 1
    outs["rev"] = 1.0 - a / 3.0
    outs["pow"] = (a * a) ** 1.5
    outs["mod"] = a % 0.7
    outs["floor"] = a // 0.7
    outs["item"] = a[:, 1:3, ::2]
    outs["index"] = a[:, -1]
    outs["new"] = a[..., None, 0:1]
    outs["mean"] = K.mean(a, axis=-1, keepdims=True)
    outs["std"] = K.std(a, axis=1)
    outs["max"] = K.max(K.abs(a), axis=[1, 2])
    outs["where"] = K.where(a > 0.1, a, b[:, None, :])
    outs["expand"] = K.expand_dims(b, 1) + K.transpose(a, (0, 1, 2))
    outs["matmul"] = K.matmul(a, K.swapaxes(a, 1, 2))
    outs["einsum"] = K.einsum("bij,bj->bi", a, b)
    outs["softmax"] = K.softmax(a, axis=1)
    outs["clip"] = K.clip(a, -0.5, 0.5)
    outs["stack"] = K.stack([b, b * 2], axis=1)
    outs["split"] = K.split(a, 2, axis=1)[1]
    outs["reshape"] = K.reshape(a, (-1, 12))
    outs["cast"] = K.cast(K.cast(a > 0, "int32"), "float32")
    outs["sqrt"] = K.sqrt(K.exp(a)) + K.rsqrt(K.exp(a)) + K.log1p(K.square(a))
    outs["pad"] = K.pad(a, ((0, 0), (1, 2), (0, 1)))
    outs["argmax"] = K.cast(K.argmax(a, axis=-1), "float32")
    outs["take"] = K.take(a, [2, 0], axis=1)
    outs["repeat"] = K.repeat(a, 2, axis=1)
    outs["flip"] = K.flip(a, axis=1)
    outs["concat"] = K.concatenate([a, a * 2], axis=-1)
    outs["gelu"] = K.gelu(a) + K.leaky_relu(a, 0.05) + K.silu(a) + K.elu(a, 0.5)
    outs["cumsum"] = K.cumsum(a, axis=1)
    return {"a": a, "b": b}, outs


def preprocess_case():
    x = keras.Input((3,), name="x")
    i = keras.Input((4,), name="i", dtype="int64")
    one = keras.Input((1,), name="one", dtype="int64")
    outs = {}
    outs["rescale"] = L.Rescaling(0.5, offset=-1.0)(x)
    outs["rescale_list"] = L.Rescaling([0.5, 2.0, 3.0], offset=[1.0, 0.0, -1.0])(x)
    n = L.Normalization()
    n.adapt(rng.normal(1, 2, (20, 3)))
    outs["norm"] = n(x)
    outs["norm_given"] = L.Normalization(axis=None, mean=0.5, variance=4.0)(x)
    outs["norm_invert"] = L.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 2.0, 4.0], invert=True)(x)
    outs["bins"] = L.Discretization(bin_boundaries=[-0.5, 0.0, 0.5])(x)
    outs["bins_hot"] = L.Discretization(bin_boundaries=[-0.5, 0.0, 0.5], output_mode="one_hot")(x)
    outs["bins_multi"] = L.Discretization(bin_boundaries=[-0.5, 0.0, 0.5], output_mode="multi_hot")(x)
    outs["cat_hot"] = L.CategoryEncoding(6, output_mode="one_hot")(one)
    outs["cat_multi"] = L.CategoryEncoding(6)(i)
    outs["cat_count"] = L.CategoryEncoding(6, output_mode="count")(i)
    outs["hash"] = L.Hashing(7)(i)
    outs["hash_mask"] = L.Hashing(7, mask_value=0, salt=[3, 4])(i)
    outs["hash_hot"] = L.Hashing(5, output_mode="one_hot")(one)
    outs["lookup"] = L.IntegerLookup(vocabulary=[1, 3, 5])(i)
    outs["lookup_oov"] = L.IntegerLookup(vocabulary=[1, 3], num_oov_indices=3, mask_token=0)(i)
    outs["lookup_multi"] = L.IntegerLookup(vocabulary=[1, 3, 5], output_mode="multi_hot")(i)
    outs["lookup_inv"] = L.IntegerLookup(vocabulary=[10, 30, 50], invert=True)(i)
    return {"x": x, "i": i, "one": one}, outs


def text_case():
    w = keras.Input((3,), name="words", dtype="string")
    s = keras.Input((1,), name="text", dtype="string")
    outs = {}
    outs["look"] = L.StringLookup(vocabulary=["cat", "dog"])(w)
    outs["look_oov"] = L.StringLookup(vocabulary=["cat", "dog"], num_oov_indices=3, mask_token="")(w)
    outs["look_count"] = L.StringLookup(vocabulary=["cat", "dog"], output_mode="count")(w)
    outs["look_hot"] = L.StringLookup(vocabulary=["cat", "dog"], output_mode="one_hot", num_oov_indices=1)(w)
    outs["tf_idf"] = L.StringLookup(vocabulary=["cat", "dog"], output_mode="tf_idf", idf_weights=[0.4, 1.7])(w)
    adapted = L.StringLookup()
    adapted.adapt(["b", "a", "a", "cat"])
    outs["adapted"] = adapted(w)
    outs["hash"] = L.Hashing(11)(w)
    tv = L.TextVectorization(output_sequence_length=5)
    tv.adapt(["the cat sat", "the dog, the cat!"])
    outs["text"] = tv(s)
    outs["grams"] = L.TextVectorization(ngrams=2, vocabulary=["the", "the cat", "dog"], output_mode="multi_hot")(s)
    outs["count"] = L.TextVectorization(vocabulary=["the", "cat"], output_mode="count", standardize="lower")(s)
    return {"words": w, "text": s}, outs


def nest_case():
    a = keras.Input((4,), name="a")
    b = keras.Input((4,), name="b")
    frozen = L.Dense(3, name="frozen")
    inner_in = keras.Input((4,))
    inner = keras.Model(inner_in, L.BatchNormalization(name="inner_bn")(frozen(inner_in)), name="inner")
    frozen.trainable = False
    seq = keras.Sequential([keras.Input((4,)), L.Dense(3, activation="relu"), L.Dense(3)], name="seq")
    shared = L.Dense(4, name="shared")
    x, y = inner(shared(a)), inner(shared(b))
    third = keras.Input((4,))
    own = keras.Model(third, {"u": L.Dense(3)(third), "t": L.Dense(2)(third)}, name="own")
    deep = keras.Sequential([keras.Input((4,)), keras.Sequential([keras.Input((4,)), L.Dense(3), L.BatchNormalization()]), L.Dense(2)], name="deep")
    outs = {"x": x, "y": y, "seq": seq(a), "sum": L.Add()([x, y, seq(shared(b))]), "deep": deep(b), "u": own(a)["u"], "t": own(a)["t"]}
    return {"a": a, "b": b}, outs


def double_case():
    x = keras.Input((3,), name="x", dtype="float64")
    h = L.Dense(2, dtype="float64")(x)
    outs = {"double": L.BatchNormalization(dtype="float64")(h), "single": L.Dense(2)(h)}
    return {"x": x}, outs


CASES = {
    "dense": dense_case, "conv": conv_case, "conv_first": conv_first_case, "conv13": conv13_case, "pool": pool_case,
    "norm": norm_case, "rnn": rnn_case, "rnn_wrap": rnn_wrap_case, "conv_lstm": conv_lstm_case, "mask": mask_case,
    "attention": attention_case, "merge": merge_case, "ops": ops_case, "preprocess": preprocess_case, "text": text_case,
    "nest": nest_case, "double": double_case,
}
H5 = {"rnn", "rnn_wrap", "nest", "norm", "ops", "mask"}


def randomise(model):
    for w in model.weights:
        if w.dtype not in ("float32", "float64") or w.path.startswith("normalization"):
            continue
        value = rng.normal(0, 0.5, w.shape)
        if "variance" in w.path:
            value = np.abs(value) + 0.5
        w.assign(value)


def feed(inputs):
    words = np.array(["cat", "dog", "bird", "", "a", "b"])
    texts = np.array(["The cat, the dog!", "a CAT  sat", "nothing", "the the the cat dog bird bird"])
    data = {}
    # Pictures are large enough alone.
    n_rows = 1 if "images" in inputs or "v" in inputs else 3
    for name, t in inputs.items():
        shape = (n_rows,) + tuple(t.shape[1:])
        if t.dtype == "string":
            data[name] = rng.choice(texts if name == "text" else words, shape).astype(object)
        elif t.dtype.startswith("int"):
            data[name] = rng.integers(0, 6, shape).astype(t.dtype)
        else:
            data[name] = rng.normal(0, 1, shape).astype(t.dtype)
        if name == "tokens":
            data[name] = np.array([[1, 2, 3, 0, 0, 0], [0, 4, 0, 5, 9, 0], [0, 0, 0, 0, 0, 0]], dtype=t.dtype)
        if name == "x" and "tokens" in inputs:
            data[name][0, 2:4] = 0.5
            data[name][1, :] = 0.5
    return data


def encode(a):
    a = np.asarray(a)
    values = [x.decode() if isinstance(x, bytes) else x for x in a.ravel().tolist()]
    if a.dtype.kind == "f":
        values = [float(f"{x:.6g}") if np.isfinite(x) else None for x in values]
    name = "string" if a.dtype.kind in "OSU" else a.dtype.name
    return {"dtype": name, "shape": list(a.shape), "values": values}


def tensors(data):
    import tensorflow as tf

    return {k: tf.constant(v) if v.dtype == object else v for k, v in data.items()}


def save(model, data, folder, name, h5=False):
    answers = model(tensors(data), training=False)
    text = {"inputs": {k: encode(v) for k, v in data.items()}, "outputs": {k: encode(v) for k, v in answers.items()}}
    path = os.path.join(folder, name)
    with open(path + ".json", "w") as f:
        json.dump(text, f, separators=(",", ":"))
    model.save(path + ".keras")
    # The same file packed, which is much smaller.
    with zipfile.ZipFile(path + ".keras") as old:
        members = [(m, old.read(m)) for m in old.namelist()]
    with zipfile.ZipFile(path + ".keras", "w", zipfile.ZIP_DEFLATED) as new:
        for member, content in members:
            if member == "config.json":
                content = json.dumps(json.loads(content), separators=(",", ":")).encode()
            new.writestr(member, content)
    try:
        again = keras.models.load_model(path + ".keras")(tensors(data), training=False)
        for key, value in again.items():
            if encode(value) != text["outputs"][key]:
                print(name, key, "is another after loading")
    except Exception as error:
        print(name, "is not loaded by Keras:", str(error)[:300])
    if h5:
        model.save(path + ".h5")
        if h5 == "packed":
            with zipfile.ZipFile(path + ".h5.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
                packed.write(path + ".h5", "model.h5")
            os.remove(path + ".h5")


def main():
    apart = sys.argv[2] if len(sys.argv) > 2 and sys.argv[1] == "--apart" else None
    only = sys.argv[3:] if apart else []
    here = os.path.dirname(os.path.abspath(__file__))
    for name, case in CASES.items():
        if only and name not in only:
            continue
        keras.utils.set_random_seed(1)
        inputs, outs = case()
        model = keras.Model(inputs, outs)
        randomise(model)
        data = feed(inputs)
        if not apart:
            save(model, data, here, name, name in H5 and "packed")
            continue
        for out, tensor in outs.items():
            part = keras.Model(inputs, {out: tensor})
            try:
                save(part, data, apart, f"{name}__{out}", True)
            except Exception as error:
                print(name, out, type(error).__name__, str(error)[:200])


main()
