//! The plots of docs/benchmarks.md and docs/benchmarks-engines.md: one bar for each runtime in each row, on a logarithmic scale. Pure text.

use std::fmt::Write;

const LEFT: f64 = 230.0;
const WIDTH: f64 = 620.0;
const BAR: f64 = 12.0;
const GAP: f64 = 16.0;
const TOP: f64 = 78.0;
const LARGEST: f64 = 32.0;
const COLOURS: [&str; 4] = ["#0b6e4f", "#8d99ae", "#d98e04", "#9c3848"];

/// A row of the plot: its name, and for each runtime but the floor the ratio of its time to the floor's.
pub struct Bars {
    /// As in the table.
    pub name: String,
    /// In the order of the legend.
    pub ratios: Vec<f64>,
}

/// What a length means.
pub struct Axis {
    /// Above the picture.
    pub title: &'static str,
    /// What is 1.
    pub one: &'static str,
}

/// An SVG picture. `legend` names the runtimes.
pub fn svg(axis: &Axis, legend: &[&str], rows: &[Bars]) -> String {
    let row_height = legend.len() as f64 * BAR + GAP;
    let bottom = TOP + rows.len() as f64 * row_height;
    let (width, height) = (LEFT + WIDTH + 60.0, bottom + 34.0);
    let mut out = String::new();
    let mut line = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    line(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">"
    ));
    line(format!("<rect width=\"{width:.0}\" height=\"{height:.0}\" fill=\"#fff\"/>"));
    line(format!(
        "<text x=\"16\" y=\"26\" font-size=\"16\" font-weight=\"bold\">{} (logarithmic; shorter is better)</text>",
        axis.title
    ));
    for (i, name) in legend.iter().enumerate() {
        let x = LEFT + i as f64 * 150.0;
        line(format!("<rect x=\"{x:.0}\" y=\"40\" width=\"14\" height=\"14\" fill=\"{}\"/>", colour(i)));
        line(format!("<text x=\"{:.0}\" y=\"52\">{name}</text>", x + 20.0));
    }
    let mut grid = 1.0;
    while grid <= LARGEST {
        let x = place(grid);
        line(format!(
            "<line x1=\"{x:.1}\" y1=\"{TOP:.0}\" x2=\"{x:.1}\" y2=\"{bottom:.0}\" stroke=\"#ddd\"/>"
        ));
        let label = if grid == 1.0 { axis.one.to_owned() } else { format!("{grid}×") };
        line(format!("<text x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{label}</text>", bottom + 18.0));
        grid *= 2.0;
    }
    for (r, row) in rows.iter().enumerate() {
        let y = TOP + r as f64 * row_height + GAP / 2.0;
        let middle = y + legend.len() as f64 * BAR / 2.0 + 4.0;
        line(format!(
            "<text x=\"{:.0}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 12.0,
            row.name
        ));
        for (i, ratio) in row.ratios.iter().enumerate() {
            let (y, end) = (y + i as f64 * BAR, place(*ratio).max(LEFT + 1.0));
            line(format!(
                "<rect x=\"{LEFT:.0}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.0}\" fill=\"{}\"/>",
                end - LEFT,
                BAR - 2.0,
                colour(i)
            ));
            line(format!(
                "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"10\">{ratio:.2}</text>",
                end + 4.0,
                y + 9.0
            ));
        }
    }
    line("</svg>".to_owned());
    out
}

fn place(ratio: f64) -> f64 {
    LEFT + WIDTH * (ratio.clamp(1.0, LARGEST).log2() / LARGEST.log2())
}

fn colour(i: usize) -> &'static str {
    COLOURS[i % COLOURS.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_twice_as_long_is_the_square_and_none_leaves_the_picture() {
        assert!((place(4.0) - LEFT - 2.0 * (place(2.0) - LEFT)).abs() < 1e-9);
        assert_eq!(place(0.9), LEFT);
        assert_eq!(place(1000.0), LEFT + WIDTH);
    }
}
