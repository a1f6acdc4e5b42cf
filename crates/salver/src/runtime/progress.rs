//! How far an installation is, for a person at a terminal; elsewhere one line per step.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use salver_runtime::{Kind, Progress};

/// How often a bar that waits turns.
const TURN: Duration = Duration::from_millis(120);

/// The line at the bottom of a terminal.
#[derive(Debug)]
pub(crate) struct Bar {
    kind: Kind,
    bar: ProgressBar,
    step: Option<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Waiting,
    Fetching,
    Downloading,
    Unpacking,
}

impl Bar {
    pub(crate) fn new(kind: Kind) -> Bar {
        let bar = ProgressBar::no_length();
        Bar { kind, bar, step: None }
    }

    pub(crate) fn show(&mut self, progress: &Progress) {
        let kind = self.kind;
        match progress {
            Progress::Waiting => {
                self.turn(Step::Waiting, &format!("{kind}: waits for another installation of it"));
            }
            Progress::Fetching { command, package } => {
                self.step = None;
                self.turn(Step::Fetching, &format!("{kind}: {command} looks for {package}"));
            }
            Progress::Downloaded { done, total: Some(total) } if done > &0 => {
                self.measure(Step::Downloading, "downloading", *done, *total);
            }
            Progress::Unpacked { done, total } => {
                self.measure(Step::Unpacking, "unpacking", *done, *total);
            }
            _ => {}
        }
    }

    /// Shows that something goes on.
    fn turn(&mut self, step: Step, text: &str) {
        if self.enter(step, text) {
            let style = ProgressStyle::with_template("{spinner} {msg}").expect("this template is sound");
            self.bar.set_style(style);
            self.bar.set_message(text.to_owned());
            self.bar.enable_steady_tick(TURN);
        }
    }

    /// Shows how much of something is done.
    fn measure(&mut self, step: Step, what: &str, done: u64, total: u64) {
        let text = format!("{}: {what}", self.kind);
        if self.enter(step, &text) {
            let template = "{msg:<24} [{bar:20}] {decimal_bytes:>10} of {decimal_total_bytes} {eta:>4}";
            let style = ProgressStyle::with_template(template).expect("this template is sound");
            self.bar.disable_steady_tick();
            self.bar.reset();
            self.bar.set_style(style.progress_chars("=> "));
            self.bar.set_message(text);
            self.bar.set_length(total);
        }
        // Pip rounds what it announces.
        self.bar.set_position(done.min(total));
    }

    /// Whether this is another step than before. Without a terminal it is told by a line.
    fn enter(&mut self, step: Step, text: &str) -> bool {
        let is_new = self.step != Some(step);
        self.step = Some(step);
        if is_new && self.bar.is_hidden() {
            crate::print(&mut std::io::stderr(), text);
        }
        is_new
    }

    /// Takes the line away.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
