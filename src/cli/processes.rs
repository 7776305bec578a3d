//! The table of `ps`: the lines of ps(1) that are about a container's processes. Uses: nothing.

use std::ffi::OsString;
use std::process::Command;

use rcrun_runtime::{Code, Error, Result};

/// What ps(1), given `args` or `-ef`, says of the processes `pids`.
pub fn table(pids: &[i32], args: &[OsString]) -> Result<Vec<u8>> {
    let mut ps = Command::new("ps");
    if args.is_empty() {
        ps.arg("-ef")
    } else {
        ps.args(args)
    };
    let output = ps.output().map_err(|error| {
        Error::call("execute ps (from Debian's procps; --format json does without)", error)
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing").trim();
        return Err(Error::new(Code::System, format!("ps: {}: {said}", output.status)));
    }
    filter(&output.stdout, pids)
}

/// The head of ps's output, and the lines whose PID is one of `pids`.
fn filter(output: &[u8], pids: &[i32]) -> Result<Vec<u8>> {
    let mut lines = output.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let head = lines.next().unwrap_or_default();
    let column = fields(head)
        .position(|field| field == b"PID")
        .ok_or_else(|| Error::new(Code::Usage, "couldn't find PID field in ps output"))?;
    let mut table = [head, b"\n"].concat();
    for line in lines {
        let pid = fields(line).nth(column).and_then(|field| std::str::from_utf8(field).ok()?.parse().ok());
        let pid: i32 = pid.ok_or_else(|| {
            let line = String::from_utf8_lossy(line);
            Error::new(Code::System, format!("unable to parse pid: no number under PID in {line:?}"))
        })?;
        if pids.contains(&pid) {
            table.extend_from_slice(line);
            table.push(b'\n');
        }
    }
    Ok(table)
}

fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PS: &[u8] =
        b"UID   PID  PPID CMD\nroot    1     0 init 22\nroot   22     1 sh\n7     333    22 a\xff 1\n";

    #[test]
    fn lines_are_chosen_by_the_pid_column_alone() {
        for (pids, expected) in [
            (
                &[22, 333] as &[i32],
                b"UID   PID  PPID CMD\nroot   22     1 sh\n7     333    22 a\xff 1\n" as &[u8],
            ),
            (&[1], b"UID   PID  PPID CMD\nroot    1     0 init 22\n"),
            (&[], b"UID   PID  PPID CMD\n"),
        ] {
            assert_eq!(filter(PS, pids).unwrap(), expected);
        }
    }

    #[test]
    fn output_without_pids_is_an_error_in_runcs_words() {
        for (output, expected) in [
            (b"USER CMD\nroot sh\n" as &[u8], "couldn't find PID field in ps output"),
            (b"", "couldn't find PID field in ps output"),
            (b"PID CMD\nx y\n", "unable to parse pid: no number under PID in \"x y\""),
        ] {
            assert_eq!(filter(output, &[1]).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn ps_is_asked_with_the_arguments_given() {
        let me = std::process::id() as i32;
        let table =
            String::from_utf8(table(&[me], &["-e".into(), "-o".into(), "pid,ppid".into()]).unwrap()).unwrap();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 2, "{table}");
        assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["PID", "PPID"]);
        assert_eq!(lines[1].split_whitespace().next(), Some(me.to_string().as_str()));
    }

    #[test]
    fn a_failing_ps_is_told_in_one_sentence() {
        let error = table(&[1], &["--no-such-option".into()]).unwrap_err().to_string();
        assert!(error.starts_with("ps: exit status: 1: error: unknown gnu long option"), "{error}");
    }
}
