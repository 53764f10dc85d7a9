//! What is told at the end: every goal with its baseline, and pictures of how cost grows.

use std::ops::Range;
use std::path::{Path, PathBuf};

use plotters::prelude::*;

/// A goal of ours, and what came of it.
struct Goal {
    name: String,
    unit: &'static str,
    ours: f64,
    baseline: Option<f64>,
    limit: Limit,
}

/// What it should be.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    /// Ours, in its unit.
    AtMost(f64),
    /// Ours by the baseline.
    RatioAtMost(f64),
    RatioAtLeast(f64),
}

/// Lines of a picture: both axes are logarithmic, so what is constant is level, and what grows in proportion rises by 45
/// degrees.
pub(crate) struct Picture {
    pub(crate) file: &'static str,
    pub(crate) title: &'static str,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) lines: Vec<(String, Vec<(f64, f64)>)>,
}

/// Everything that is told after the tables.
pub(crate) struct Report {
    goals: Vec<Goal>,
    /// Where pictures go; `None`: nobody wants any.
    folder: Option<PathBuf>,
}

const SIZE: (u32, u32) = (760, 420);
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x1f, 0x5f, 0xbf),
    RGBColor(0xc0, 0x4a, 0x2b),
    RGBColor(0x3c, 0x8a, 0x4e),
    RGBColor(0x8a, 0x4f, 0xa8),
    RGBColor(0x8c, 0x6d, 0x1f),
    RGBColor(0x55, 0x55, 0x55),
];

// === impl Report ===

impl Report {
    pub(crate) fn new(folder: Option<PathBuf>) -> Self {
        if let Some(folder) = &folder {
            std::fs::create_dir_all(folder).expect("a folder for the pictures");
        }
        Self { goals: Vec::new(), folder }
    }

    /// Notes what came of a goal: ours, and what it was measured against in the same run.
    pub(crate) fn goal(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        ours: f64,
        baseline: Option<f64>,
        limit: Limit,
    ) {
        self.goals.push(Goal { name: name.into(), unit, ours, baseline, limit });
    }

    pub(crate) fn picture(&self, picture: &Picture) {
        let Some(folder) = &self.folder else { return };
        let path = folder.join(picture.file);
        picture.draw(&path).expect("a picture can be drawn");
        println!("drawn: {}", path.display());
    }

    pub(crate) fn print_goals(&self) {
        if self.goals.is_empty() {
            return;
        }
        println!(
            "\n{:<58} {:>14} {:>14} {:>7} {:>12}  met",
            "goals of docs/performance.md", "ours", "baseline", "ratio", "goal"
        );
        for goal in &self.goals {
            println!("{goal}");
        }
    }
}

// === impl Goal ===

impl Goal {
    fn ratio(&self) -> Option<f64> {
        self.baseline.map(|baseline| self.ours / baseline)
    }

    fn is_met(&self) -> bool {
        match (self.limit, self.ratio()) {
            (Limit::AtMost(limit), _) => self.ours <= limit,
            (Limit::RatioAtMost(limit), Some(ratio)) => ratio <= limit,
            (Limit::RatioAtLeast(limit), Some(ratio)) => ratio >= limit,
            (Limit::RatioAtMost(_) | Limit::RatioAtLeast(_), None) => false,
        }
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let with_unit = |value: f64| format!("{value:.2} {}", self.unit);
        let limit = match self.limit {
            Limit::AtMost(limit) => format!("≤ {limit} {}", self.unit),
            Limit::RatioAtMost(limit) => format!("≤ {limit}×"),
            Limit::RatioAtLeast(limit) => format!("≥ {limit}×"),
        };
        let (ours, baseline) = (with_unit(self.ours), self.baseline.map_or_else(String::new, with_unit));
        let ratio = self.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let met = if self.is_met() { "yes" } else { "NO" };
        write!(f, "{:<58} {ours:>14} {baseline:>14} {ratio:>7} {limit:>12}  {met}", self.name)
    }
}

// === impl Picture ===

impl Picture {
    fn draw(&self, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let (x, y) = (around(points().map(|point| point.0)), around(points().map(|point| point.1)));
        let root = SVGBackend::new(path, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(62)
            .build_cartesian_2d(x.log_scale(), y.log_scale())?;
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .light_line_style(RGBColor(0xee, 0xee, 0xee))
            .x_label_formatter(&|x| label(*x))
            .y_label_formatter(&|y| label(*y))
            .draw()?;
        for ((name, points), colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let style = colour.stroke_width(2);
            chart
                .draw_series(LineSeries::new(points.iter().copied(), style).point_size(3))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(RGBColor(0xcc, 0xcc, 0xcc))
            .draw()?;
        root.present()?;
        Ok(())
    }
}

/// A range that has all of them and some room, a decade at least.
fn around(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    let room = (10.0 / (high / low)).sqrt().max(1.25);
    low / room..high * room
}

fn label(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{} M", value / 1e6),
        value if value >= 1e3 => format!("{} k", value / 1e3),
        value => format!("{}", (value * 1e4).round() / 1e4),
    }
}
