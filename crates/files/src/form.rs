//! How records lie in a file, told from the file's name.

use std::path::Path;

/// How records lie in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One record per line.
    JsonLines,
    /// One record per row. A row ends at a line feed outside of quotes (RFC 4180, with `\n` taken like `\r\n`).
    Csv {
        /// What separates fields.
        delimiter: u8,
        /// What surrounds a field that has a separator or a line break in it; doubled it stands for itself.
        quote: u8,
    },
}

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// gzip, one or several members (RFC 1952).
    Gzip,
    /// zstd, one or several frames (RFC 8878).
    Zstd,
}

impl Form {
    /// CSV with the usual quotes.
    pub const fn csv(delimiter: u8) -> Form {
        Form::Csv { delimiter, quote: b'"' }
    }

    /// What the name of a file says: `.jsonl`, `.ndjson`, `.csv` or `.tsv`, with `.gz`, `.zst` or `.zstd` after it if it is
    /// compressed. `None` if it says nothing of the form.
    pub fn of(path: &Path) -> (Option<Form>, Packing) {
        let name =
            path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let (stem, packing) = match name.rsplit_once('.') {
            Some((stem, "gz")) => (stem, Packing::Gzip),
            Some((stem, "zst" | "zstd")) => (stem, Packing::Zstd),
            _ => (name.as_str(), Packing::Plain),
        };
        let form = match stem.rsplit_once('.').map(|(_, ending)| ending) {
            Some("jsonl" | "ndjson") => Some(Form::JsonLines),
            Some("csv") => Some(Form::csv(b',')),
            Some("tsv") => Some(Form::csv(b'\t')),
            _ => None,
        };
        (form, packing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let csv = Some(Form::csv(b','));
        let cases = [
            ("a.jsonl", Some(Form::JsonLines), Packing::Plain),
            ("a.NDJSON.gz", Some(Form::JsonLines), Packing::Gzip),
            ("b/a.csv", csv, Packing::Plain),
            ("a.csv.zst", csv, Packing::Zstd),
            ("a.tsv", Some(Form::csv(b'\t')), Packing::Plain),
            ("a.txt", None, Packing::Plain),
            ("csv", None, Packing::Plain),
            ("-", None, Packing::Plain),
        ];
        for (name, form, packing) in cases {
            assert_eq!(Form::of(Path::new(name)), (form, packing), "{name}");
        }
    }
}
