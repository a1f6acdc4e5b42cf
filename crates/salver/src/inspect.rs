//! `salver inspect`: what a model takes, gives, holds and costs, and what the importer did with it.

mod plot;
mod text;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use salver_graph::{Graph, Passes, Port, SignatureGraph};
use serde::Serialize;

use crate::opened::{self, Opened};
use crate::parts;

/// Show what is in a model: signatures, operators, sizes, costs.
#[derive(Debug, Clone, Args)]
pub(crate) struct InspectArgs {
    /// A SavedModel folder, a frozen graph, a Keras or ONNX file, or a folder with versions (the latest is taken).
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Draw the network of one signature, operator by operator with shapes.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// The signature to draw; needed when there are several and none is serving_default.
    #[arg(long, value_name = "NAME")]
    signature: Option<String>,
}

/// Everything that is shown.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    path: String,
    format: String,
    signatures: Vec<SignatureReport>,
    /// Signatures that cannot be imported.
    refused: Vec<Refused>,
    /// What the importer did that a person may want to know.
    notes: Vec<String>,
    /// Variables that signatures change.
    state: Vec<String>,
}

/// One signature.
#[derive(Debug, Serialize)]
pub(crate) struct SignatureReport {
    name: String,
    method_name: String,
    inputs: Vec<PortReport>,
    outputs: Vec<PortReport>,
    operators: BTreeMap<String, usize>,
    n_nodes: usize,
    parameters: u64,
    parameter_bytes: u64,
    /// Operations for one row, a multiplication and an addition counted as two.
    flops: u64,
    /// Bytes of all values that nodes give for one row.
    activation_bytes: u64,
    /// Passes that changed something, with how often.
    passes: Vec<(String, usize)>,
    /// Nodes that run on the host and not on the embedded engine.
    host: Vec<HostNode>,
}

/// An input or output.
#[derive(Debug, Serialize)]
pub(crate) struct PortReport {
    name: String,
    tensor_name: String,
    dtype: String,
    shape: String,
}

/// A node that runs on the host.
#[derive(Debug, Serialize)]
pub(crate) struct HostNode {
    operator: String,
    node: String,
}

/// A signature that cannot be imported.
#[derive(Debug, Serialize)]
pub(crate) struct Refused {
    signature: String,
    reason: String,
}

/// Looks at a model and returns what to print. Blocks.
///
/// # Errors
/// Why the model cannot be imported, or the drawing not be written.
pub(crate) fn inspect(args: &InspectArgs) -> anyhow::Result<String> {
    let opened = opened::open(&args.model)?;
    if let Some(path) = &args.plot {
        let signature = opened.signature(args.signature.as_deref())?;
        let (graph, _) = optimised(signature);
        let svg = plot::svg(&graph)?;
        std::fs::write(path, svg).with_context(|| path.display().to_string())?;
    }
    let report = report(&opened);
    if args.json { Ok(serde_json::to_string_pretty(&report)?) } else { Ok(text::text(&report)) }
}

fn optimised(signature: &SignatureGraph) -> (Graph, Vec<(String, usize)>) {
    let (graph, changes) = salver_graph::optimise(&signature.graph, &Passes::all());
    let changes = changes.into_iter().filter(|(_, n)| *n > 0).map(|(name, n)| (name.to_owned(), n));
    (graph, changes.collect())
}

fn report(opened: &Opened) -> Report {
    let model = &opened.model;
    let refused = model.refused.iter();
    Report {
        path: opened.source.path.display().to_string(),
        format: opened.source.format.to_string(),
        signatures: model.signatures.iter().map(signature).collect(),
        refused: refused
            .map(|(name, error)| Refused { signature: name.clone(), reason: error.to_string() })
            .collect(),
        notes: model.notes.clone(),
        state: model.state.iter().map(|state| state.name.clone()).collect(),
    }
}

fn signature(signature: &SignatureGraph) -> SignatureReport {
    let (graph, passes) = optimised(signature);
    let mut operators = BTreeMap::new();
    let mut n_nodes = 0;
    graph.body().visit(&mut |node| {
        *operators.entry(node.full_op()).or_insert(0) += 1;
        n_nodes += 1;
    });
    let costs = salver_graph::cost(&graph, 1);
    let sum = |of: fn(&salver_graph::NodeCost) -> u64| costs.iter().map(of).fold(0u64, u64::saturating_add);
    let host = parts::on_the_host(&graph);
    SignatureReport {
        name: signature.name.clone(),
        method_name: signature.method_name.clone(),
        inputs: signature.inputs.iter().map(|port| port_report(port, signature)).collect(),
        outputs: signature.outputs.iter().map(|port| port_report(port, signature)).collect(),
        operators,
        n_nodes,
        parameters: sum(|cost| cost.n_parameters),
        parameter_bytes: graph.n_constant_bytes(),
        flops: sum(|cost| cost.n_operations),
        activation_bytes: sum(|cost| cost.activation_bytes),
        passes,
        host: host.into_iter().map(|(operator, node)| HostNode { operator, node }).collect(),
    }
}

fn port_report(port: &Port, signature: &SignatureGraph) -> PortReport {
    let actual = signature.graph.value(port.value).dtype;
    let dtype =
        if actual == port.dtype { actual.to_string() } else { format!("{actual} (declared {})", port.dtype) };
    PortReport {
        name: port.name.clone(),
        tensor_name: port.tensor_name.clone(),
        dtype,
        shape: port.dims.to_string(),
    }
}
