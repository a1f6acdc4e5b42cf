//! How many tests passed and failed, as each runner's summary says it.

/// Tests by how they ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Adds a part of a summary such as `3 passed`, `1 timed out`; other parts say nothing.
    fn read(&mut self, part: &str) {
        let Some((number, rest)) = part.trim().split_once(' ') else { return };
        let Ok(number) = number.parse::<u64>() else { return };
        let how = rest.split_once(['(', ':']).map_or(rest, |(how, _)| how).trim();
        match how {
            "passed" => self.passed += number,
            "failed" | "timed out" | "exec failed" | "error" | "errors" => self.failed += number,
            "skipped" | "ignored" => self.skipped += number,
            _ => {}
        }
    }
}

/// The program whose output is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runner {
    Nextest,
    Libtest,
    Pytest,
}

impl Runner {
    /// What a line says, if it is this runner's summary.
    pub(crate) fn read(self, line: &str) -> Option<Counts> {
        let parts = match self {
            Self::Nextest => line.split_once(" run: ").filter(|(head, _)| head.contains("Summary"))?.1,
            Self::Libtest => line.strip_prefix("test result: ")?.split_once(". ")?.1,
            Self::Pytest => line.trim().trim_matches('=').rsplit_once(" in ")?.0,
        };
        let mut counts = Counts::default();
        for part in parts.split([',', ';']) {
            counts.read(part);
        }
        (counts != Counts::default()).then_some(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(runner: Runner, line: &str, expected: Option<(u64, u64, u64)>) {
        let found = runner.read(line).map(|c| (c.passed, c.failed, c.skipped));
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn a_summary_is_read() {
        let nextest = Runner::Nextest;
        check(nextest, "     Summary [   0.0s] 12 tests run: 12 passed, 3 skipped\n", Some((12, 0, 3)));
        check(
            nextest,
            "     Summary [ 1.0s] 9 tests run: 5 passed (1 slow, 2 leaky), 2 failed, 1 timed out, 1 exec failed, 0 skipped",
            Some((5, 4, 0)),
        );
        check(nextest, "     Summary [ 1.0s] 1 test run: 1 passed, 0 skipped", Some((1, 0, 0)));
        let libtest = Runner::Libtest;
        check(
            libtest,
            "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.1s",
            Some((3, 1, 2)),
        );
        check(libtest, "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; finished in 0.1s", None);
        let pytest = Runner::Pytest;
        check(
            pytest,
            "====== 1 failed, 44 passed, 2 skipped, 1 error in 12.31s (0:00:12) ======",
            Some((44, 2, 2)),
        );
        check(pytest, "45 passed in 1.2s\n", Some((45, 0, 0)));
    }

    #[test]
    fn other_lines_say_nothing() {
        for runner in [Runner::Nextest, Runner::Libtest, Runner::Pytest] {
            for line in [
                "",
                "test tensor::tests::concat ... ok",
                "        PASS [   0.01s] salver-tensor shape",
                "12 in 3",
            ] {
                check(runner, line, None);
            }
        }
    }
}
