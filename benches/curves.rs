//! Growth: the same few works at growing sizes, as lines of a picture. One size is measured in `works.rs`.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use plotters::prelude::{
    BLACK, ChartBuilder, Circle, Color as _, EmptyElement, IntoDrawingArea as _, IntoFont as _,
    IntoLogRange as _, LineSeries, Palette as _, Palette99, SVGBackend, Text, WHITE,
};

use super::report::Row;

/// What grows along the bottom of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Along {
    Proxies,
    Services,
}

impl Along {
    pub fn name(self) -> &'static str {
        match self {
            Self::Proxies => "proxies",
            Self::Services => "services",
        }
    }

    /// Each size, and what it is in proxies and services.
    pub fn sizes(self) -> [(usize, (usize, usize)); 5] {
        let sizes = [100, 300, 1000, 3000, 10_000];
        match self {
            Self::Proxies => sizes.map(|p| (p, (p, 1000))),
            Self::Services => sizes.map(|s| (s, (100, s))),
        }
    }
}

/// The works whose growth is shown; the storm comes before them at each size.
pub const WORKS: [&str; 5] = ["storm-cold", "settled", "eds-1", "vs-1", "dr-1"];

/// All rows at one size.
pub struct Point {
    pub size: usize,
    pub rows: Vec<Row>,
}

/// One picture: a number of some works.
struct Picture {
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    works: &'static [&'static str],
    value: fn(&Row) -> f64,
}

const CHANGES: &[&str] = &["eds-1", "vs-1", "dr-1"];

const PICTURES: [Picture; 3] = [
    Picture {
        name: "latency",
        title: "until the last proxy holds one change",
        unit: "ms",
        works: CHANGES,
        value: |row| row.last_ms,
    },
    Picture {
        name: "cpu",
        title: "server's processor time for one change",
        unit: "ms",
        works: CHANGES,
        value: |row| row.server_cpu_s * 1e3,
    },
    Picture {
        name: "resident",
        title: "server's memory: settled, and at its peak",
        unit: "MB",
        works: &["settled", "storm-cold"],
        value: |row| match row.work {
            "storm-cold" => row.peak as f64 / 1e6,
            _ => row.resident as f64 / 1e6,
        },
    },
];

type Line = (&'static str, Vec<(f64, f64)>);

/// Writes a picture for each number into the folder.
pub fn draw(folder: &Path, along: Along, points: &[Point]) -> Result<()> {
    for picture in &PICTURES {
        let file = folder.join(format!("{}-by-{}.svg", picture.name, along.name()));
        let lines: Vec<Line> = picture
            .works
            .iter()
            .map(|w| (*w, line(picture, w, points)))
            .collect();
        draw_one(&file, picture, along, &lines)
            .with_context(|| format!("draw {}", file.display()))?;
    }
    Ok(())
}

/// What is void is not drawn.
fn line(picture: &Picture, work: &str, points: &[Point]) -> Vec<(f64, f64)> {
    let of = |point: &Point| {
        let row = point
            .rows
            .iter()
            .find(|r| r.work == work && r.void.is_none())?;
        let value = (picture.value)(row);
        (value > 0.0).then_some((point.size as f64, value))
    };
    points.iter().filter_map(of).collect()
}

fn draw_one(file: &Path, picture: &Picture, along: Along, lines: &[Line]) -> Result<()> {
    let all: Vec<(f64, f64)> = lines.iter().flat_map(|(_, line)| line.clone()).collect();
    let span = |of: fn(&(f64, f64)) -> f64| {
        let values = all.iter().map(of);
        let (low, high) = values.fold((f64::MAX, 0.0), |(l, h), v| (v.min(l), v.max(h)));
        (low / 1.5)..(high * 2.5)
    };
    if all.is_empty() {
        return Ok(());
    }
    let area = SVGBackend::new(file, (760, 460)).into_drawing_area();
    let drawing = |e: &dyn std::fmt::Display| anyhow!("{e}");
    area.fill(&WHITE).map_err(|e| drawing(&e))?;
    let mut chart = ChartBuilder::on(&area)
        .caption(picture.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(span(|p| p.0).log_scale(), span(|p| p.1).log_scale())
        .map_err(|e| drawing(&e))?;
    chart
        .configure_mesh()
        .x_desc(along.name())
        .y_desc(picture.unit)
        .draw()
        .map_err(|e| drawing(&e))?;
    for (number, (work, line)) in lines.iter().enumerate() {
        let color = Palette99::pick(number).to_rgba();
        let points = line.iter().copied();
        chart
            .draw_series(LineSeries::new(points.clone(), &color))
            .map_err(|e| drawing(&e))?;
        let last = line.len().saturating_sub(1);
        let marks = points.enumerate().map(|(at, point)| {
            let mut text = format!("{:.1}", point.1);
            if at == last {
                text = format!("{text} {work}");
            }
            let font = ("sans-serif", 12).into_font().color(&BLACK);
            EmptyElement::at(point)
                + Circle::new((0, 0), 3, color)
                + Text::new(text, (-14, -18), font)
        });
        chart.draw_series(marks).map_err(|e| drawing(&e))?;
    }
    area.present().map_err(|e| drawing(&e))
}
