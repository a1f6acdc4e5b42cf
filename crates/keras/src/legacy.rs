//! Names and options of Keras 1 and of older Keras 2, in today's words.

use salver_graph::Error;
use serde_json::{Value, json};

use crate::architecture::Keras;
use crate::config::Config;

/// Rewrites class and configuration of a layer to what Keras 3 would write, where an older Keras said it otherwise.
pub(crate) fn modernise(keras: Keras, class: &mut String, config: &mut Config) -> Result<(), Error> {
    let renamed = match class.as_str() {
        "BatchNormalizationV1" | "BatchNormalizationV2" | "SyncBatchNormalization" => "BatchNormalization",
        "CuDNNGRU" | "GRUV1" | "GRUV2" => "GRU",
        "CuDNNLSTM" | "LSTMV1" | "LSTMV2" => "LSTM",
        "Convolution1D" | "Conv1d" => "Conv1D",
        "Convolution2D" | "Conv2d" => "Conv2D",
        "Convolution3D" => "Conv3D",
        "SeparableConvolution1D" => "SeparableConv1D",
        "SeparableConvolution2D" => "SeparableConv2D",
        "DepthwiseConvolution2D" => "DepthwiseConv2D",
        "Convolution1DTranspose" => "Conv1DTranspose",
        "Convolution2DTranspose" | "Deconvolution2D" | "Deconv2D" => "Conv2DTranspose",
        "Convolution3DTranspose" | "Deconvolution3D" | "Deconv3D" => "Conv3DTranspose",
        "AvgPool1D" => "AveragePooling1D",
        "AvgPool2D" => "AveragePooling2D",
        "AvgPool3D" => "AveragePooling3D",
        "MaxPool1D" => "MaxPooling1D",
        "MaxPool2D" => "MaxPooling2D",
        "MaxPool3D" => "MaxPooling3D",
        "GlobalAvgPool1D" => "GlobalAveragePooling1D",
        "GlobalAvgPool2D" => "GlobalAveragePooling2D",
        "GlobalAvgPool3D" => "GlobalAveragePooling3D",
        "GlobalMaxPool1D" => "GlobalMaxPooling1D",
        "GlobalMaxPool2D" => "GlobalMaxPooling2D",
        "GlobalMaxPool3D" => "GlobalMaxPooling3D",
        other => other,
    };
    let was_cudnn = class.starts_with("CuDNN");
    let was_deconvolution = class.starts_with("Deconv");
    if renamed != class {
        *class = renamed.to_owned();
    }
    if was_cudnn {
        config.set("activation", json!("tanh"));
        config.set("recurrent_activation", json!("sigmoid"));
        config.set("reset_after", json!(true));
        // The layout of cuDNN's biases differs from that of the layers that replaced it.
        config.set("__cudnn", json!(true));
    }
    if config.has("quantization_config") {
        return Err(Error::unsupported("quantised weights: save the model unquantised"));
    }
    match class.as_str() {
        "LeakyReLU" => config.rename("alpha", "negative_slope"),
        "GRU" | "GRUCell" if keras < Keras::Three && !config.has("reset_after") => {
            config.set("reset_after", json!(false));
        }
        _ => {}
    }
    if keras == Keras::One {
        keras_one(class, config, was_deconvolution)?;
    }
    Ok(())
}

fn keras_one(class: &mut String, config: &mut Config, was_deconvolution: bool) -> Result<(), Error> {
    config.rename("bias", "use_bias");
    config.rename("border_mode", "padding");
    config.rename("p", "rate");
    config.rename("sigma", "stddev");
    config.rename("inner_activation", "recurrent_activation");
    if let Some(ordering) = config.take("dim_ordering") {
        let first = ordering == json!("th");
        config.set("data_format", json!(if first { "channels_first" } else { "channels_last" }));
        config.set("__kernel_first", json!(first));
    }
    match class.as_str() {
        "Dense" | "SimpleRNN" | "GRU" | "LSTM" => config.rename("output_dim", "units"),
        "TimeDistributedDense" => {
            config.rename("output_dim", "units");
            *class = "Dense".to_owned();
        }
        "Conv1D" => {
            config.rename("nb_filter", "filters");
            config.rename("filter_length", "kernel_size");
            config.rename("subsample_length", "strides");
            config.set("__kernel_1d", json!(true));
        }
        "AtrousConvolution1D" => {
            config.rename("atrous_rate", "dilation_rate");
            config.rename("nb_filter", "filters");
            config.rename("filter_length", "kernel_size");
            config.rename("subsample_length", "strides");
            config.set("__kernel_1d", json!(true));
            *class = "Conv1D".to_owned();
        }
        "Conv2D" | "SeparableConv2D" | "Conv2DTranspose" | "AtrousConvolution2D" => {
            config.rename("nb_filter", "filters");
            config.rename("subsample", "strides");
            config.rename("atrous_rate", "dilation_rate");
            if let (Some(row), Some(col)) = (config.take("nb_row"), config.take("nb_col")) {
                config.set("kernel_size", Value::Array(vec![row, col]));
            }
            if class == "AtrousConvolution2D" {
                *class = "Conv2D".to_owned();
            }
        }
        "Conv3D" => {
            config.rename("nb_filter", "filters");
            config.rename("subsample", "strides");
            let sizes = ["kernel_dim1", "kernel_dim2", "kernel_dim3"].map(|key| config.take(key));
            if let [Some(a), Some(b), Some(c)] = sizes {
                config.set("kernel_size", Value::Array(vec![a, b, c]));
            }
        }
        "MaxPooling1D" | "AveragePooling1D" => {
            config.rename("pool_length", "pool_size");
            config.rename("stride", "strides");
        }
        "UpSampling1D" => config.rename("length", "size"),
        "Merge" => {
            let mode = config.take("mode");
            let mode = mode.as_ref().and_then(Value::as_str).unwrap_or_default();
            let name = match mode {
                "sum" => "Add",
                "mul" => "Multiply",
                "ave" => "Average",
                "max" => "Maximum",
                "concat" => "Concatenate",
                _ => {
                    return Err(Error::unsupported(format!("Merge of Keras 1 with mode '{mode}'")));
                }
            };
            if mode == "concat" {
                config.rename("concat_axis", "axis");
            }
            *class = name.to_owned();
        }
        "Highway" | "MaxoutDense" => return Err(Error::unsupported(format!("{class} of Keras 1"))),
        "BatchNormalization" => {
            let mode = config.int_or("mode", 0)?;
            if mode != 0 {
                return Err(Error::unsupported(format!("BatchNormalization of Keras 1 with mode {mode}")));
            }
        }
        _ => {}
    }
    if was_deconvolution {
        return Err(Error::unsupported("Deconvolution of Keras 1"));
    }
    Ok(())
}
