//! `[remote.headers]`: what every request to servers carries, said in the file or kept elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The largest file that a value is read from. Servers take less.
const MAX_BYTES: u64 = 64 << 10;

/// The value of a header, or where it is kept.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::stream) enum Value {
    Text(String),
    /// A variable of the environment.
    Env(String),
    /// A file, without the ends of lines that it ends with.
    File(PathBuf),
}

impl fmt::Debug for Value {
    /// What it is may be secret, where it is kept is not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(_) => f.write_str("(not shown)"),
            Value::Env(name) => f.debug_tuple("Env").field(name).finish(),
            Value::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Elsewhere {
    env: Option<String>,
    file: Option<PathBuf>,
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, { env = \"NAME\" } or { file = \"PATH\" }")
            }

            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value::Text(text.to_owned()))
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Value, M::Error> {
                match Elsewhere::deserialize(MapAccessDeserializer::new(map))? {
                    Elsewhere { env: Some(name), file: None } => Ok(Value::Env(name)),
                    Elsewhere { env: None, file: Some(path) } => Ok(Value::File(path)),
                    _ => Err(M::Error::custom("expected one of env and file")),
                }
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

impl Value {
    fn read(&self, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<String> {
        match self {
            Value::Text(text) => Ok(text.clone()),
            Value::Env(name) => env(name).with_context(|| format!("env names {name}, which is not set")),
            Value::File(path) => {
                let text = start_of(path).with_context(|| format!("cannot read file {}", path.display()))?;
                Ok(text.trim_end_matches(['\r', '\n']).to_owned())
            }
        }
    }
}

fn start_of(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        bail!("more than {MAX_BYTES} bytes");
    }
    Ok(text)
}

/// The headers, which nothing shows and no connection remembers. Reads the files that are named.
///
/// # Errors
/// Names the header, never its value.
pub(super) fn headers(
    said: &BTreeMap<String, Value>,
    env: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in said {
        let key = || format!("remote.headers.{name}");
        let header = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| anyhow::anyhow!("no name of a header"))
            .with_context(key)?;
        let text = value.read(env).with_context(key)?;
        if text.is_empty() {
            bail!("{} is empty", key());
        }
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| anyhow::anyhow!("expected printable ASCII in one line"))
            .with_context(key)?;
        value.set_sensitive(true);
        if headers.insert(header, value).is_some() {
            bail!("{} is said twice: names of headers are the same in capitals", key());
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<HeaderMap, String> {
        let said: BTreeMap<String, Value> =
            toml::from_str(text).map_err(|error| error.message().to_owned())?;
        let env = |name: &str| match name {
            "THERE" => Some("Bearer of-env".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        headers(&said, &env).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn values_come_from_where_they_are_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "Bearer of-file\r\n").unwrap();
        let file = format!("{{ file = '{}' }}", path.display());
        for (value, expected) in [
            ("'Bearer said'", "Bearer said"),
            ("{ env = 'THERE' }", "Bearer of-env"),
            (&file, "Bearer of-file"),
        ] {
            let headers = read(&format!("Authorization = {value}\nx-api-key = 'k'")).unwrap();
            assert_eq!(headers["authorization"], expected);
            assert_eq!(headers.len(), 2);
            assert!(!format!("{headers:?}").contains(expected), "{headers:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_and_not_told() {
        let folder = tempfile::tempdir().unwrap();
        let large = folder.path().join("large");
        std::fs::write(&large, "x".repeat(70_000)).unwrap();
        let large = format!("a = {{ file = '{}' }}", large.display());
        for (text, expected) in [
            ("a = 5", "expected a text, { env = \"NAME\" } or { file = \"PATH\" }"),
            ("a = { evn = 'THERE' }", "unknown field `evn`, expected `env` or `file`"),
            ("a = {}", "expected one of env and file"),
            ("a = { env = 'THERE', file = 'f' }", "expected one of env and file"),
            ("a = { env = 'AWAY' }", "remote.headers.a: env names AWAY, which is not set"),
            ("a = { env = 'EMPTY' }", "remote.headers.a is empty"),
            ("a = { file = '/no/such' }", "remote.headers.a: cannot read file /no/such: No such file"),
            (&large, "more than 65536 bytes"),
            ("'a b' = 'secret'", "remote.headers.a b: no name of a header"),
            ("a = \"secret\\nb: c\"", "remote.headers.a: expected printable ASCII in one line"),
            ("a = 'secret'\nA = 'secret'", "is said twice"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("secret"), "{text}: {error}");
        }
        let said: BTreeMap<String, Value> = toml::from_str("a = 'secret'\nb = { env = 'NAME' }").unwrap();
        assert_eq!(format!("{said:?}"), "{\"a\": (not shown), \"b\": Env(\"NAME\")}");
    }
}
