//! What the library takes from the process's environment only.

/// The variables by which the library is told to report nothing, and to write nothing for that. Version 1.32 reads the
/// first (<https://github.com/microsoft/onnxruntime/pull/27379>); the second is what some others call it
/// (<https://github.com/microsoft/onnxruntime/pull/29843>).
const SILENCING: [&str; 2] = ["ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"];

/// Tells ONNX Runtime by the environment to report nothing about this process to its maker, unless the variables are set
/// already. Call it first thing in `main`. Returns whether the library is silent: where the process has more than one
/// thread already, or where that cannot be told, nothing is changed, because other threads may be reading the
/// environment. The library is not opened in a process where `ORT_DISABLE_TELEMETRY` is not set.
#[expect(
    clippy::disallowed_methods,
    reason = "ONNX Runtime takes this from nowhere else, and before it can be called"
)]
pub fn prepare_process() -> bool {
    let is_alone = std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.take(2).count() == 1);
    for name in SILENCING.into_iter().filter(|_| is_alone) {
        if std::env::var_os(name).is_none() {
            // SAFETY: the process has no thread but this one, and this one reads no environment now.
            unsafe { std::env::set_var(name, "1") };
        }
    }
    is_silent()
}

/// Whether somebody has decided what the library may report.
#[expect(clippy::disallowed_methods, reason = "it is the environment that the library reads")]
pub(crate) fn is_silent() -> bool {
    std::env::var_os(SILENCING[0]).is_some()
}
