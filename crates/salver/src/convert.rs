//! `salver convert`: any model that can be imported, as an ONNX file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use salver_graph::Passes;
use salver_graph::onnx::{self, Labels, Weights};

use crate::opened;

/// Write a model as ONNX.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConvertArgs {
    /// A SavedModel folder, a frozen graph, a Keras file, or a folder with versions (the latest is taken).
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// The file to write.
    #[arg(short, long, value_name = "FILE.onnx")]
    output: PathBuf,
    /// The signature to write; needed when there are several and none is serving_default.
    #[arg(long, value_name = "NAME")]
    signature: Option<String>,
    /// Put the weights into a file beside the model (FILE.onnx.data), as is always done above 2 GB.
    #[arg(long)]
    external_data: bool,
    /// Write the graph as it was imported, without rewriting it to run faster.
    #[arg(long)]
    no_optimise: bool,
}

/// Converts. Blocks.
///
/// # Errors
/// Why the model cannot be imported or written.
pub(crate) fn convert(args: &ConvertArgs) -> anyhow::Result<String> {
    let opened = opened::open(&args.model)?;
    let signature = opened.signature(args.signature.as_deref())?;
    let optimised = (!args.no_optimise).then(|| signature.optimised(&Passes::all()).0);
    let signature = optimised.as_ref().unwrap_or(signature);
    if !signature.state_inputs.is_empty() || !signature.state_outputs.is_empty() {
        bail!("signature '{}' keeps state between runs, which ONNX cannot say", signature.name);
    }
    let graph = &signature.graph;
    let file_name = args.output.file_name().and_then(|name| name.to_str());
    let file_name = file_name.with_context(|| format!("{}: not a file name", args.output.display()))?;
    let data_name = format!("{file_name}.data");
    let weights =
        if args.external_data { Weights::Beside(&data_name) } else { Weights::BesideWhenLarge(&data_name) };
    let labels = Labels {
        graph_name: &signature.name,
        producer_version: env!("CARGO_PKG_VERSION"),
        metadata: &[("signature", &signature.name), ("method_name", &signature.method_name)],
    };
    let written = onnx::bytes(graph, &labels, weights)?;
    let mut n_bytes = written.model.len();
    if let Some(data) = &written.data {
        n_bytes += data.n_bytes();
        write_pieces(&args.output.with_file_name(&data_name), data.pieces().map(|piece| &**piece))?;
    }
    write_pieces(&args.output, [&*written.model])?;
    let beside = written.data.map_or_else(String::new, |_| format!(" and {data_name}"));
    let n_nodes = graph.body().nodes.len();
    let output = args.output.display();
    Ok(format!("{output}{beside}: signature '{}', {n_nodes} nodes, {}", signature.name, megabytes(n_bytes)))
}

fn write_pieces<'a>(path: &Path, pieces: impl IntoIterator<Item = &'a [u8]>) -> anyhow::Result<()> {
    let context = || path.display().to_string();
    let mut file = BufWriter::new(File::create(path).with_context(context)?);
    for piece in pieces {
        file.write_all(piece).with_context(context)?;
    }
    file.flush().with_context(context)
}

/// Bytes as a person reads them.
pub(crate) fn megabytes(n_bytes: usize) -> String {
    match n_bytes {
        0..1_000 => format!("{n_bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} KB", n_bytes as f64 / 1e3),
        _ => format!("{:.1} MB", n_bytes as f64 / 1e6),
    }
}
