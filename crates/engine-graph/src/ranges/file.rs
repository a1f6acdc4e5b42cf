//! The ranges file: JSON with a version, and for each signature what the graph was and `[min, max]` by name of value.

use std::collections::BTreeMap;
use std::path::Path;

use salver_engine::{Error, ErrorKind};
use salver_graph::Range;
use serde::{Deserialize, Serialize};

use super::Ranges;
use crate::read;

/// The version of the file's form that is written, and the only one that is read.
const VERSION: u32 = 1;

/// The largest file that is read; that of a network of a million nodes is smaller.
const MAX_BYTES: usize = 1 << 28;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// What the file is, for people.
    about: String,
    version: u32,
    signatures: BTreeMap<String, Signature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    /// [`salver_graph::fingerprint`] in hexadecimal.
    fingerprint: String,
    ranges: BTreeMap<String, [f32; 2]>,
}

pub(super) fn to_json(ranges: &Ranges) -> String {
    let signature = |ranges: &salver_graph::Ranges| Signature {
        fingerprint: format!("{:032x}", ranges.fingerprint),
        // JSON has no infinity; a value without a range stays in floats just so.
        ranges: ranges
            .values
            .iter()
            .filter(|(_, range)| range.min.is_finite() && range.max.is_finite())
            .map(|(name, range)| (name.clone(), [range.min, range.max]))
            .collect(),
    };
    let file = File {
        about: "ranges that the values of a model took, for int8; made by salver tune".to_owned(),
        version: VERSION,
        signatures: ranges.signatures.iter().map(|(name, of)| (name.clone(), signature(of))).collect(),
    };
    let mut text = serde_json::to_string_pretty(&file).expect("names and finite numbers have a form in JSON");
    text.push('\n');
    text
}

pub(super) fn from_json(text: &[u8]) -> Result<Ranges, Error> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let refuse = |why: String| Error::new(ErrorKind::InvalidModel, format!("not a file of ranges: {why}"));
    if text.len() > MAX_BYTES {
        return Err(refuse(format!("it has {} bytes, more than {MAX_BYTES}", text.len())));
    }
    let Version { version } = serde_json::from_slice(text).map_err(|error| refuse(error.to_string()))?;
    if version != VERSION {
        return Err(refuse(format!("it is of version {version}, expected {VERSION}")));
    }
    let file: File = serde_json::from_slice(text).map_err(|error| refuse(error.to_string()))?;
    let signature = |(name, signature): (String, Signature)| {
        let fingerprint = u128::from_str_radix(&signature.fingerprint, 16);
        let fingerprint =
            fingerprint.map_err(|_| refuse(format!("'{}' is not a fingerprint", signature.fingerprint)))?;
        let ranges = signature.ranges.into_iter();
        let values = ranges.map(|(name, [min, max])| (name, Range { min, max })).collect();
        Ok((name, salver_graph::Ranges { fingerprint, values }))
    };
    let signatures = file.signatures.into_iter().map(signature).collect::<Result<_, Error>>()?;
    Ok(Ranges { signatures })
}

pub(super) fn read(path: &Path) -> Result<Ranges, Error> {
    from_json(&read::file(path)?).map_err(|error| read::in_source(path, error))
}
