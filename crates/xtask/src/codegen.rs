//! `cargo xtask codegen [--check]`: Rust code and descriptors from the files under `proto/`.
//!
//! No protoc is needed: protox compiles the files, prost and tonic write the code, rustfmt lays it out. What comes
//! out is committed; with `--check` it is only compared.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use prost::Message as _;
use protox::prost_reflect::prost_types::FileDescriptorSet;

/// One set of packages that is generated together.
struct Target {
    /// The files to compile, under `proto/`; what they import comes along.
    protos: &'static [&'static str],
    /// Where the generated files go, from the repository's root.
    out: &'static str,
    /// Fields whose bytes are shared with the buffer they were received in.
    shared_bytes: &'static [&'static str],
    /// Messages that are types of our own: their names and paths.
    own_types: &'static [(&'static str, &'static str)],
    /// The name of the descriptor file, where one is wanted.
    descriptors: Option<&'static str>,
}

const TARGETS: [Target; 4] = [
    Target {
        protos: &[
            "inference/service.proto",
            "tensorflow_serving/log.proto",
            "tensorflow_serving/management.proto",
            "tensorflow_serving/prediction_service.proto",
            "tensorflow_serving/session_bundle.proto",
        ],
        out: "crates/wire/src/generated",
        shared_bytes: &[
            ".tensorflow.TensorProto",
            ".inference.ModelInferRequest",
            ".inference.ModelInferResponse",
            ".inference.InferTensorContents",
            ".tensorflow.BytesList",
        ],
        own_types: &[(".tensorflow.Example", "crate::tfs::SerializedExample")],
        descriptors: Some("descriptors.bin"),
    },
    Target {
        protos: &["onnx/onnx.proto"],
        out: "crates/graph/src/generated",
        shared_bytes: &[".onnx.TensorProto"],
        own_types: &[],
        descriptors: None,
    },
    Target {
        protos: &["tensorflow/saved_model.proto", "tensorflow/tensor_bundle.proto"],
        out: "crates/tensorflow/src/generated",
        shared_bytes: &[".tensorflow.TensorProto", ".tensorflow.AttrValue"],
        own_types: &[],
        descriptors: Some("descriptors.bin"),
    },
    Target {
        protos: &["tensorflow/example.proto"],
        out: "crates/kernels/src/generated",
        shared_bytes: &[".tensorflow.BytesList"],
        own_types: &[],
        descriptors: None,
    },
];

/// A file to write, by its path from the repository's root.
struct Output {
    path: PathBuf,
    content: Vec<u8>,
}

/// Generates all code; with `check`, compares it with what is committed and writes nothing.
///
/// # Errors
/// When a `.proto` file does not compile, rustfmt is missing, or (with `check`) a committed file differs; the
/// message names the files.
pub(crate) fn run(check: bool) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .context("the manifest's folder is two below the repository's root")?;
    let mut outputs = Vec::new();
    for target in &TARGETS {
        outputs.extend(generate(root, target).with_context(|| format!("cannot generate {}", target.out))?);
    }
    if check { compare(root, &outputs) } else { write(root, &outputs) }
}

fn generate(root: &Path, target: &Target) -> Result<Vec<Output>> {
    // Comments go into the code, and are left out of the descriptors that are sent to clients.
    let files = compile(root, target, true)?;
    let scratch = tempfile::tempdir()?;
    let mut builder = tonic_prost_build::configure()
        .out_dir(scratch.path())
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .btree_map(".")
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]");
    for field in target.shared_bytes {
        builder = builder.bytes(field);
    }
    for (message, path) in target.own_types {
        builder = builder.extern_path(*message, *path);
    }
    builder.compile_fds(files)?;

    let mut outputs = Vec::new();
    for entry in fs::read_dir(scratch.path())? {
        let entry = entry?;
        let code = fs::read_to_string(entry.path())?;
        if code.lines().all(|line| line.starts_with("//") || line.trim().is_empty()) {
            continue;
        }
        let path = Path::new(target.out).join(entry.file_name());
        outputs.push(Output { path, content: format(root, &code)? });
    }
    if let Some(name) = target.descriptors {
        let content = compile(root, target, false)?.encode_to_vec();
        outputs.push(Output { path: Path::new(target.out).join(name), content });
    }
    outputs.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(outputs)
}

fn compile(root: &Path, target: &Target, source_info: bool) -> Result<FileDescriptorSet> {
    let mut compiler = protox::Compiler::new([root.join("proto")])?;
    compiler.include_imports(true).include_source_info(source_info);
    compiler.open_files(target.protos)?;
    Ok(compiler.file_descriptor_set())
}

/// Lays the code out as `cargo fmt` would, so that formatting checks pass over it.
fn format(root: &Path, code: &str) -> Result<Vec<u8>> {
    let mut rustfmt = Command::new("rustfmt")
        .arg("--config-path")
        .arg(root.join("rustfmt.toml"))
        .args(["--edition", "2024"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start rustfmt")?;
    // rustfmt reads all of its input before it writes, so this cannot block on a full pipe.
    rustfmt.stdin.take().context("rustfmt has no input")?.write_all(code.as_bytes())?;
    let done = rustfmt.wait_with_output()?;
    ensure!(done.status.success(), "rustfmt failed: {}", done.status);
    Ok(done.stdout)
}

fn write(root: &Path, outputs: &[Output]) -> Result<()> {
    for output in outputs {
        let path = root.join(&output.path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        if fs::read(&path).ok().as_deref() != Some(&output.content) {
            fs::write(&path, &output.content).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    for stale in stale(root, outputs)? {
        fs::remove_file(root.join(stale))?;
    }
    Ok(())
}

fn compare(root: &Path, outputs: &[Output]) -> Result<()> {
    let mut differ: Vec<String> = outputs
        .iter()
        .filter(|output| fs::read(root.join(&output.path)).ok().as_deref() != Some(&output.content))
        .map(|output| output.path.display().to_string())
        .collect();
    differ.extend(stale(root, outputs)?.iter().map(|path| path.display().to_string()));
    if !differ.is_empty() {
        bail!("generated files differ from proto/, run `cargo xtask codegen`: {}", differ.join(", "));
    }
    Ok(())
}

/// Files in the folders of generated code that nothing generates.
fn stale(root: &Path, outputs: &[Output]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for target in &TARGETS {
        let Ok(entries) = fs::read_dir(root.join(target.out)) else { continue };
        for entry in entries {
            let path = Path::new(target.out).join(entry?.file_name());
            if outputs.iter().all(|output| output.path != path) {
                found.push(path);
            }
        }
    }
    Ok(found)
}
