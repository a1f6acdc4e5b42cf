//! What a model needs: whether the embedded engine runs it, and which library would do more.

use std::path::Path;

use salver_engine::{Choice, Error, ErrorKind, Format, LoadOptions, ModelSource};
use salver_graph::Passes;
use salver_runtime::{Cpu, Kind, Runtimes};

use crate::opened::{self, Opened};
use crate::{discover, parts};

/// Operations for one row from which on the libraries are clearly faster than the embedded engine. A network for images on
/// telephones has some hundred million, one for a few measurements a thousand.
const MANY_OPERATIONS: u64 = 50_000_000;

/// The models at a path, each with what there is to say about it.
pub(super) fn judge(path: &Path, cpu: &Cpu, runtimes: &Runtimes) -> Vec<(String, Vec<String>)> {
    let found = match discover::discover(path) {
        Ok((found, _)) => found,
        Err(error) => return vec![(path.display().to_string(), vec![format!("{error:#}")])],
    };
    let of = |found: discover::Found| (found.name.clone(), lines(&found.path, cpu, runtimes));
    found.into_iter().map(of).collect()
}

fn lines(path: &Path, cpu: &Cpu, runtimes: &Runtimes) -> Vec<String> {
    let source = match opened::find(path) {
        Ok(source) => source,
        Err(error) => return vec![format!("{error:#}")],
    };
    let mut lines = vec![format!("{}, {}", source.format, source.path.display())];
    let engines = parts::engines(runtimes);
    if !engines.engines().iter().any(|engine| engine.supports(source.format)) {
        lines.push("no engine loads this format".to_owned());
        return lines;
    }
    let loaded = engines.load(&source, &LoadOptions::default(), &Choice::from_name("embedded"));
    let mut wanted = Vec::new();
    match &loaded {
        Ok(loaded) if loaded.model.refused().is_empty() => {
            lines.push("the embedded engine runs it".to_owned());
        }
        Ok(loaded) => {
            let (refused, runs) = (loaded.model.refused(), loaded.model.signatures().len());
            lines.push(format!("the embedded engine runs {runs} of its {} signatures", runs + refused.len()));
            for (name, reason) in refused {
                lines.push(format!("  not '{name}': {reason}"));
            }
            wanted.extend(instead(source.format, None));
        }
        Err(error) => {
            lines.push(format!("the embedded engine does not run it: {}", without_path(error, &source)));
            match instead(source.format, Some(error.kind())) {
                Some(kind) => wanted.push(kind),
                None => return lines,
            }
        }
    }
    if let Some(kind) = wanted.first() {
        lines.push(format!("{kind} runs what the embedded engine lacks"));
    }
    let operations = opened::open(path).ok().map(|opened| operations(&opened));
    if let Some(n) = operations.filter(|n| *n >= MANY_OPERATIONS) {
        let bf16 = match cpu.bf16() {
            Some(_) => ", openvino again in bfloat16 where you allow it",
            None => "",
        };
        lines.push(format!("{} operations per row: openvino and onnxruntime are faster with such models as a rule{bf16} (salver tune measures it)", count(n)));
        wanted.push(Kind::OpenVino);
    }
    lines.extend(install(&wanted, runtimes));
    lines
}

/// The engine for what the embedded one lacks in a format, unless the model itself is at fault.
fn instead(format: Format, error: Option<ErrorKind>) -> Option<Kind> {
    let lacks = error.is_none_or(|kind| kind == ErrorKind::Unsupported);
    match format {
        Format::SavedModel | Format::FrozenGraph if lacks => Some(Kind::TensorFlow),
        Format::Onnx if lacks => Some(Kind::OnnxRuntime),
        _ => None,
    }
}

/// The command for those that are not there or damaged; it does nothing for what cannot be read.
fn install(wanted: &[Kind], runtimes: &Runtimes) -> Option<String> {
    let lacks = |kind: &&Kind| {
        let found = runtimes.find(**kind, None);
        found.is_err_and(|error| error.kind() != salver_runtime::ErrorKind::Io)
    };
    let missing: Vec<_> = wanted.iter().filter(lacks).map(|kind| kind.name()).collect();
    (!missing.is_empty()).then(|| format!("install: salver runtime install {}", missing.join(" ")))
}

/// What an error says behind the path, which stands above it.
fn without_path(error: &Error, source: &ModelSource) -> String {
    let (text, path) = (error.to_string(), source.path.display().to_string());
    text.strip_prefix(&path).map_or(text.as_str(), |rest| rest.trim_start_matches([':', '/', ' '])).to_owned()
}

/// Floating-point operations of the costliest signature for one row.
fn operations(opened: &Opened) -> u64 {
    let of = |signature: &salver_graph::SignatureGraph| {
        let (graph, _) = salver_graph::optimise(&signature.graph, &Passes::all());
        let costs = salver_graph::cost(&graph, 1);
        costs.iter().fold(0u64, |sum, cost| sum.saturating_add(cost.n_operations))
    };
    opened.model.signatures.iter().map(of).max().unwrap_or(0)
}

fn count(n: u64) -> String {
    match n {
        0..1_000_000_000 => format!("{} million", n / 1_000_000),
        _ => format!("{}.{} billion", n / 1_000_000_000, n / 100_000_000 % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_engine_is_named_only_where_it_would_help() {
        let (unsupported, invalid) = (Some(ErrorKind::Unsupported), Some(ErrorKind::InvalidModel));
        for (format, error, expected) in [
            (Format::SavedModel, unsupported, Some(Kind::TensorFlow)),
            (Format::SavedModel, None, Some(Kind::TensorFlow)),
            (Format::SavedModel, invalid, None),
            (Format::FrozenGraph, unsupported, Some(Kind::TensorFlow)),
            (Format::Onnx, unsupported, Some(Kind::OnnxRuntime)),
            (Format::Keras, unsupported, None),
            (Format::TfLite, unsupported, None),
        ] {
            assert_eq!(instead(format, error), expected, "{format:?} {error:?}");
        }
    }

    #[test]
    fn only_what_is_missing_is_to_be_installed() {
        let dir = tempfile::tempdir().unwrap();
        let runtimes = Runtimes::new(dir.path());
        assert_eq!(
            install(&[Kind::TensorFlow, Kind::OpenVino], &runtimes).as_deref(),
            Some("install: salver runtime install tensorflow openvino")
        );
        assert_eq!(install(&[], &runtimes), None);
        std::fs::write(dir.path().join("openvino"), "where a folder should be").unwrap();
        assert_eq!(install(&[Kind::OpenVino], &runtimes), None);
    }

    #[test]
    fn what_is_no_model_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let runtimes = Runtimes::new(dir.path().join("runtimes"));
        let cpu = Cpu { model: String::new(), features: Vec::new() };
        let judged = judge(dir.path(), &cpu, &runtimes);
        assert!(judged.len() == 1 && judged[0].1[0].contains("no model found"), "{judged:?}");
    }

    #[test]
    fn large_numbers_are_written_for_people() {
        assert_eq!(
            (count(57_100_000).as_str(), count(11_420_000_000).as_str()),
            ("57 million", "11.4 billion")
        );
    }
}
