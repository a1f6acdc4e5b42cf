//! Settings that TensorFlow takes from the process's environment only.

/// Names and values. TensorFlow reads them when its libraries are loaded and sessions made.
const SETTINGS: [(&str, &str); 2] = [
    // Errors only; the rest is chatter about instruction sets.
    ("TF_CPP_MIN_LOG_LEVEL", "2"),
    // Threads within operators are the session's own, not those that the first session of the process asked for.
    ("TF_OVERRIDE_GLOBAL_THREADPOOL", "1"),
];

/// Sets what TensorFlow takes only from the environment, unless it is set already: that it logs errors only, and that
/// each model has threads of its own. Call it first thing in `main`. Returns whether it could be done: where the process
/// has more than one thread already, or where that cannot be told, nothing is changed, because other threads may be
/// reading the environment. Without it everything works; TensorFlow then logs more, and the first model that is loaded
/// decides how many threads all models have within operators.
#[expect(clippy::disallowed_methods, reason = "TensorFlow takes this from nowhere else")]
pub fn prepare_process() -> bool {
    let is_alone = std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.take(2).count() == 1);
    if !is_alone {
        return false;
    }
    for (name, value) in SETTINGS {
        if std::env::var_os(name).is_none() {
            // SAFETY: the process has no thread but this one, and this one reads no environment now.
            unsafe { std::env::set_var(name, value) };
        }
    }
    true
}
