//! A graph on its way into OpenVINO: as an ONNX file in memory, read, compiled and looked at.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;

use prost::Message;
use salver_engine::{Error, ErrorKind, LoadOptions, Precision};
use salver_graph::onnx;
use salver_graph::onnx::proto::{GraphProto, ModelProto};
use salver_tensor::{Signature, TensorSpec};

use crate::element;
use crate::entry::Entry;
use crate::facts::Facts;
use crate::file::graph_error;
use crate::model::{OpenVinoModel, Ports, Shared};
use crate::runtime::Runtime;
use crate::said::Names;
use crate::steady;
use crate::support;
use crate::sys::{Compiled, Failure, ReadModel, Side};

/// The largest message that readers of ONNX take, with room for what is written around it.
const MAX_MESSAGE_BYTES: usize = (1 << 31) - (1 << 16);

/// Loads a graph with its signature. `max_dim` is the largest size that its open dimensions may have.
pub(crate) fn load(
    runtime: &'static Runtime,
    facts: &Facts<'_>,
    signature: Signature,
    max_dim: usize,
    options: &LoadOptions,
) -> Result<OpenVinoModel, Error> {
    let graph = facts.graph;
    let entry = Entry::new(graph, &signature, &support::conditions(facts)?, max_dim);
    let mut proto = onnx::model(graph, &onnx::Labels::default()).map_err(|error| graph_error(&error))?;
    let names = proto.graph.as_ref().map(Names::of).unwrap_or_default();
    proto.graph.iter_mut().for_each(turn_comparisons);
    let read = if proto.encoded_len() > MAX_MESSAGE_BYTES {
        read_from_folder(runtime, &mut proto, &names)?
    } else {
        let bytes = proto.encode_to_vec();
        drop(proto);
        runtime.core.read_bytes(&bytes).map_err(|failure| read_error(&failure, &names))?
    };
    let compiled = runtime
        .core
        .compile(&read, &properties(options))
        .map_err(|failure| compile_error(&failure, &names))?;
    drop(read);
    check_precision(&compiled, options.precision)?;
    let signature = Arc::new(signature);
    let ports = ports(graph, &signature, &compiled)?;
    let mut has_loops = false;
    graph.body().visit(&mut |node| has_loops |= node.is("Loop"));
    let shared = Shared {
        compiled,
        signature,
        ports,
        entry,
        names,
        steadiness: steady::of(graph),
        n_bytes: graph.n_constant_bytes(),
        has_loops,
    };
    Ok(OpenVinoModel::new(shared))
}

/// Writes `Greater` as `Less` the other way round: OpenVINO takes what is not a number for greater than others, and for
/// less than none. Blocks are as deep as a graph's may be.
fn turn_comparisons(graph: &mut GraphProto) {
    for node in &mut graph.node {
        let turned = match node.op_type() {
            "Greater" => "Less",
            "GreaterOrEqual" => "LessOrEqual",
            _ => {
                node.attribute.iter_mut().filter_map(|it| it.g.as_mut()).for_each(turn_comparisons);
                continue;
            }
        };
        node.op_type = Some(turned.to_owned());
        node.input.reverse();
    }
}

/// What the model is compiled with. Everything that OpenVINO would choose by the machine and that changes answers is set.
fn properties(options: &LoadOptions) -> Vec<(&'static str, String)> {
    let n_lanes = options.n_lanes.get();
    let n_threads = options.threads.get().saturating_mul(n_lanes);
    let (precision, mode) = match options.precision {
        Precision::Bf16 => ("bf16", "PERFORMANCE"),
        _ => ("f32", "ACCURACY"),
    };
    let texts = [
        ("INFERENCE_PRECISION_HINT", precision),
        ("EXECUTION_MODE_HINT", mode),
        // Products by compressed weights would be quantised in runs.
        ("DYNAMIC_QUANTIZATION_GROUP_SIZE", "0"),
        // Threads go where the system puts them: lanes and other models share the machine.
        ("ENABLE_CPU_PINNING", "NO"),
    ];
    let mut properties: Vec<_> = texts.into_iter().map(|(key, value)| (key, value.to_owned())).collect();
    properties.push(("INFERENCE_NUM_THREADS", n_threads.to_string()));
    properties.push(("NUM_STREAMS", n_lanes.to_string()));
    properties
}

/// Weights that do not fit one message go through a folder that is gone afterwards; what OpenVINO maps of it stays.
fn read_from_folder(runtime: &Runtime, proto: &mut ModelProto, names: &Names) -> Result<ReadModel, Error> {
    // It is this machine's room that is short, not the model's file that cannot be read: another engine may take it.
    let failed = |error: std::io::Error| {
        Error::new(
            ErrorKind::ResourceExhausted,
            format!("a temporary folder for the model's weights: {error}"),
        )
    };
    let folder = tempfile::tempdir().map_err(failed)?;
    let data = onnx::externalise(proto, "model.data");
    let mut file = BufWriter::new(File::create(folder.path().join(&data.file_name)).map_err(failed)?);
    data.pieces().try_for_each(|piece| file.write_all(piece)).map_err(failed)?;
    file.flush().map_err(failed)?;
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, proto.encode_to_vec()).map_err(failed)?;
    runtime.core.read_file(&path).map_err(|failure| read_error(&failure, names))
}

/// The model was checked before, so that what OpenVINO does not read is what it lacks.
fn read_error(failure: &Failure, names: &Names) -> Error {
    Error::new(ErrorKind::Unsupported, names.told("OpenVINO does not read the model", failure))
}

fn compile_error(failure: &Failure, names: &Names) -> Error {
    Error::new(ErrorKind::Unsupported, names.told("OpenVINO does not compile the model", failure))
}

/// A CPU without bfloat16 is given float32 in silence.
fn check_precision(compiled: &Compiled, precision: Precision) -> Result<(), Error> {
    let internal = |_: Failure| Error::new(ErrorKind::Internal, "OpenVINO does not tell its precision");
    let wanted = if precision == Precision::Bf16 { "bf16" } else { "f32" };
    let got = compiled.property("INFERENCE_PRECISION_HINT").map_err(internal)?;
    if got == wanted {
        return Ok(());
    }
    let message = format!("OpenVINO computes in {got} on this CPU, not in {wanted} as asked for");
    Err(Error::new(ErrorKind::Unsupported, message))
}

/// Where the signature's inputs and outputs are among the compiled model's, which are in the graph's order.
fn ports(graph: &salver_graph::Graph, signature: &Signature, compiled: &Compiled) -> Result<Ports, Error> {
    let internal =
        |_: Failure| Error::new(ErrorKind::Internal, "OpenVINO does not tell a model's inputs and outputs");
    let lost = || Error::new(ErrorKind::Internal, "OpenVINO lost or changed an input or output of the model");
    let inputs: Vec<_> = graph.inputs().iter().map(|&id| graph.value(id).name.as_str()).collect();
    let outputs: Vec<_> = graph.outputs().map(|(name, _)| name).collect();
    let place = |names: &[&str], specs: &[TensorSpec], side| {
        let elems = compiled.elems(side).map_err(internal)?;
        if elems.len() != names.len() {
            return Err(lost());
        }
        let find = |spec: &TensorSpec| {
            let at = names.iter().position(|name| *name == &*spec.name)?;
            element::is(elems[at], spec.dtype).then_some(at)
        };
        specs.iter().map(|spec| find(spec).ok_or_else(lost)).collect::<Result<Vec<_>, _>>()
    };
    Ok(Ports {
        inputs: place(&inputs, signature.inputs(), Side::Inputs)?,
        outputs: place(&outputs, signature.outputs(), Side::Outputs)?,
    })
}
