//! What a chart consists of.

use crate::axis::Axis;
use crate::draw;

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// Points joined by a line; the points themselves are shown where there are few.
    #[default]
    Line,
    /// The same with a dashed line.
    Dashed,
    /// Points only.
    Points,
    /// The ground between the line and the low end of the axis, or the area below in a stack.
    Area,
}

/// A row of points under one name. A point that is not finite breaks the line.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) form: Form,
    pub(crate) colour: Option<usize>,
    /// Where an area ends below, point by point; its axis' low end where there is none.
    pub(crate) floor: Vec<f64>,
}

impl Series {
    /// Points `(x, y)` in the order in which they are joined. Every point takes some ten bytes of the drawing: thin out
    /// what has more than some thousand.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Series {
        Series { name: name.into(), points, form: Form::Line, colour: None, floor: Vec::new() }
    }

    /// In another form.
    #[must_use]
    pub fn form(self, form: Form) -> Series {
        Series { form, ..self }
    }

    /// With a dashed line.
    #[must_use]
    pub fn dashed(self) -> Series {
        self.form(Form::Dashed)
    }

    /// In the colour of this number instead of the next one; so two series can be of one colour, one of them dashed.
    #[must_use]
    pub fn colour(self, number: usize) -> Series {
        Series { colour: Some(number), ..self }
    }
}

/// A dashed line across the picture at one value, with a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    pub(crate) is_horizontal: bool,
    pub(crate) value: f64,
    pub(crate) name: String,
}

impl Reference {
    /// At one value of the upright axis.
    pub fn horizontal(value: f64, name: impl Into<String>) -> Reference {
        Reference { is_horizontal: true, value, name: name.into() }
    }

    /// At one value of the level axis.
    pub fn vertical(value: f64, name: impl Into<String>) -> Reference {
        Reference { is_horizontal: false, value, name: name.into() }
    }
}

/// A picture with two axes and any number of series.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    pub(crate) title: String,
    pub(crate) subtitles: Vec<String>,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
    pub(crate) references: Vec<Reference>,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

impl Chart {
    /// An empty chart of 840 by 480 pixels.
    pub fn new(title: impl Into<String>, x: Axis, y: Axis) -> Chart {
        let (subtitles, series, references) = (Vec::new(), Vec::new(), Vec::new());
        Chart { title: title.into(), subtitles, x, y, series, references, width: 840, height: 480 }
    }

    /// Of another size in pixels, at least 320 by 240.
    #[must_use]
    pub fn size(self, width: u32, height: u32) -> Chart {
        Chart { width: width.max(320), height: height.max(240), ..self }
    }

    /// One more line under the title.
    #[must_use]
    pub fn subtitle(mut self, text: impl Into<String>) -> Chart {
        self.subtitles.push(text.into());
        self
    }

    /// One more series. The first lies below the others.
    #[must_use]
    pub fn series(mut self, series: Series) -> Chart {
        self.series.push(series);
        self
    }

    /// Areas one upon the other: each begins where the one before ends. Their points have the same `x`, point by point.
    #[must_use]
    pub fn stack(mut self, stack: impl IntoIterator<Item = Series>) -> Chart {
        let mut sums: Vec<f64> = Vec::new();
        for mut series in stack {
            sums.resize(sums.len().max(series.points.len()), 0.0);
            series.floor.clone_from(&sums);
            for (point, sum) in series.points.iter_mut().zip(&mut sums) {
                *sum += if point.1.is_finite() { point.1 } else { 0.0 };
                point.1 = *sum;
            }
            self.series.push(series.form(Form::Area));
        }
        self
    }

    /// One more line to compare with.
    #[must_use]
    pub fn reference(mut self, reference: Reference) -> Chart {
        self.references.push(reference);
        self
    }

    /// The drawing: one `svg` element, which is a file by itself and can stand in a page.
    pub fn svg(&self) -> String {
        draw::svg(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacked_areas_begin_where_the_one_before_ends() {
        let at = |ys: [f64; 2]| vec![(0.0, ys[0]), (1.0, ys[1])];
        let chart = Chart::new("", Axis::linear(""), Axis::linear(""))
            .stack([Series::new("a", at([1.0, 2.0])), Series::new("b", at([10.0, f64::NAN]))]);
        assert_eq!(chart.series[0].points, at([1.0, 2.0]));
        assert_eq!(
            (chart.series[1].points.clone(), chart.series[1].floor.clone()),
            (at([11.0, 2.0]), vec![1.0, 2.0])
        );
    }
}
