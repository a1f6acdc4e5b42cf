//! Every layer that can be imported: what variables it has, and what it computes.

mod attention;
mod cells;
mod conv;
mod core;
mod image;
mod lookup;
mod merge;
mod norm;
mod operation;
mod pool;
mod preprocess;
mod recurrent;
mod reshape;

use salver_graph::{Error, ValueId};
use salver_tensor::DType;

use crate::architecture::{Keras, Layer, inner_layer, layer_from, snake_case};
use crate::emit::Emit;
use crate::network::{self, Inputs, Value};
use crate::weights::{Slots, Weights, network_slots};

/// The error at its layer.
pub(crate) fn at(layer: &Layer, error: Error) -> Error {
    error.at(format!("layer '{}' ({})", layer.name, layer.class))
}

/// Whether it is an operation of Keras 3 and no layer: it owns nothing, and Keras does not count it.
pub(crate) fn is_operation(keras: Keras, layer: &Layer) -> bool {
    if layer.module.is_empty() && keras == Keras::Three {
        // In .h5 files Keras 3 leaves the module out, and some operations are called as layers are. Layers say whether
        // they are trained, or have their element type as an object.
        let plain = matches!(layer.class.as_str(), "InputLayer" | "Discretization" | "HashedCrossing")
            || layer.class.starts_with("SpatialDropout");
        let typed = layer.config.json("dtype").is_some_and(serde_json::Value::is_object);
        return !plain && !typed && layer.network.is_none() && !layer.config.has("trainable");
    }
    layer.module.starts_with("keras.src.ops") || layer.module.starts_with("keras.ops")
}

/// Whether the class is code of the model's author.
fn is_custom(layer: &Layer) -> bool {
    let known = ["keras", "tf_keras", "tensorflow.keras", "tensorflow.python.keras", "builtins"];
    !layer.module.is_empty() && !known.iter().any(|module| layer.module.starts_with(module))
}

fn custom(layer: &Layer) -> Error {
    Error::unsupported(format!(
        "the layer '{}' is not one of Keras' own, or not known here; what it computes is not in the file: export the \
         model as a SavedModel (model.export)",
        layer.class
    ))
}

/// The variables of a layer.
pub(crate) fn slots(keras: Keras, layer: &Layer) -> Result<Slots, Error> {
    if let Some(network) = &layer.network {
        return network_slots(keras, network);
    }
    let c = &layer.config;
    let new = || Slots::of(layer);
    let bias = |names: &[&'static str]| -> Result<Slots, Error> {
        Ok(new().with(names).with_if(c.flag("use_bias", true)?, "bias"))
    };
    Ok(match layer.class.as_str() {
        "Dense" | "Conv1D" | "Conv2D" | "Conv3D" | "Conv1DTranspose" | "Conv2DTranspose"
        | "Conv3DTranspose" | "DepthwiseConv1D" | "DepthwiseConv2D" => bias(&["kernel"])?,
        "SeparableConv1D" | "SeparableConv2D" => bias(&["depthwise_kernel", "pointwise_kernel"])?,
        "Embedding" => new().with(&["embeddings"]),
        "ReversibleEmbedding" => {
            new().with(&["embeddings"]).with_if(!c.flag("tie_weights", true)?, "reverse_embeddings")
        }
        "LayerScale" => new().with(&["gamma"]),
        "EinsumDense" => new().with(&["kernel"]).with_if(c.has("bias_axes"), "bias"),
        "BatchNormalization" => new()
            .with_if(c.flag("scale", true)?, "gamma")
            .with_if(c.flag("center", true)?, "beta")
            .fixed(&["moving_mean", "moving_variance"]),
        "LayerNormalization" => {
            let rms = c.flag("rms_scaling", false)?;
            new()
                .with_if(c.flag("scale", true)? || rms, "gamma")
                .with_if(c.flag("center", true)? && !rms, "beta")
        }
        "GroupNormalization" => {
            new().with_if(c.flag("scale", true)?, "gamma").with_if(c.flag("center", true)?, "beta")
        }
        "RMSNormalization" => new().with(&["scale"]),
        "PReLU" => new().with(&["alpha"]),
        "SimpleRNN" | "GRU" | "LSTM" | "ConvLSTM1D" | "ConvLSTM2D" | "ConvLSTM3D" => {
            new().child("cell", &["cell"], bias(&["kernel", "recurrent_kernel"])?)
        }
        "SimpleRNNCell" | "GRUCell" | "LSTMCell" => bias(&["kernel", "recurrent_kernel"])?,
        "RNN" => new().child("cell", &["cell"], slots(keras, &inner_layer(keras, c, "cell")?)?),
        "StackedRNNCells" => cells::stacked_slots(keras, layer)?,
        "Bidirectional" => {
            let [forward, backward] = recurrent::directions(keras, layer)?;
            new().child("forward_layer", &["forward_layer"], slots(keras, &forward)?).child(
                "backward_layer",
                &["backward_layer"],
                slots(keras, &backward)?,
            )
        }
        "TimeDistributed" => {
            new().child("layer", &["layer"], slots(keras, &inner_layer(keras, c, "layer")?)?)
        }
        "SpectralNormalization" => new().fixed(&["vector_u"]).child(
            "layer",
            &["layer"],
            slots(keras, &inner_layer(keras, c, "layer")?)?,
        ),
        "Attention" | "AdditiveAttention" => new()
            .with_if(c.flag("use_scale", layer.class == "AdditiveAttention")?, "scale")
            .with_if(c.text_or("score_mode", "dot")? == "concat", "concat_score_weight"),
        "MultiHeadAttention" | "GroupQueryAttention" | "GroupedQueryAttention" => attention::slots(layer)?,
        "Normalization" if !c.has("mean") => new().fixed(&["mean", "variance", "count"]),
        "StringLookup" | "IntegerLookup" | "TextVectorization" => lookup::slots(layer)?,
        _ => new(),
    })
}

/// What happens to the mask of what goes in, for layers that do not make their own.
fn passes_mask(class: &str) -> bool {
    matches!(
        class,
        "LayerNormalization"
            | "GroupNormalization"
            | "BatchNormalization"
            | "UnitNormalization"
            | "LeakyReLU"
            | "ReLU"
            | "PReLU"
            | "ELU"
            | "ThresholdedReLU"
            | "Softmax"
            | "Activation"
            | "Rescaling"
            | "Normalization"
            | "AlphaDropout"
            | "GaussianDropout"
            | "GaussianNoise"
            | "ActivityRegularization"
            | "Dropout"
            | "SpatialDropout1D"
            | "SpatialDropout2D"
            | "SpatialDropout3D"
            | "TimeDistributed"
            | "Dense"
            | "Identity"
            | "MultiHeadAttention"
            | "GroupQueryAttention"
            | "GroupedQueryAttention"
    )
}

/// Calls a layer; gives what it gives, with masks. A layer that makes too much of its input is refused.
pub(crate) fn call(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<Vec<Value>, Error> {
    let values = unbounded_call(cx, layer, weights, inputs)?;
    let first = inputs.values().first().and_then(|value| cx.b.dims(value.id));
    let batch = first.and_then(|dims| dims.first()).and_then(salver_graph::Dim::fixed);
    values.iter().try_for_each(|value| cx.bounded(value.id, batch))?;
    Ok(values)
}

fn unbounded_call(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<Vec<Value>, Error> {
    if let Some(network) = &layer.network {
        let results = network::call(cx, network, weights, inputs)?;
        return Ok(results.into_iter().map(|(_, value)| value).collect());
    }
    if is_operation(cx.keras, layer) {
        return operation::call(cx, layer, inputs);
    }
    if is_custom(layer) {
        return Err(custom(layer));
    }
    let inputs = autocast(cx, layer, inputs)?;
    let mut values = own_call(cx, layer, weights, &inputs)?;
    if passes_mask(&layer.class) {
        let mask = inputs.mask();
        if let Some(first) = values.first_mut() {
            first.mask = first.mask.or(mask);
        }
    }
    Ok(values)
}

/// A layer computes floats in its own element type.
fn autocast(cx: &mut Emit, layer: &Layer, inputs: &Inputs) -> Result<Inputs, Error> {
    use crate::network::Given;
    fn one(cx: &mut Emit, dtype: DType, given: &mut Given) -> Result<(), Error> {
        match given {
            Given::Tensor(value) => {
                let is_float =
                    matches!(cx.dtype(value.id), DType::F16 | DType::BF16 | DType::F32 | DType::F64);
                if is_float {
                    value.id = cx.cast(value.id, dtype)?;
                }
            }
            Given::List(list) => list.iter_mut().try_for_each(|item| one(cx, dtype, item))?,
            Given::Map(map) => map.iter_mut().try_for_each(|(_, item)| one(cx, dtype, item))?,
            Given::Slice(_) | Given::Json(_) => {}
        }
        Ok(())
    }
    let mut inputs = inputs.clone();
    if layer.config.flag("autocast", true)?
        && matches!(layer.policy.declared, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
    {
        let dtype = layer.policy.compute;
        inputs.args.iter_mut().try_for_each(|given| one(cx, dtype, given))?;
        inputs.kwargs.iter_mut().try_for_each(|(_, given)| one(cx, dtype, given))?;
    }
    Ok(inputs)
}

fn own_call(cx: &mut Emit, layer: &Layer, weights: &Weights, inputs: &Inputs) -> Result<Vec<Value>, Error> {
    let class = layer.class.as_str();
    let one = |result: Result<ValueId, Error>| result.map(|id| vec![Value::from(id)]);
    match class {
        "InputLayer" => Err(Error::invalid("an input layer is called")),
        "Dropout"
        | "StochasticDepth"
        | "RandomCrop"
        | "SpatialDropout1D"
        | "SpatialDropout2D"
        | "SpatialDropout3D"
        | "GaussianNoise"
        | "GaussianDropout"
        | "AlphaDropout"
        | "ActivityRegularization"
        | "Identity"
        | "RandomFlip"
        | "RandomRotation"
        | "RandomZoom"
        | "RandomTranslation"
        | "RandomContrast"
        | "RandomBrightness"
        | "RandomHeight"
        | "RandomWidth"
        | "RandomShear"
        | "RandomHue"
        | "RandomSaturation"
        | "RandomGrayscale"
        | "RandomColorJitter"
        | "RandomColorDegeneration"
        | "RandomErasing"
        | "RandomElasticTransform"
        | "RandomGaussianBlur"
        | "RandomInvert"
        | "RandomPerspective"
        | "RandomPosterization"
        | "RandomSharpness"
        | "AugMix"
        | "CutMix"
        | "MixUp"
        | "RandAugment" => identity(cx, layer, inputs),
        "Dense" => one(core::dense(cx, layer, weights, inputs)),
        "EinsumDense" => one(core::einsum_dense(cx, layer, weights, inputs)),
        "Embedding" => core::embedding(cx, layer, weights, inputs),
        "ReversibleEmbedding" => core::reversible_embedding(cx, layer, weights, inputs),
        "LayerScale" | "CustomScaleLayer" => one(core::scaled(cx, layer, weights, inputs)),
        "Masking" => core::masking(cx, layer, inputs),
        "Activation" => one(core::activation(cx, layer, inputs)),
        "ReLU" | "LeakyReLU" | "PReLU" | "ELU" | "ThresholdedReLU" | "Softmax" => {
            one(core::advanced_activation(cx, layer, weights, inputs))
        }
        "Conv1D" | "Conv2D" | "Conv3D" => one(conv::convolution(cx, layer, weights, inputs)),
        "Conv1DTranspose" | "Conv2DTranspose" | "Conv3DTranspose" => {
            one(conv::transposed(cx, layer, weights, inputs))
        }
        "DepthwiseConv1D" | "DepthwiseConv2D" => one(conv::depthwise(cx, layer, weights, inputs)),
        "SeparableConv1D" | "SeparableConv2D" => one(conv::separable(cx, layer, weights, inputs)),
        "MaxPooling1D" | "MaxPooling2D" | "MaxPooling3D" | "AveragePooling1D" | "AveragePooling2D"
        | "AveragePooling3D" => one(pool::windowed(cx, layer, inputs)),
        "GlobalMaxPooling1D"
        | "GlobalMaxPooling2D"
        | "GlobalMaxPooling3D"
        | "GlobalAveragePooling1D"
        | "GlobalAveragePooling2D"
        | "GlobalAveragePooling3D" => one(pool::global(cx, layer, inputs)),
        "AdaptiveMaxPooling1D"
        | "AdaptiveMaxPooling2D"
        | "AdaptiveMaxPooling3D"
        | "AdaptiveAveragePooling1D"
        | "AdaptiveAveragePooling2D"
        | "AdaptiveAveragePooling3D" => one(pool::adaptive(cx, layer, inputs)),
        "BatchNormalization" => one(norm::batch(cx, layer, weights, inputs)),
        "LayerNormalization" => one(norm::layer(cx, layer, weights, inputs)),
        "GroupNormalization" => one(norm::group(cx, layer, weights, inputs)),
        "UnitNormalization" => one(norm::unit(cx, layer, inputs)),
        "RMSNormalization" => one(norm::rms(cx, layer, weights, inputs)),
        "SpectralNormalization" => wrapped(cx, layer, weights, inputs),
        "SimpleRNN" | "GRU" | "LSTM" | "RNN" | "ConvLSTM1D" | "ConvLSTM2D" | "ConvLSTM3D" => {
            recurrent::call(cx, layer, weights, inputs)
        }
        "Bidirectional" => recurrent::bidirectional(cx, layer, weights, inputs),
        "TimeDistributed" => recurrent::time_distributed(cx, layer, weights, inputs),
        "Attention" | "AdditiveAttention" => attention::simple(cx, layer, weights, inputs),
        "MultiHeadAttention" | "GroupQueryAttention" | "GroupedQueryAttention" => {
            attention::multi_head(cx, layer, weights, inputs)
        }
        "Add" | "Subtract" | "Multiply" | "Average" | "Maximum" | "Minimum" => {
            merge::elementwise(cx, layer, inputs)
        }
        "Concatenate" => merge::concatenate(cx, layer, inputs),
        "Dot" => one(merge::dot(cx, layer, inputs)),
        "Flatten" | "Reshape" | "Permute" | "RepeatVector" => one(reshape::shape(cx, layer, inputs)),
        "ZeroPadding1D" | "ZeroPadding2D" | "ZeroPadding3D" => one(reshape::padding(cx, layer, inputs)),
        "Cropping1D" | "Cropping2D" | "Cropping3D" => one(reshape::cropping(cx, layer, inputs)),
        "UpSampling1D" | "UpSampling2D" | "UpSampling3D" => one(reshape::up_sampling(cx, layer, inputs)),
        "Rescaling" | "Normalization" | "Discretization" | "CategoryEncoding" | "Hashing"
        | "HashedCrossing" => one(preprocess::call(cx, layer, weights, inputs)),
        "Resizing" | "CenterCrop" => one(image::call(cx, layer, inputs)),
        "StringLookup" | "IntegerLookup" | "TextVectorization" => {
            one(lookup::call(cx, layer, weights, inputs))
        }
        "TFOpLambda" | "SlicingOpLambda" | "TensorFlowOpLayer" => operation::tensorflow(cx, layer, inputs),
        "Lambda" => Err(Error::unsupported(
            "a Lambda layer holds Python code, which is not run here: export the model as a SavedModel (model.export)",
        )),
        _ => Err(custom(layer)),
    }
}

fn identity(cx: &mut Emit, layer: &Layer, inputs: &Inputs) -> Result<Vec<Value>, Error> {
    let value = inputs.one()?;
    // Layers for images give floats.
    let image = layer.class.starts_with("Random");
    let id = if image && layer.policy.declared != DType::U8 {
        cx.float(value.id, layer.policy.compute)?
    } else {
        value.id
    };
    Ok(vec![Value::from(id)])
}

/// A wrapper that does nothing when a model is used.
fn wrapped(cx: &mut Emit, layer: &Layer, weights: &Weights, inputs: &Inputs) -> Result<Vec<Value>, Error> {
    let inner = inner_layer(cx.keras, &layer.config, "layer")?;
    let values = call(cx, &inner, weights.child("layer")?, inputs)?;
    Ok(values.into_iter().map(|value| Value::from(value.id)).collect())
}

/// The key of a layer in a list inside another: its class with a number.
fn numbered(class: &str, counts: &mut std::collections::HashMap<String, usize>) -> String {
    let name = snake_case(class);
    let count = counts.entry(name.clone()).or_insert(0);
    let key = if *count == 0 { name } else { format!("{name}_{count}") };
    *count += 1;
    key
}

/// A layer of a list in a configuration.
fn listed(keras: Keras, value: &serde_json::Value) -> Result<Layer, Error> {
    layer_from(keras, value)
}
