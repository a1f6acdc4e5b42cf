//! Series to SVG: charts for reports, and one line of blocks for a terminal.
//!
//! This room knows numbers and names only. It does not know what was measured, files, terminals or HTML pages: a chart is
//! a string that can be written to a file as it is or put into a page, several on one page. Drawings follow the
//! light or dark setting of the reader's browser. Nothing here fails: what is not finite is left out, names are
//! escaped and cut.
//!
//! ```
//! use salver_plot::{Axis, Chart, Reference, Series};
//!
//! let chart = Chart::new("Goodput", Axis::linear("offered load, requests/s"), Axis::log("p99, ms"))
//!     .subtitle("Poisson arrivals, deadline 100 ms")
//!     .series(Series::new("by deadline", vec![(100.0, 4.1), (200.0, 4.4), (400.0, 80.0)]))
//!     .series(Series::new("fixed wait", vec![(100.0, 14.0), (200.0, 16.0), (400.0, 900.0)]).dashed())
//!     .reference(Reference::horizontal(100.0, "deadline"));
//! assert!(chart.svg().starts_with("<svg "));
//! ```
#![warn(missing_docs)]

mod axis;
mod chart;
mod draw;
mod spark;
mod text;

pub use axis::{Axis, number};
pub use chart::{Chart, Form, Reference, Series};
pub use spark::sparkline;
pub use text::escape;
