//! What is happening: a bar on a terminal, lines elsewhere.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use salver_tune::Event;

/// Says on standard error what is happening.
#[derive(Debug)]
pub(super) struct Progress {
    /// `None` where nobody watches.
    bar: Option<ProgressBar>,
    stage: String,
}

impl Progress {
    pub(super) fn start() -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            let form = "{elapsed_precise} {prefix:<14} [{bar:28}] {pos:>3}/{len:<3} {wide_msg}";
            if let Ok(style) = ProgressStyle::with_template(form) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        Progress { bar, stage: String::new() }
    }

    /// A line that stays.
    pub(super) fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => line(text),
        }
    }

    pub(super) fn event(&mut self, event: &Event<'_>) {
        match (event, &self.bar) {
            (Event::Stage { name, n_steps }, Some(bar)) => {
                bar.set_prefix((*name).to_owned());
                bar.set_message("");
                bar.set_length(u64::try_from(*n_steps).unwrap_or(0));
                bar.set_position(0);
            }
            (Event::Step { what }, Some(bar)) => {
                bar.set_message((*what).to_owned());
                bar.inc(1);
            }
            // One line per stage is enough for a log.
            (Event::Stage { name, .. }, None) if self.stage != *name => {
                self.stage = (*name).to_owned();
                line(&format!("{name} ..."));
            }
            _ => {}
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A reader that has gone is no reason to fail.
fn line(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}
