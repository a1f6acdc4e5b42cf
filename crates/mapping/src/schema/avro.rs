//! Avro schemas: parsed from their JSON, checked, and laid out so that names are places in a list.
//! Source: the Avro specification 1.12, "Schema Declaration", "Names" and "Logical Types".

pub(super) mod read;
pub(super) mod resolve;
pub(super) mod text;
pub(super) mod write;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value as Json;

/// How long the text of a schema may be.
const MAX_TEXT: usize = 8 << 20;
/// How many types a schema may consist of.
const MAX_NODES: usize = 100_000;
/// The largest `fixed`.
const MAX_FIXED: u64 = 1 << 24;

/// A place in [`Avro::nodes`].
pub(super) type At = usize;

/// A schema.
#[derive(Debug, Clone)]
pub(super) struct Avro {
    nodes: Vec<Node>,
    root: At,
}

/// A type. Logical types that change how a value is shown are types of their own; dates, times and timestamps stay the
/// numbers that they are.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    /// A whole number, most significant byte first, of which the last `scale` digits come after the point. Of a fixed
    /// number of bytes, or of any.
    Decimal {
        size: Option<usize>,
        precision: u32,
        scale: u32,
    },
    /// A `uuid` of 16 bytes. One of text is text.
    Uuid,
    /// Months, days and milliseconds.
    Duration,
    Fixed {
        name: Arc<str>,
        size: usize,
    },
    Enum {
        name: Arc<str>,
        symbols: Vec<Arc<str>>,
        default: Option<Arc<str>>,
    },
    Array(At),
    Map(At),
    Union(Vec<At>),
    Record {
        name: Arc<str>,
        aliases: Vec<Arc<str>>,
        fields: Vec<Field>,
    },
}

/// A field of a record.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) name: Arc<str>,
    pub(super) aliases: Vec<Arc<str>>,
    pub(super) node: At,
    pub(super) default: Option<Json>,
}

impl Avro {
    /// Parses a schema after those it refers to. `Err` with what is wrong and where.
    pub(super) fn parse<'a>(
        text: &str,
        references: impl IntoIterator<Item = &'a str>,
    ) -> Result<Avro, String> {
        let mut parser = Parser { nodes: Vec::new(), names: HashMap::new() };
        for reference in references {
            parser.schema(reference)?;
        }
        let root = parser.schema(text)?;
        Ok(Avro { nodes: parser.nodes, root })
    }

    pub(super) fn root(&self) -> At {
        self.root
    }

    /// A type.
    pub(super) fn node(&self, at: At) -> &Node {
        self.nodes.get(at).expect("every place that a schema holds is one of its list")
    }

    /// The name and the fields of a schema that is a record.
    pub(super) fn record(&self) -> Option<(&Arc<str>, &[Field])> {
        match self.node(self.root) {
            Node::Record { name, fields, .. } => Some((name, fields)),
            _ => None,
        }
    }

    /// What a type is, for messages.
    pub(super) fn what(&self, at: At) -> String {
        match self.node(at) {
            Node::Null => "null".into(),
            Node::Boolean => "boolean".into(),
            Node::Int => "int".into(),
            Node::Long => "long".into(),
            Node::Float => "float".into(),
            Node::Double => "double".into(),
            Node::Bytes => "bytes".into(),
            Node::Text => "string".into(),
            Node::Decimal { precision, scale, .. } => format!("decimal({precision}, {scale})"),
            Node::Uuid => "uuid".into(),
            Node::Duration => "duration".into(),
            Node::Fixed { name, size } => format!("fixed `{name}` of {size} bytes"),
            Node::Enum { name, .. } => format!("enum `{name}`"),
            Node::Array(_) => "array".into(),
            Node::Map(_) => "map".into(),
            Node::Union(branches) => format!("a union of {}", branches.len()),
            Node::Record { name, .. } => format!("record `{name}`"),
        }
    }
}

/// A full name without its namespace.
pub(super) fn unqualified(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// Whether text is a name as Avro has them, without a namespace.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

struct Parser {
    nodes: Vec<Node>,
    names: HashMap<String, At>,
}

type Object = serde_json::Map<String, Json>;

impl Parser {
    /// The depth of what follows is bounded by the JSON parser's own bound.
    fn schema(&mut self, text: &str) -> Result<At, String> {
        if text.len() > MAX_TEXT {
            return Err(format!("the schema has {} bytes, expected {MAX_TEXT} at most", text.len()));
        }
        // A schema that is only a name may come without quotes.
        let json = serde_json::from_str(text)
            .or_else(|error| {
                if text.trim().split('.').all(is_name) {
                    Ok(Json::String(text.trim().into()))
                } else {
                    Err(error)
                }
            })
            .map_err(|error| format!("the schema is not JSON: {error}"))?;
        self.parse(&json, "")
    }

    fn parse(&mut self, json: &Json, namespace: &str) -> Result<At, String> {
        match json {
            Json::String(name) => match primitive(name) {
                Some(node) => self.push(node),
                None => self.named(name, namespace),
            },
            Json::Array(branches) => self.union(branches, namespace),
            Json::Object(object) => self.object(object, namespace),
            _ => Err(format!("a type is {json}, expected a name, a list or an object")),
        }
    }

    fn push(&mut self, node: Node) -> Result<At, String> {
        if self.nodes.len() >= MAX_NODES {
            return Err(format!("the schema has more than {MAX_NODES} types"));
        }
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    /// A type that was defined before.
    fn named(&self, name: &str, namespace: &str) -> Result<At, String> {
        let qualified = if name.contains('.') || namespace.is_empty() {
            name.to_owned()
        } else {
            format!("{namespace}.{name}")
        };
        let found = self.names.get(&qualified).or_else(|| self.names.get(name));
        found.copied().ok_or_else(|| {
            format!("type `{qualified}` is not defined, neither in the schema nor in its references")
        })
    }

    fn union(&mut self, branches: &[Json], namespace: &str) -> Result<At, String> {
        let mut places = Vec::with_capacity(branches.len());
        for branch in branches {
            let at = self.parse(branch, namespace)?;
            if matches!(self.nodes.get(at), Some(Node::Union(_))) {
                return Err("a union lies within a union".into());
            }
            places.push(at);
        }
        if places.is_empty() {
            return Err("a union has no branches".into());
        }
        self.push(Node::Union(places))
    }

    fn object(&mut self, object: &Object, namespace: &str) -> Result<At, String> {
        let kind = match object.get("type") {
            Some(Json::String(kind)) => kind.as_str(),
            Some(inner) => return self.parse(inner, namespace),
            None => return Err("a type is an object without `type`".into()),
        };
        match kind {
            "record" | "error" => self.record(object, namespace),
            "enum" => self.enumeration(object, namespace),
            "fixed" => self.fixed(object, namespace),
            "array" => {
                let items = self.parse(object.get("items").ok_or("an array has no `items`")?, namespace)?;
                self.push(Node::Array(items))
            }
            "map" => {
                let values = self.parse(object.get("values").ok_or("a map has no `values`")?, namespace)?;
                self.push(Node::Map(values))
            }
            _ => match primitive(kind) {
                Some(Node::Bytes) if logical(object) == "decimal" => {
                    let node = decimal(object, None).unwrap_or(Node::Bytes);
                    self.push(node)
                }
                Some(node) => self.push(node),
                None => self.named(kind, namespace),
            },
        }
    }

    /// The full name of a definition, its namespace, and its place.
    fn define(&mut self, object: &Object, namespace: &str) -> Result<(Arc<str>, String, At), String> {
        let name = object.get("name").and_then(Json::as_str).ok_or("a named type has no `name`")?;
        let namespace = match (name.rsplit_once('.'), object.get("namespace").and_then(Json::as_str)) {
            (Some((namespace, _)), _) | (None, Some(namespace)) => namespace,
            (None, None) => namespace,
        };
        let full = if namespace.is_empty() {
            unqualified(name).to_owned()
        } else {
            format!("{namespace}.{}", unqualified(name))
        };
        if !full.split('.').all(is_name) {
            return Err(format!("`{full}` is not a name, expected letters, digits and underscores"));
        }
        let at = self.push(Node::Null)?;
        if self.names.insert(full.clone(), at).is_some() {
            return Err(format!("type `{full}` is defined twice"));
        }
        Ok((full.into(), namespace.to_owned(), at))
    }

    fn put(&mut self, at: At, node: Node) {
        *self.nodes.get_mut(at).expect("the place was made by define") = node;
    }

    fn record(&mut self, object: &Object, namespace: &str) -> Result<At, String> {
        let (name, namespace, at) = self.define(object, namespace)?;
        let Some(Json::Array(definitions)) = object.get("fields") else {
            return Err(format!("record `{name}` has no list of `fields`"));
        };
        let mut fields: Vec<Field> = Vec::with_capacity(definitions.len());
        let mut names = HashSet::new();
        for definition in definitions {
            let field =
                self.field(definition, &namespace).map_err(|error| format!("record `{name}`: {error}"))?;
            if !names.insert(Arc::clone(&field.name)) {
                return Err(format!("record `{name}` has two fields `{}`", field.name));
            }
            fields.push(field);
        }
        self.put(at, Node::Record { name, aliases: texts(object.get("aliases")), fields });
        Ok(at)
    }

    fn field(&mut self, definition: &Json, namespace: &str) -> Result<Field, String> {
        let name = definition.get("name").and_then(Json::as_str).ok_or("a field has no `name`")?;
        if !is_name(name) {
            return Err(format!("`{name}` is not a name, expected letters, digits and underscores"));
        }
        let kind = definition.get("type").ok_or_else(|| format!("field `{name}` has no `type`"))?;
        // A logical type beside `type` of a field belongs to nobody; the specification puts it inside.
        let node = self.parse(kind, namespace).map_err(|error| format!("field `{name}`: {error}"))?;
        let default = definition.get("default").cloned();
        Ok(Field { name: name.into(), aliases: texts(definition.get("aliases")), node, default })
    }

    fn enumeration(&mut self, object: &Object, namespace: &str) -> Result<At, String> {
        let (name, _, at) = self.define(object, namespace)?;
        let symbols = texts(object.get("symbols"));
        if symbols.is_empty() {
            return Err(format!("enum `{name}` has no `symbols`"));
        }
        let default = object.get("default").and_then(Json::as_str).map(Arc::from);
        self.put(at, Node::Enum { name, symbols, default });
        Ok(at)
    }

    fn fixed(&mut self, object: &Object, namespace: &str) -> Result<At, String> {
        let (name, _, at) = self.define(object, namespace)?;
        let size = object.get("size").and_then(Json::as_u64).filter(|size| *size <= MAX_FIXED);
        let size = size.and_then(|size| usize::try_from(size).ok());
        let size =
            size.ok_or_else(|| format!("fixed `{name}`: expected a `size` of {MAX_FIXED} bytes at most"))?;
        let node = match logical(object) {
            "decimal" => decimal(object, Some(size)),
            "duration" if size == 12 => Some(Node::Duration),
            "uuid" if size == 16 => Some(Node::Uuid),
            _ => None,
        };
        self.put(at, node.unwrap_or(Node::Fixed { name, size }));
        Ok(at)
    }
}

fn primitive(name: &str) -> Option<Node> {
    Some(match name {
        "null" => Node::Null,
        "boolean" => Node::Boolean,
        "int" => Node::Int,
        "long" => Node::Long,
        "float" => Node::Float,
        "double" => Node::Double,
        "bytes" => Node::Bytes,
        "string" => Node::Text,
        _ => return None,
    })
}

fn logical(object: &Object) -> &str {
    object.get("logicalType").and_then(Json::as_str).unwrap_or_default()
}

/// `None` for one whose numbers are wrong: the specification has readers ignore it.
fn decimal(object: &Object, size: Option<usize>) -> Option<Node> {
    let number = |name: &str| {
        object.get(name).map(|number| number.as_u64().and_then(|number| u32::try_from(number).ok()))
    };
    let precision = number("precision")??;
    let scale = number("scale").unwrap_or(Some(0))?;
    (precision > 0 && scale <= precision).then_some(Node::Decimal { size, precision, scale })
}

fn texts(json: Option<&Json>) -> Vec<Arc<str>> {
    let items = json.and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Json::as_str).map(Arc::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Avro, String> {
        Avro::parse(text, [])
    }

    #[test]
    fn names_are_found_in_their_namespace() {
        let schema = r#"{"type": "record", "name": "a.b.R", "fields": [
            {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["X", "Y"]}},
            {"name": "f", "type": "E"}, {"name": "g", "type": ["null", "a.b.E"]}, {"name": "h", "type": {"type": "E"}},
            {"name": "i", "type": {"type": "record", "name": "N", "namespace": "c", "fields": [
                {"name": "x", "type": {"type": "fixed", "name": "F", "size": 3}}]}},
            {"name": "j", "type": "c.F"}, {"name": "next", "type": ["null", "R"]}]}"#;
        let avro = parse(schema).unwrap();
        let (name, fields) = avro.record().unwrap();
        assert_eq!(&**name, "a.b.R");
        let what: Vec<String> = fields.iter().map(|field| avro.what(field.node)).collect();
        assert_eq!(
            what,
            [
                "enum `a.b.E`",
                "enum `a.b.E`",
                "a union of 2",
                "enum `a.b.E`",
                "record `c.N`",
                "fixed `c.F` of 3 bytes",
                "a union of 2"
            ]
        );
        assert_eq!(fields[0].node, fields[1].node);
    }

    #[test]
    fn references_come_first() {
        let inner = r#"{"type": "record", "name": "x.Inner", "fields": [{"name": "v", "type": "double"}]}"#;
        let outer = r#"{"type": "record", "name": "x.Outer", "fields": [{"name": "i", "type": "Inner"}]}"#;
        let avro = Avro::parse(outer, [inner]).unwrap();
        assert_eq!(avro.what(avro.record().unwrap().1[0].node), "record `x.Inner`");
        assert!(Avro::parse(outer, []).unwrap_err().contains("`x.Inner` is not defined"));
        assert_eq!(Avro::parse("x.Inner", [inner]).unwrap().record().unwrap().0.as_ref(), "x.Inner");
    }

    #[test]
    fn logical_types_that_are_wrong_are_ignored() {
        let check = |text: &str, expected: &str| {
            let avro = parse(text).unwrap();
            assert_eq!(avro.what(avro.root()), expected, "{text}");
        };
        check(r#"{"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}"#, "decimal(6, 2)");
        check(r#"{"type": "bytes", "logicalType": "decimal", "precision": 6}"#, "decimal(6, 0)");
        check(r#"{"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 6}"#, "bytes");
        check(r#"{"type": "bytes", "logicalType": "decimal"}"#, "bytes");
        check(r#"{"type": "long", "logicalType": "timestamp-millis"}"#, "long");
        check(r#"{"type": "string", "logicalType": "uuid"}"#, "string");
        check(r#"{"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}"#, "uuid");
        check(r#"{"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}"#, "duration");
        check(
            r#"{"type": "fixed", "name": "D", "size": 11, "logicalType": "duration"}"#,
            "fixed `D` of 11 bytes",
        );
    }

    #[test]
    fn schemas_that_are_wrong_say_where() {
        let check = |text: &str, expected: &str| {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("{", "not JSON");
        check("3", "expected a name");
        check("{}", "without `type`");
        check(r#""nothing""#, "not defined");
        check("[]", "no branches");
        check(r#"["null", ["int"]]"#, "within a union");
        check(r#"{"type": "array"}"#, "`items`");
        check(r#"{"type": "map"}"#, "`values`");
        check(r#"{"type": "enum", "name": "E"}"#, "`symbols`");
        check(r#"{"type": "fixed", "name": "F", "size": -1}"#, "`size`");
        check(r#"{"type": "fixed", "name": "F", "size": 1e12}"#, "`size`");
        check(r#"{"type": "record", "name": "R"}"#, "`fields`");
        check(
            r#"{"type": "record", "name": "R", "fields": [{"name": "a"}]}"#,
            "record `R`: field `a` has no `type`",
        );
        check(
            r#"{"type": "record", "name": "R", "fields": [{"name": "a/b", "type": "int"}]}"#,
            "`a/b` is not a name",
        );
        check(
            r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}, {"name": "a", "type": "int"}]}"#,
            "two fields `a`",
        );
        check(
            r#"[{"type": "fixed", "name": "F", "size": 1}, {"type": "fixed", "name": "F", "size": 1}]"#,
            "defined twice",
        );
        check(&format!("{}\"int\"{}", "[".repeat(5000), "]".repeat(5000)), "not JSON");
    }
}
