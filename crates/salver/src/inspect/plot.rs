//! A drawing of a network: operators as boxes with their names and shapes, from top to bottom.

use std::collections::HashMap;

use anyhow::bail;
use layout::backends::svg::SVGWriter;
use layout::core::base::Orientation;
use layout::core::color::Color;
use layout::core::geometry::Point;
use layout::core::style::StyleAttr;
use layout::std_shapes::shapes::{Arrow, Element, ShapeKind};
use layout::topo::layout::VisualGraph;
use salver_graph::{Dim, Graph, Value, ValueId};

/// More nodes than this make a picture that nobody can read, and take minutes to lay out.
const MAX_NODES: usize = 1500;

/// Characters of a name that are shown.
const MAX_NAME: usize = 40;

const FONT: usize = 13;

/// Draws the graph's outermost block.
///
/// # Errors
/// When it has too many nodes to be drawn.
pub(super) fn svg(graph: &Graph) -> anyhow::Result<String> {
    let nodes = &graph.body().nodes;
    if nodes.len() > MAX_NODES {
        bail!("the network has {} nodes, too many for a drawing (bound: {MAX_NODES})", nodes.len());
    }
    let mut picture = VisualGraph::new(Orientation::TopToBottom);
    let mut makers = HashMap::new();
    for &id in graph.inputs() {
        let label = format!("input {}\n{}", short(&graph.value(id).name), shape(graph.value(id)));
        makers.insert(id, picture.add_node(element(&label, Kind::End)));
    }
    for node in nodes {
        let given = node.outputs.first().map_or_else(String::new, |&id| shape(graph.value(id)));
        let label = format!("{}  {}\n{given}", node.full_op(), short(&node.name));
        let kind = if node.domain.is_empty() { Kind::Engine } else { Kind::Host };
        let drawn = picture.add_node(element(&label, kind));
        let mut from: Vec<ValueId> = graph.used_by(node);
        from.retain(|id| makers.contains_key(id));
        let mut sources: Vec<_> = from.iter().map(|id| makers[id]).collect();
        sources.dedup();
        sources.into_iter().for_each(|source| picture.add_edge(Arrow::simple(""), source, drawn));
        node.outputs.iter().for_each(|&id| {
            makers.insert(id, drawn);
        });
    }
    for (name, id) in graph.outputs() {
        let Some(&source) = makers.get(&id) else { continue };
        let end = picture.add_node(element(&format!("output {}", short(name)), Kind::End));
        picture.add_edge(Arrow::simple(""), source, end);
    }
    let mut writer = SVGWriter::new();
    picture.do_it(false, false, false, &mut writer);
    Ok(writer.finalize())
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    End,
    Engine,
    Host,
}

fn element(label: &str, kind: Kind) -> Element {
    let fill = match kind {
        Kind::End => "#fff3d6",
        Kind::Engine => "#e6f0fa",
        Kind::Host => "#f6e3ee",
    };
    let color = |text| Color::fast(text);
    let style = StyleAttr::new(color("#445566"), 1, Some(color(fill)), 4, FONT);
    let lines: Vec<&str> = label.lines().collect();
    let widest = lines.iter().map(|line| line.chars().count()).max().unwrap_or(1);
    // The font is wider than it is said to be in some viewers, so the boxes are roomy.
    let size =
        Point::new(widest as f64 * FONT as f64 * 0.62 + 16.0, lines.len() as f64 * FONT as f64 * 1.5 + 10.0);
    Element::create(ShapeKind::new_box(label), style, Orientation::TopToBottom, size)
}

/// The end of a name, which tells more than its start.
fn short(name: &str) -> String {
    let n = name.chars().count();
    if n <= MAX_NAME {
        return name.to_owned();
    }
    let end: String = name.chars().skip(n - MAX_NAME + 3).collect();
    format!("...{end}")
}

fn shape(value: &Value) -> String {
    let dims = value.dims.as_ref().map(|dims| dims.iter().map(Dim::to_string).collect::<Vec<_>>().join(","));
    format!("{} [{}]", value.dtype, dims.unwrap_or_else(|| "?".into()))
}
