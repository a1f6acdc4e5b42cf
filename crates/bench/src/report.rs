//! A report: notes and tables, to the terminal and to files, with the machine and the commit it was measured on.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::Common;

/// What one program found.
#[derive(Debug)]
pub(crate) struct Report {
    /// The file's name.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// How the figures came about, one paragraph each.
    pub(crate) notes: Vec<String>,
    pub(crate) tables: Vec<Table>,
    /// All figures, for programs.
    pub(crate) figures: Value,
}

#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) head: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Report {
    /// Prints the report and, unless told otherwise, writes `NAME.md` and `NAME.json`.
    pub(crate) fn publish(&self, common: &Common) -> Result<()> {
        let machine = machine();
        println!("\n== {}", self.title);
        for note in &self.notes {
            println!("\n{note}");
        }
        for table in &self.tables {
            println!("\n{}\n{}", table.title, table.plain());
        }
        if common.dry {
            return Ok(());
        }
        std::fs::create_dir_all(&common.out)?;
        let figures = json!({ "machine": machine, "figures": self.figures });
        for (ending, text) in
            [("md", self.markdown(&machine)), ("json", serde_json::to_string_pretty(&figures)? + "\n")]
        {
            let path = common.out.join(format!("{}.{ending}", self.name));
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            println!("written: {}", path.display());
        }
        Ok(())
    }

    fn markdown(&self, machine: &Value) -> String {
        let mut text = format!("# {}\n\n", self.title);
        let said = |key: &str| machine[key].as_str().unwrap_or("?").to_owned();
        text += &format!(
            "`cargo xtask bench {}` on {}, {} cores, {}, at commit {}, {}.\n\n",
            self.name,
            said("processor"),
            machine["cores"],
            said("date"),
            said("commit"),
            said("compiler"),
        );
        for note in &self.notes {
            text += &format!("{note}\n\n");
        }
        for table in &self.tables {
            text += &format!("## {}\n\n{}\n", table.title, table.markdown());
        }
        text.truncate(text.trim_end().len());
        text + "\n"
    }
}

impl Table {
    fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let head: Vec<String> = self.head.iter().map(|cell| (*cell).to_owned()).collect();
        let rule = format!("|---|{}\n", "---:|".repeat(head.len() - 1));
        line(&head) + &rule + &self.rows.iter().map(|row| line(row)).collect::<String>()
    }

    fn plain(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.head[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let line = |cells: Vec<&str>| {
            let mut text = String::new();
            for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                text += &match column {
                    0 => format!("{cell:<width$}"),
                    _ => format!("  {cell:>width$}"),
                };
            }
            text + "\n"
        };
        line(self.head.clone())
            + &self.rows.iter().map(|row| line(row.iter().map(String::as_str).collect())).collect::<String>()
    }
}

/// What the figures depend on beside the code.
fn machine() -> Value {
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    json!({
        "processor": model.unwrap_or("unknown"),
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZeroUsize::get),
        "date": answer("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        "commit": answer("git", &["rev-parse", "--short", "HEAD"]),
        "compiler": answer("rustc", &["--version"]),
        "kernel": answer("uname", &["-sr"]),
    })
}

pub(crate) fn answer(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up() {
        let table = Table {
            title: String::new(),
            head: vec!["side", "µs"],
            rows: vec![vec!["echo".to_owned(), "7.1".to_owned()], vec!["salver".to_owned(), "12".to_owned()]],
        };
        assert_eq!(table.plain(), "side     µs\necho    7.1\nsalver   12\n");
        assert_eq!(table.markdown(), "| side | µs |\n|---|---:|\n| echo | 7.1 |\n| salver | 12 |\n");
    }
}
