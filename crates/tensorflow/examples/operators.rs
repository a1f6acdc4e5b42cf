//! Prints `docs/tensorflow-ops.md`: `cargo run -p salver-tensorflow --example operators > docs/tensorflow-ops.md`.

#[expect(clippy::print_stdout, reason = "it is what this program is for")]
fn main() {
    print!("{}", salver_tensorflow::ops::documentation());
}
