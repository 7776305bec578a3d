//! `rcrun doctor`: what this machine has of what rcrun uses, as a table or as JSON. Uses: args, output.

use rcrun_runtime::Result;
use rcrun_runtime::doctor::{Finding, Report, State, examine};

use crate::args::Table;
use crate::{ExitCode, output};

/// Prints what was found. Status 1 where something is missing that the caller needs.
pub fn run(format: Table) -> Result<ExitCode> {
    let report = examine();
    match format {
        Table::Json => output::pretty(&report)?,
        Table::Table => output::print(table(&report))?,
    }
    Ok(if report.healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A line for what is fine; what it means and what to do below what is not.
fn table(report: &Report) -> String {
    let widest =
        |text: fn(&Finding) -> &str| report.findings.iter().map(|f| text(f).len()).max().unwrap_or(0);
    let (area, name) = (widest(|f| f.area), widest(|f| f.name));
    let mut text = format!("rcrun as {}:\n", report.role);
    for finding in &report.findings {
        let state = match finding.state {
            State::Ok => "ok",
            State::Without => "without",
            State::Missing => "MISSING",
        };
        let start = format!("{state:<7}  {:<area$}  {:<name$}  ", finding.area, finding.name);
        text += &format!("{start}{} - {}\n", finding.found, finding.effect);
        if let Some(remedy) = &finding.remedy {
            text += &format!("{:indent$}-> {remedy}\n", "", indent = start.len());
        }
    }
    text += match report.healthy {
        true => "All that is needed is there.\n",
        false => "Something is missing: containers cannot be made, or not all of them.\n",
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_stands_below_what_it_mends() {
        let finding = |state, remedy: Option<&str>| Finding {
            area: "kernel",
            name: "openat2",
            state,
            found: "works".into(),
            effect: "paths".into(),
            remedy: remedy.map(str::to_string),
        };
        let findings = vec![finding(State::Ok, None), finding(State::Missing, Some("boot"))];
        let text = table(&Report { role: "root", healthy: false, findings });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "rcrun as root:");
        assert_eq!(lines[1], "ok       kernel  openat2  works - paths");
        assert_eq!(lines[2], "MISSING  kernel  openat2  works - paths");
        assert_eq!(lines[3].trim(), "-> boot");
        assert!(lines[4].starts_with("Something is missing"), "{text}");
    }
}
