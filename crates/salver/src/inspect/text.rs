//! The report as a person reads it in a terminal.

use std::fmt::Write;

use super::{PortReport, Report, SignatureReport};
use crate::convert::megabytes;

/// Nodes that are listed by name.
const MAX_LISTED: usize = 8;

/// The report in lines.
pub(super) fn text(report: &Report) -> String {
    let mut out = String::new();
    line(&mut out, format_args!("{}: {}", report.path, report.format));
    for signature in &report.signatures {
        self::signature(&mut out, signature);
    }
    if !report.state.is_empty() {
        line(&mut out, format_args!("\nKept from run to run: {}", report.state.join(", ")));
    }
    for refused in &report.refused {
        line(&mut out, format_args!("\nSignature {} cannot be run\n  {}", refused.signature, refused.reason));
    }
    if !report.notes.is_empty() {
        line(&mut out, format_args!("\nNotes"));
        report.notes.iter().for_each(|note| line(&mut out, format_args!("  {note}")));
    }
    out.trim_end().to_owned()
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writing to a string does not fail");
}

fn signature(out: &mut String, signature: &SignatureReport) {
    line(out, format_args!("\nSignature {} ({})", signature.name, signature.method_name));
    ports(out, "input", &signature.inputs);
    ports(out, "output", &signature.outputs);
    let mut operators: Vec<_> = signature.operators.iter().collect();
    operators.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let operators: Vec<_> = operators.iter().map(|(op, n)| format!("{op} {n}")).collect();
    line(out, format_args!("  {:<12}{}: {}", "nodes", signature.n_nodes, operators.join(", ")));
    let weights = usize::try_from(signature.parameter_bytes).unwrap_or(usize::MAX);
    line(out, format_args!("  {:<12}{} ({})", "parameters", count(signature.parameters), megabytes(weights)));
    let values = usize::try_from(signature.activation_bytes).unwrap_or(usize::MAX);
    let flops = count(signature.flops);
    line(out, format_args!("  {:<12}{flops} operations, {} of values", "one row", megabytes(values)));
    let passes: Vec<_> = signature.passes.iter().map(|(name, n)| format!("{name} {n}")).collect();
    if !passes.is_empty() {
        line(out, format_args!("  {:<12}{}", "rewritten", passes.join(", ")));
    }
    let place = match signature.host.len() {
        0 => "all on the embedded engine".to_owned(),
        n if n == signature.n_nodes => "all on the host".to_owned(),
        1 => "one node on the host, the others on the embedded engine".to_owned(),
        n => format!("{n} nodes on the host, the others on the embedded engine"),
    };
    line(out, format_args!("  {:<12}{place}", "runs"));
    for host in signature.host.iter().take(MAX_LISTED).filter(|_| signature.host.len() < signature.n_nodes) {
        line(out, format_args!("  {:<12}  {} '{}'", "", host.operator, host.node));
    }
}

fn ports(out: &mut String, kind: &str, ports: &[PortReport]) {
    let width = ports.iter().map(|port| port.name.chars().count()).max().unwrap_or(0);
    for port in ports {
        let PortReport { name, tensor_name, dtype, shape } = port;
        line(out, format_args!("  {kind:<12}{name:<width$}  {dtype} {shape}  ({tensor_name})"));
    }
}

/// 25,557,032 as 25.6 million.
fn count(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..1_000_000 => format!("{:.1} thousand", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} million", n as f64 / 1e6),
        _ => format!("{:.2} billion", n as f64 / 1e9),
    }
}
