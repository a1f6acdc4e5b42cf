//! What OpenVINO says of a failure, as far as it may be shown.
//!
//! Its last message is one for the whole process, so that it may be about another model and another client's request. It is
//! shown only if it names a node of the model that failed.

use std::collections::HashSet;

use salver_graph::onnx::proto::GraphProto;

use crate::sys::Failure;

/// How many characters of a message are shown.
const MAX_SHOWN: usize = 2000;

/// What stands around the name of a node in OpenVINO's messages.
const AROUND: &[(&str, &str)] = &[("with name '", "'"), ("Node ", " of type"), ("node '", "'")];

/// The names of a model's nodes and of what they compute.
#[derive(Debug, Default)]
pub(crate) struct Names(HashSet<String>);

impl Names {
    pub(crate) fn of(graph: &GraphProto) -> Names {
        fn collect(graph: &GraphProto, names: &mut HashSet<String>) {
            for node in &graph.node {
                names.insert(node.name().to_owned());
                names.extend(node.output.iter().cloned());
                node.attribute.iter().filter_map(|it| it.g.as_ref()).for_each(|it| collect(it, names));
            }
        }
        let mut names = HashSet::new();
        collect(graph, &mut names);
        names.remove("");
        Names(names)
    }

    /// `what` failed, and what OpenVINO says of it if that is about this model.
    pub(crate) fn told(&self, what: &str, failure: &Failure) -> String {
        if self.is_about(&failure.message) {
            format!("{what}: {}", cleaned(&failure.message))
        } else {
            what.to_owned()
        }
    }

    fn is_about(&self, message: &str) -> bool {
        let named = AROUND.iter().flat_map(|(before, after)| {
            let places = message.match_indices(before).map(|(at, _)| &message[at + before.len()..]);
            places.filter_map(move |rest| rest.find(after).map(|end| &rest[..end]))
        });
        // Such as `opset1::Reshape NAME (...)`, where the operator stands before it.
        named.into_iter().any(|name| {
            self.0.contains(name)
                || name.split([' ', '(']).any(|word| name.contains("::") && self.0.contains(word))
        })
    }
}

/// A message in one line, without the places in OpenVINO's source code.
fn cleaned(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = without(&without(&line, "Exception from "), "Check '");
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    line.trim_end_matches([':', ' ']).chars().take(MAX_SHOWN).collect()
}

/// The text without what begins so and ends in a place in a source file: `.cpp:12:`.
fn without(text: &str, start: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(start) {
        let Some(length) = place_end(&rest[at..]) else { break };
        kept.push_str(&rest[..at]);
        rest = &rest[at + length..];
    }
    kept + rest
}

/// Where the first `:12:` or `:12` at the end of a word ends.
fn place_end(text: &str) -> Option<usize> {
    text.match_indices(':').find_map(|(at, _)| {
        let after = &text[at + 1..];
        let n_digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let end = at + 1 + n_digits;
        let rest = &text[end..];
        let is_place = n_digits > 0 && (rest.is_empty() || rest.starts_with([':', ' ']));
        is_place.then(|| end + usize::from(rest.starts_with(':')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_shown_where_they_are_about_the_model() {
        let names = Names(HashSet::from(["y".to_owned(), "net/add".to_owned()]));
        let check = |message: &str| names.told("it failed", &Failure { message: message.to_owned() });
        for (message, expected) in [
            ("Node y of type Gather; out of range", "it failed: Node y of type Gather; out of range"),
            ("Node z of type Gather; out of range", "it failed"),
            ("", "it failed"),
            (
                "Exception from src/inference/src/a.cpp:121:\nException from src/b.cpp:44:\n[CPU] Reshape node \
                 with name 'y' Check 'a::b <= 1 && c' failed at src/plugins/x.cpp:12:\n[cpu] no\n\n",
                "it failed: [CPU] Reshape node with name 'y' [cpu] no",
            ),
            (
                "While validating node 'opset1::Add net/add (opset1::A x[0]:f32[2]) -> ()': wrong",
                "it failed: While validating node 'opset1::Add net/add (opset1::A x[0]:f32[2]) -> ()': wrong",
            ),
            ("[CPU] Reshape node with name 'yy' Check 'y' failed", "it failed"),
        ] {
            assert_eq!(check(message), expected, "{message}");
        }
    }
}
