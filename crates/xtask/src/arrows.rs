//! Compares the table of rooms and arrows in ARCHITECTURE.md with the dependencies of the crates, both ways.
//!
//! The table's columns are `room | may use | must never know`. `-` is no room, `all` any room; a room in
//! parentheses may be used and need not be. An item of the last column that is the name of a room or of a crate
//! must not be among the room's dependencies, however far down.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

use crate::place::Place;

const PREFIX: &str = "salver-";

/// One row of the table.
#[derive(Debug, Default, PartialEq, Eq)]
struct Row {
    required: BTreeSet<String>,
    permitted: BTreeSet<String>,
    all: bool,
    never: BTreeSet<String>,
}

/// What `cargo metadata` says of one room: the rooms it uses directly, and all packages below it.
#[derive(Debug, Default)]
struct Used {
    rooms: BTreeSet<String>,
    below: BTreeSet<String>,
}

/// Fails with one line per difference.
pub(crate) fn check(place: &Place) -> Result<()> {
    let path = place.root.join("ARCHITECTURE.md");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let wrong = differences(&table(&text)?, &workspace(&place.root)?);
    if !wrong.is_empty() {
        bail!("ARCHITECTURE.md and the crates differ:\n  {}", wrong.join("\n  "));
    }
    Ok(())
}

fn table(text: &str) -> Result<BTreeMap<String, Row>> {
    let mut lines = text.lines().map(cells).skip_while(|cells| !is_head(cells)).skip(2).peekable();
    if lines.peek().is_none() {
        bail!("no table with the head `| room | may use | must never know |`");
    }
    let rows: Vec<_> = lines.take_while(|cells| cells.len() == 3).collect();
    let names: BTreeSet<String> = rows.iter().flat_map(|cells| rooms_of(cells)).collect();
    let mut table = BTreeMap::new();
    for cells in &rows {
        for room in rooms_of(cells) {
            if table.insert(room.clone(), row(&cells[1], &cells[2], &names)).is_some() {
                bail!("room {room} has two rows");
            }
        }
    }
    Ok(table)
}

fn cells(line: &str) -> Vec<String> {
    let line = line.trim();
    let Some(inner) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
        return Vec::new();
    };
    inner.split('|').map(|cell| cell.replace('`', "").trim().to_owned()).collect()
}

fn is_head(cells: &[String]) -> bool {
    cells == ["room", "may use", "must never know"]
}

fn rooms_of(cells: &[String]) -> Vec<String> {
    let (outside, _) = parentheses(&cells[0]);
    items(&outside)
}

fn row(may_use: &str, never: &str, names: &BTreeSet<String>) -> Row {
    let (outside, inside) = parentheses(may_use);
    let mut required: BTreeSet<String> = items(&outside).into_iter().collect();
    let all = required.remove("all");
    let permitted = words(&inside).filter(|word| names.contains(word)).collect();
    Row { required, permitted, all, never: items(never).into_iter().collect() }
}

/// The text outside of parentheses, and the text inside of them.
fn parentheses(text: &str) -> (String, String) {
    let (mut outside, mut inside, mut within) = (String::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '(' => within = true,
            ')' => within = false,
            _ if within => inside.push(c),
            _ => outside.push(c),
        }
        if c == ')' {
            inside.push(' ');
        }
    }
    (outside, inside)
}

fn items(text: &str) -> Vec<String> {
    let items = text.split([',', ';']).map(|item| item.trim().to_lowercase());
    items.filter(|item| !item.is_empty() && item != "-").collect()
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric() && c != '-').map(str::to_lowercase)
}

fn workspace(root: &Path) -> Result<BTreeMap<String, Used>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .other_options(["--locked".to_owned(), "--all-features".to_owned()])
        .exec()
        .context("cargo metadata failed")?;
    let rooms = metadata.workspace_packages();
    Ok(rooms.into_iter().map(|package| (room(&package.name).to_owned(), used(&metadata, package))).collect())
}

fn room(package: &str) -> &str {
    package.strip_prefix(PREFIX).unwrap_or(package)
}

fn used(metadata: &Metadata, package: &Package) -> Used {
    let direct =
        package.dependencies.iter().filter(|d| d.path.is_some() && d.kind != DependencyKind::Development);
    Used {
        rooms: direct.map(|dependency| room(&dependency.name).to_owned()).collect(),
        below: below(metadata, &package.id),
    }
}

/// The names of all packages that a package links or runs at build time, at any depth.
fn below(metadata: &Metadata, from: &PackageId) -> BTreeSet<String> {
    let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
    let nodes: BTreeMap<&PackageId, _> = nodes.map(|node| (&node.id, node)).collect();
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(id) = open.pop() {
        let Some(node) = nodes.get(id) else { continue };
        for dependency in &node.deps {
            let linked = dependency.dep_kinds.iter().any(|kind| kind.kind != DependencyKind::Development);
            if linked && found.insert(&dependency.pkg) {
                open.push(&dependency.pkg);
            }
        }
    }
    found.into_iter().map(|id| room(&metadata[id].name).to_owned()).collect()
}

fn differences(table: &BTreeMap<String, Row>, crates: &BTreeMap<String, Used>) -> Vec<String> {
    let mut wrong = Vec::new();
    for room in table.keys().filter(|room| !crates.contains_key(*room)) {
        wrong.push(format!("{room}: in the table, but no crate"));
    }
    for (room, used) in crates {
        match table.get(room) {
            None => wrong.push(format!("{room}: a crate, but not in the table")),
            Some(row) => wrong.extend(of_room(row, used).map(|text| format!("{room}: {text}"))),
        }
    }
    wrong
}

fn of_room(row: &Row, used: &Used) -> impl Iterator<Item = String> {
    let undeclared = used
        .rooms
        .iter()
        .filter(|to| !row.all && !row.required.contains(*to) && !row.permitted.contains(*to))
        .map(|to| format!("uses {to}, which the table does not allow"));
    let unused = row
        .required
        .iter()
        .filter(|to| !used.rooms.contains(*to))
        .map(|to| format!("does not use {to}, which the table allows"));
    let known = row
        .never
        .iter()
        .filter(|name| used.below.contains(*name))
        .map(|name| format!("depends on {name}, which it must never know"));
    undeclared.chain(unused).chain(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
text before
| room | may use | must never know |
|---|---|---|
| `tensor` | - | models, serde, tokio |
| engine | tensor | async |
| engine-a, engine-b | engine (tensor where it needs it) | queues |
| salver | all | - |

text after
";

    fn crates(list: &[(&str, &[&str], &[&str])]) -> BTreeMap<String, Used> {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        list.iter()
            .map(|(room, rooms, below)| ((*room).to_owned(), Used { rooms: set(rooms), below: set(below) }))
            .collect()
    }

    #[track_caller]
    fn check(list: &[(&str, &[&str], &[&str])], expected: &[&str]) {
        let table = table(TABLE).expect("the table is well formed");
        assert_eq!(differences(&table, &crates(list)), expected);
    }

    #[test]
    fn both_directions_are_compared() {
        let engines: [(&str, &[&str], &[&str]); 2] =
            [("engine-a", &["engine", "tensor"], &[]), ("engine-b", &["engine"], &[])];
        let salver: (&str, &[&str], &[&str]) = ("salver", &["engine-b", "tensor"], &["tokio"]);
        let tensor: (&str, &[&str], &[&str]) = ("tensor", &[], &["bytes"]);
        let engine: (&str, &[&str], &[&str]) = ("engine", &["tensor"], &["tensor"]);

        check(&[tensor, engine, engines[0], engines[1], salver], &[]);
        check(
            &[("tensor", &["engine"], &["serde"]), ("engine", &[], &[]), engines[0], engines[1], salver],
            &[
                "engine: does not use tensor, which the table allows",
                "tensor: uses engine, which the table does not allow",
                "tensor: depends on serde, which it must never know",
            ],
        );
        check(
            &[tensor, engine, engines[0], engines[1], ("stream", &[], &[])],
            &["salver: in the table, but no crate", "stream: a crate, but not in the table"],
        );
    }

    #[test]
    fn a_broken_table_is_refused() {
        assert!(table("| room | may use |\n|---|---|\n").is_err());
        let twice =
            format!("{}| tensor | - | - |\n", TABLE.split("\n\n").next().expect("the table comes first"))
                .replace("| salver | all | - |", "| salver | all | - |\n");
        assert!(table(&twice).expect_err("two rows").to_string().contains("tensor"));
    }

    #[test]
    fn the_table_is_true() {
        let place = Place::find().expect("the workspace is above this crate");
        if let Err(error) = super::check(&place) {
            panic!("{error:#}");
        }
    }
}
