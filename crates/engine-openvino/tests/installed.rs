//! The OpenVINO that tests run on.

use std::path::{Path, PathBuf};

use salver_engine::Library;
use salver_engine_openvino::{OpenVinoEngine, TESTED};

/// Its folder: `openvino` and the tested version below `SALVER_RUNTIMES`. `None` after a line that says so; in continuous
/// integration it must be there.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test looks for a library that is not part of the checkout"
)]
pub(crate) fn folder() -> Option<PathBuf> {
    let place = Path::new("openvino").join(TESTED[0]);
    let folder = std::env::var_os("SALVER_RUNTIMES").map(|root| Path::new(&root).join(&place));
    let folder = folder.filter(|folder| folder.is_dir());
    if folder.is_none() {
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "SALVER_RUNTIMES holds no {}",
            place.display()
        );
        println!("SALVER_RUNTIMES holds no {}: skipped", place.display());
    }
    folder
}

#[allow(dead_code, reason = "not all tests need an engine")]
pub(crate) fn engine() -> Option<OpenVinoEngine> {
    folder().map(|folder| OpenVinoEngine::new(Library::at(&folder)))
}
