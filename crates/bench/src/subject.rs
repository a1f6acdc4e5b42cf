//! The models that are served, and what is asked of them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use crate::Common;

const PICTURE: &[u8] = include_bytes!("../fixtures/picture.onnx");

/// A model with one request to send to it, over and over.
#[derive(Debug)]
pub(crate) struct Subject {
    /// The name it is served under.
    pub(crate) name: &'static str,
    /// What the tables call it.
    pub(crate) label: &'static str,
    pub(crate) model: Vec<u8>,
    pub(crate) input: String,
    /// The shape of one request; the first dimension is the batch.
    pub(crate) shape: Vec<usize>,
    /// As many numbers as the shape says, each short as text.
    pub(crate) values: Vec<f32>,
}

impl Subject {
    /// The Crayfish network with one row of 784 numbers, or the digits of the repository with one of 64.
    pub(crate) fn tiny(common: &Common) -> Result<Subject> {
        let crayfish = common.testdata.as_ref().map(|folder| folder.join("crayfish/model-ffnn.onnx"));
        match crayfish.filter(|path| path.exists()) {
            Some(path) => Ok(Subject::new("crayfish", "Crayfish", read(&path)?, "input", &[1, 1, 784])),
            None => {
                let path = Path::new("examples/models/digits/1/model.onnx");
                Ok(Subject::new("digits", "digits", read(path)?, "pixels", &[1, 64]))
            }
        }
    }

    /// The mean of a 224x224x3 picture: 602,112 bytes in, 4 out.
    pub(crate) fn picture() -> Subject {
        Subject::new("picture", "picture", PICTURE.to_vec(), "picture", &[1, 224, 224, 3])
    }

    fn new(
        name: &'static str,
        label: &'static str,
        model: Vec<u8>,
        input: &'static str,
        shape: &[usize],
    ) -> Subject {
        let values = (0..shape.iter().product()).map(value).collect();
        Subject { name, label, model, input: input.to_owned(), shape: shape.to_vec(), values }
    }

    /// Puts the model into `NAME/VERSION/` under the folder, as if it had been there for an hour: a file that has just
    /// changed is not loaded before it is seen to be complete.
    pub(crate) fn install(&self, models: &Path, name: &str, version: u32) -> Result<PathBuf> {
        let folder = models.join(name).join(version.to_string());
        std::fs::create_dir_all(&folder)?;
        let path = folder.join("model.onnx");
        std::fs::write(&path, &self.model)?;
        let old = SystemTime::now() - Duration::from_secs(3_600);
        for path in [&path, &folder] {
            File::open(path)?.set_modified(old)?;
        }
        Ok(path)
    }

    /// The numbers as little-endian bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// The numbers as JSON lists nested as the shape says, or as one list.
    pub(crate) fn json(&self, nested: bool) -> String {
        let dims = if nested { &self.shape[..] } else { &[] };
        let flat = [self.values.len()];
        let mut text = String::new();
        write_list(&mut text, if nested { dims } else { &flat }, &self.values);
        text
    }
}

/// Between 0 and 1, spread without a pattern, and with seven digits after the point, as a picture's pixels are
/// written.
fn value(index: usize) -> f32 {
    let mixed = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let short = mixed % 9_999_999;
    (short as f64 / 1e7) as f32
}

fn write_list(text: &mut String, dims: &[usize], values: &[f32]) {
    let Some((n, rest)) = dims.split_first() else {
        *text += &format!("{:.7}", values[0]);
        return;
    };
    text.push('[');
    for (index, part) in values.chunks(values.len() / n).enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_list(text, rest, part);
    }
    text.push(']');
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_a_megabyte_and_a_half_of_text() {
        let picture = Subject::picture();
        assert_eq!(picture.bytes().len(), 602_112);
        for nested in [true, false] {
            let text = picture.json(nested);
            assert!((1_500_000..1_900_000).contains(&text.len()), "{}", text.len());
            assert_eq!(text.matches(',').count(), 150_527);
        }
    }

    #[test]
    fn lists_nest_as_the_shape_says() {
        let mut text = String::new();
        write_list(&mut text, &[2, 1, 2], &[0.0, 0.5, 1.0, 0.25]);
        assert_eq!(text, "[[[0.0000000,0.5000000]],[[1.0000000,0.2500000]]]");
    }
}
