//! A chart as SVG.

use std::fmt::{Arguments, Write};

use crate::axis::Scale;
use crate::chart::{Chart, Form, Reference, Series};
use crate::text::{cut, escape, width};

/// Colours that most people can tell apart, by Okabe and Ito (Color universal design, 2008), on light and dark ground.
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#8c6bb1", "#777777"];

const STYLE: &str = "\
.sp text{font:13px system-ui,sans-serif;fill:#333}.sp .small{font-size:12px;fill:#666}\
.sp .title{font-size:16px;font-weight:600}.sp .ground{fill:#fff}.sp .grid{stroke:#e3e3e3}\
.sp .axis{stroke:#888;fill:none}.sp .ref{stroke:#666;stroke-dasharray:6 4}\
.sp .note{font-size:12px;fill:#555;paint-order:stroke;stroke:#fff;stroke-width:4px}\
@media(prefers-color-scheme:dark){.sp text{fill:#ddd}.sp .small{fill:#aaa}.sp .ground{fill:#1b1d20}\
.sp .grid{stroke:#34373b}.sp .ref{stroke:#aaa}.sp .note{fill:#bbb;stroke:#1b1d20}}";

/// With more points than this, a line is drawn without them.
const MAX_SHOWN_POINTS: usize = 40;
const MAX_NAME: usize = 60;
const LINE: f64 = 20.0;

struct Picture<'a> {
    chart: &'a Chart,
    x: Scale,
    y: Scale,
    left: f64,
    top: f64,
    width: f64,
    height: f64,
    out: String,
}

pub(crate) fn svg(chart: &Chart) -> String {
    let mut picture = Picture::new(chart);
    let (width, height) = (chart.width, chart.height);
    picture.line(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"sp\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\">\n<title>{}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"ground\" width=\"{width}\" height=\"{height}\"/>",
        escape(&cut(&chart.title, 2 * MAX_NAME)),
    ));
    picture.titles();
    picture.grid();
    picture.data();
    picture.references();
    picture.out.push_str("</svg>\n");
    picture.out
}

impl<'a> Picture<'a> {
    fn new(chart: &'a Chart) -> Picture<'a> {
        let points = || chart.series.iter().flat_map(|series| series.points.iter().copied());
        let along = |is_horizontal: bool| {
            let fitting = move |one: &&Reference| one.is_horizontal == is_horizontal;
            chart.references.iter().filter(fitting).map(|one| one.value)
        };
        let x = chart.x.scale(points().map(|point| point.0).chain(along(false)));
        let y = chart.y.scale(points().map(|point| point.1).chain(along(true)));
        let left = 78.0;
        let mut picture = Picture {
            chart,
            x,
            y,
            left,
            top: 0.0,
            width: f64::from(chart.width) - left - 24.0,
            height: 0.0,
            out: String::new(),
        };
        let n_legend = picture.legend_places().last().map_or(0.0, |(_, row)| row + 1.0);
        picture.top = 40.0 + LINE * (chart.subtitles.len() as f64 + n_legend);
        picture.height = (f64::from(chart.height) - picture.top - 58.0).max(40.0);
        picture
    }

    fn line(&mut self, text: Arguments<'_>) {
        writeln!(self.out, "{text}").expect("writing to a string does not fail");
    }

    fn colour(&self, at: usize) -> &'static str {
        let number = self.chart.series.get(at).and_then(|series| series.colour).unwrap_or(at);
        COLOURS[number % COLOURS.len()]
    }

    /// Offset and row of each series in the legend.
    fn legend_places(&self) -> Vec<(f64, f64)> {
        let (mut x, mut row) = (0.0, 0.0);
        let mut places = Vec::new();
        for series in self.chart.series.iter().filter(|_| self.has_legend()) {
            let needed = 44.0 + width(&cut(&series.name, MAX_NAME));
            if x > 0.0 && x + needed > self.width {
                (x, row) = (0.0, row + 1.0);
            }
            places.push((x, row));
            x += needed;
        }
        places
    }

    /// One series without a name needs none.
    fn has_legend(&self) -> bool {
        self.chart.series.iter().any(|series| !series.name.is_empty())
    }

    fn titles(&mut self) {
        let chart = self.chart;
        let left = self.left;
        let title = escape(&cut(&chart.title, 2 * MAX_NAME));
        self.line(format_args!("<text class=\"title\" x=\"{left}\" y=\"26\">{title}</text>"));
        let mut y = 26.0;
        for text in &chart.subtitles {
            y += LINE;
            let text = escape(&cut(text, 2 * MAX_NAME));
            self.line(format_args!("<text class=\"small\" x=\"{left}\" y=\"{y}\">{text}</text>"));
        }
        y += LINE + 2.0;
        for (at, (x, row)) in self.legend_places().into_iter().enumerate() {
            let (x, y, colour) = (left + x, y + LINE * row, self.colour(at));
            let series = &chart.series[at];
            let middle = y - 4.5;
            match series.form {
                Form::Area => self.line(format_args!(
                    "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"22\" height=\"11\" fill=\"{colour}\" fill-opacity=\".7\"/>",
                    y - 10.0
                )),
                Form::Points => self.point(x + 11.0, middle, colour, ""),
                form => self.line(format_args!(
                    "<path d=\"M{x:.1} {middle:.1}h22\" stroke=\"{colour}\" stroke-width=\"2\"{}/>",
                    dashes(form)
                )),
            }
            let name = escape(&cut(&series.name, MAX_NAME));
            self.line(format_args!("<text x=\"{:.1}\" y=\"{y}\">{name}</text>", x + 28.0));
        }
    }

    fn grid(&mut self) {
        let (left, top, right, bottom) =
            (self.left, self.top, self.left + self.width, self.top + self.height);
        let mut free = f64::NEG_INFINITY;
        for (mark, text) in self.x.marks((self.width / 90.0) as usize) {
            let x = left + self.x.inside(mark) * self.width;
            self.line(format_args!("<path class=\"grid\" d=\"M{x:.1} {bottom:.1}V{top:.1}\"/>"));
            let half = width(&text) / 2.0;
            // A text that would touch the one before is left out.
            if x - half < free {
                continue;
            }
            free = x + half + 6.0;
            let (text, y) = (escape(&text), bottom + 20.0);
            self.line(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{text}</text>"));
        }
        for (mark, text) in self.y.marks((self.height / 50.0) as usize) {
            let y = bottom - self.y.inside(mark) * self.height;
            self.line(format_args!("<path class=\"grid\" d=\"M{left} {y:.1}H{right:.1}\"/>"));
            let (text, x, y) = (escape(&text), left - 8.0, y + 4.5);
            self.line(format_args!("<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{text}</text>"));
        }
        self.line(format_args!("<path class=\"axis\" d=\"M{left} {top:.1}V{bottom:.1}H{right:.1}\"/>"));
        let (x, y) =
            (escape(&cut(&self.chart.x.title, MAX_NAME)), escape(&cut(&self.chart.y.title, MAX_NAME)));
        let (middle, under) = (left + self.width / 2.0, f64::from(self.chart.height) - 14.0);
        self.line(format_args!("<text x=\"{middle:.1}\" y=\"{under}\" text-anchor=\"middle\">{x}</text>"));
        let centre = top + self.height / 2.0;
        self.line(format_args!(
            "<text transform=\"translate(20 {centre:.1}) rotate(-90)\" text-anchor=\"middle\">{y}</text>"
        ));
    }

    /// What is drawn inside of the axes; an inner `svg` cuts off what lies outside.
    fn data(&mut self) {
        let (x, y, width, height) = (self.left, self.top, self.width, self.height);
        self.line(format_args!("<svg x=\"{x}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\">"));
        let chart = self.chart;
        let areas = |one: &(usize, &Series)| one.1.form != Form::Area;
        let mut series: Vec<(usize, &Series)> = chart.series.iter().enumerate().collect();
        series.sort_by_key(areas);
        for (at, series) in series {
            let colour = self.colour(at);
            for piece in pieces(&series.points) {
                self.piece(series, piece, colour);
            }
        }
        self.line(format_args!("</svg>"));
    }

    fn at(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        Some((self.x.place(x)? * self.width, (1.0 - self.y.place(y)?) * self.height))
    }

    fn piece(&mut self, series: &Series, range: std::ops::Range<usize>, colour: &str) {
        let points = &series.points[range.clone()];
        let path = self.path(points.iter().copied());
        match series.form {
            Form::Area => {
                let low = self.y.low();
                let floor = |at: usize| series.floor.get(at).copied().unwrap_or(low);
                let back = range.rev().map(|at| (series.points[at].0, floor(at)));
                let below = self.path(back);
                self.line(format_args!(
                    "<polygon points=\"{path} {below}\" fill=\"{colour}\" fill-opacity=\".7\"/>"
                ));
                return;
            }
            Form::Line | Form::Dashed => self.line(format_args!(
                "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" \
                 stroke-linejoin=\"round\"{}/>",
                dashes(series.form)
            )),
            Form::Points => {}
        }
        if series.form == Form::Points || series.points.len() <= MAX_SHOWN_POINTS {
            for point in points {
                let Some((x, y)) = self.at(*point) else { continue };
                let text =
                    format!("{}: {}, {}", cut(&series.name, MAX_NAME), figure(point.0), figure(point.1));
                self.point(x, y, colour, &format!("<title>{}</title>", escape(&text)));
            }
        }
    }

    fn path(&self, points: impl Iterator<Item = (f64, f64)>) -> String {
        let places = points.filter_map(|point| self.at(point));
        places.map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ")
    }

    fn point(&mut self, x: f64, y: f64, colour: &str, inside: &str) {
        self.line(format_args!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\">{inside}</circle>"
        ));
    }

    fn references(&mut self) {
        let (left, top, right, bottom) =
            (self.left, self.top, self.left + self.width, self.top + self.height);
        for one in &self.chart.references {
            let scale = if one.is_horizontal { &self.y } else { &self.x };
            let Some(place) = scale.place(one.value).filter(|place| (0.0..=1.0).contains(place)) else {
                continue;
            };
            let name = escape(&cut(&one.name, MAX_NAME));
            if one.is_horizontal {
                let y = bottom - place * self.height;
                self.line(format_args!("<path class=\"ref\" d=\"M{left} {y:.1}H{right:.1}\"/>"));
                let (x, y) = (right - 6.0, y - 5.0);
                self.line(format_args!(
                    "<text class=\"note\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{name}</text>"
                ));
            } else {
                let x = left + place * self.width;
                self.line(format_args!("<path class=\"ref\" d=\"M{x:.1} {bottom:.1}V{top:.1}\"/>"));
                let is_right = place > 0.8;
                let (x, anchor) = if is_right { (x - 5.0, "end") } else { (x + 5.0, "start") };
                let y = top + 14.0;
                self.line(format_args!(
                    "<text class=\"note\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{name}</text>"
                ));
            }
        }
    }
}

fn dashes(form: Form) -> &'static str {
    if form == Form::Dashed { " stroke-dasharray=\"7 4\"" } else { "" }
}

/// Four significant digits for a note at a point.
fn figure(value: f64) -> String {
    let digits = if value == 0.0 { 0 } else { (3 - value.abs().log10().floor() as i32).clamp(0, 9) };
    format!("{value:.*}", usize::try_from(digits).unwrap_or(0))
}

/// The runs of points that are finite.
fn pieces(points: &[(f64, f64)]) -> Vec<std::ops::Range<usize>> {
    let is_fair = |at: &usize| points[*at].0.is_finite() && points[*at].1.is_finite();
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < points.len() {
        let end = (at..points.len()).find(|at| !is_fair(at)).unwrap_or(points.len());
        if end > at {
            pieces.push(at..end);
        }
        at = end + 1;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Axis;

    /// Every element that is opened is closed, in order.
    fn is_well_formed(svg: &str) -> bool {
        let mut open = Vec::new();
        let mut rest = svg;
        while let Some(start) = rest.find('<') {
            let Some(end) = rest[start..].find('>') else { return false };
            let tag = &rest[start + 1..start + end];
            rest = &rest[start + end + 1..];
            match tag.strip_prefix('/') {
                Some(name) if open.pop() != Some(name) => return false,
                Some(_) => {}
                None if tag.ends_with('/') => {}
                None => open.push(tag.split(' ').next().unwrap_or_default()),
            }
        }
        open.is_empty()
    }

    #[test]
    fn a_chart_shows_its_parts() {
        let svg = Chart::new("Title & more", Axis::linear("load"), Axis::log("p99"))
            .subtitle("below")
            .series(Series::new("one", vec![(1.0, 1.0), (2.0, 5.0), (3.0, f64::NAN), (4.0, 9.0)]))
            .series(Series::new("<two>", vec![(1.0, 2.0), (4.0, 3.0)]).dashed())
            .stack([Series::new("area", vec![(1.0, 1.0), (4.0, 1.0)])])
            .reference(Reference::horizontal(4.0, "goal"))
            .reference(Reference::vertical(2.0, "capacity"))
            .svg();
        assert!(is_well_formed(&svg), "{svg}");
        for part in [
            "Title &amp; more",
            "below",
            "&lt;two&gt;",
            "stroke-dasharray=\"7 4\"",
            "goal",
            "capacity",
            "<polygon",
        ] {
            assert!(svg.contains(part), "{part} in {svg}");
        }
        let n = |part: &str| svg.matches(part).count();
        // The gap makes two lines of the first series.
        assert_eq!((n("<polyline"), n("class=\"ref\"")), (3, 2));
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn pieces_are_the_finite_runs() {
        let check = |ys: &[f64], expected: &[std::ops::Range<usize>]| {
            let points: Vec<(f64, f64)> = ys.iter().map(|y| (0.0, *y)).collect();
            assert_eq!(pieces(&points), expected, "{ys:?}");
        };
        check(&[], &[]);
        check(&[f64::NAN, 1.0, f64::INFINITY, 2.0, 3.0], &[1..2, 3..5]);
    }

    proptest! {
        #[test]
        fn any_numbers_and_names_give_a_drawing(
            points in prop::collection::vec((any::<f64>(), any::<f64>()), 0..6),
            name in any::<String>(),
            value in any::<f64>(),
            is_log: bool,
        ) {
            let axis = if is_log { Axis::log } else { Axis::linear };
            let svg = Chart::new(name.clone(), axis(name.clone()), axis("y".to_owned()))
                .series(Series::new(name.clone(), points.clone()))
                .stack([Series::new("a", points.clone()), Series::new("b", points)])
                .reference(Reference::horizontal(value, name))
                .svg();
            prop_assert!(is_well_formed(&svg));
            prop_assert!(!svg.contains("NaN,") && !svg.contains("inf,"));
        }
    }
}
