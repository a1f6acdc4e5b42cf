//! What an engine failed, gathered so that one run shows all of it.

#[derive(Debug, Default)]
pub(super) struct Failures {
    lines: Vec<String>,
}

impl Failures {
    pub(super) fn add(&mut self, line: String) {
        self.lines.push(line);
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines
    }

    pub(super) fn check(self) {
        assert!(self.lines.is_empty(), "{} failures:\n{}", self.lines.len(), self.lines.join("\n"));
    }
}
