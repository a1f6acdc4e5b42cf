//! Where the library of the tests lies.

use std::path::PathBuf;

use salver_engine::Library;

/// The folder of the tested version below `SALVER_RUNTIMES`. `None` after a line that says so, but in continuous
/// integration it has to be there.
#[expect(clippy::disallowed_methods, reason = "a test looks for what is not part of the checkout")]
pub(crate) fn folder() -> Option<PathBuf> {
    let root = std::env::var_os("SALVER_RUNTIMES").map(PathBuf::from);
    let folder = root.map(|root| root.join("onnxruntime").join(salver_engine_onnxruntime::TESTED[0]));
    if let Some(folder) = folder.filter(|folder| folder.is_dir()) {
        return Some(folder);
    }
    assert!(
        std::env::var_os("CI").is_none_or(|value| value != "true"),
        "SALVER_RUNTIMES holds no onnxruntime/{}",
        salver_engine_onnxruntime::TESTED[0]
    );
    println!("SALVER_RUNTIMES holds no ONNX Runtime: skipped");
    None
}

pub(crate) fn library() -> Option<Library> {
    folder().map(|folder| Library::at(&folder))
}
