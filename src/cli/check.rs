//! `rcrun check`: every problem of a bundle, as a list or as JSON. Uses: args, output.

use crate::args::{Cgroups, Check as Args, PlanFormat};
use crate::images::load;
use crate::{ExitCode, Global, output};
use rcrun_runtime::Result;
use rcrun_runtime::check::{Finding, Level, Report, check};
use rcrun_runtime::container::Options;

/// Prints what was found. Status 1 where something is an error.
#[inline(never)]
pub fn run(global: &Global, args: &Args) -> Result<ExitCode> {
    load::refuse("check", &args.bundle)?;
    let report = check(&Options {
        bundle: args.bundle.clone(),
        systemd: global.cgroups == Cgroups::Systemd,
        no_cgroup: global.cgroups == Cgroups::Nobody,
        rootless: global.rootless,
        ..Options::default()
    });
    match args.format {
        PlanFormat::Json => output::pretty(&report)?,
        PlanFormat::Text => output::print(list(&report))?,
    }
    Ok(if report.errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A line for each, with what to do below it, and the count.
fn list(report: &Report) -> String {
    // A place far longer than the others is no reason to push all sentences to the right.
    const WIDEST: usize = 44;
    let place = |finding: &Finding| match finding.pointer.as_str() {
        "" => "(the bundle)".to_string(),
        pointer => output::shown(pointer),
    };
    let width = |text: &str| text.chars().count();
    let places = report.findings.iter().map(|finding| width(&place(finding)));
    let wide = places.filter(|width| *width <= WIDEST).max().unwrap_or(0);
    let mut text = String::new();
    for finding in &report.findings {
        let level = match finding.level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Note => "note",
        };
        let place = place(finding);
        let start = 9 + wide + 2;
        text += &match width(&place) > wide {
            true => format!("{level:<7}  {place}\n{:start$}", ""),
            false => format!("{level:<7}  {place:<wide$}  "),
        };
        text += &format!("{}\n", output::shown(&finding.message));
        if let Some(remedy) = &finding.remedy {
            text += &format!("{:start$}-> {}\n", "", output::shown(remedy));
        }
    }
    let count = |number: usize, what: &str| {
        (number > 0).then(|| format!("{number} {what}{}", if number == 1 { "" } else { "s" }))
    };
    let counts =
        [count(report.errors, "error"), count(report.warnings, "warning"), count(report.notes, "note")];
    let counts: Vec<String> = counts.into_iter().flatten().collect();
    text += &match counts.is_empty() {
        true => "no problems\n".to_string(),
        false => format!("{}\n", counts.join(", ")),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(level: Level, pointer: &str, message: &str, remedy: Option<&str>) -> Finding {
        Finding {
            level,
            pointer: pointer.into(),
            code: "config",
            message: message.into(),
            remedy: remedy.map(str::to_string),
        }
    }

    #[test]
    fn sentences_stand_below_each_other_and_the_count_comes_last() {
        let long = format!("/annotations/{}", "x".repeat(60));
        let findings = vec![
            finding(Level::Error, "/process/cwd", "is\u{1b}[2J bad", Some("mend it")),
            finding(Level::Error, "", "no file", None),
            finding(Level::Warning, &long, "far", Some("near")),
        ];
        let text = list(&Report { errors: 2, warnings: 1, notes: 0, findings });
        let expected = format!(
            "error    /process/cwd  is\\u{{1b}}[2J bad\n{0}-> mend it\nerror    (the bundle)  no file\nwarning  {long}\n{0}far\n{0}-> near\n2 errors, 1 warning\n",
            " ".repeat(23)
        );
        assert_eq!(text, expected);
        assert_eq!(list(&Report::default()), "no problems\n");
    }
}
