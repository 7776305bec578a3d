//! What rcrun promises, and nothing else: the one table that `make bench-gate` holds it to. Pure data.

use crate::rounds::{Pace, Row};

/// A promise: the median of rcrun's ratio to the floor in one row is at most this.
pub struct Target {
    /// What is timed.
    pub row: Row,
    /// With or without pauses between the operations.
    pub pace: Pace,
    /// For times, the highest ratio to the floor's time; for rates, the lowest ratio to the floor's rate.
    pub limit: f64,
}

const fn target(row: Row, pace: Pace, limit: f64) -> Target {
    Target { row, pace, limit }
}

/// Beside these, rcrun must be faster than every other runtime in each of these rows.
pub const TARGETS: &[Target] = &[
    target(Row::Run, Pace::BackToBack, 1.25),
    target(Row::Run, Pace::Pauses, 1.25),
    target(Row::RunSeccomp, Pace::BackToBack, 1.35),
    target(Row::RunSeccomp, Pace::Pauses, 1.35),
    target(Row::Start, Pace::BackToBack, 2.5),
    target(Row::State, Pace::BackToBack, 1.5),
    target(Row::Exec, Pace::BackToBack, 1.6),
    target(Row::Kill, Pace::BackToBack, 1.5),
    target(Row::Delete, Pace::BackToBack, 1.5),
    target(Row::Parallel(4), Pace::BackToBack, 0.75),
];

/// Page faults of one `run` with its init and a payload of a few kilobytes. Counted, not timed: the functions of a start lie side
/// by side (src/cli/layout.ld), and `make layout` puts them there again.
pub const FAULTS: u64 = 130;
