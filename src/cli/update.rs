//! update: the options for limits, or the JSON in a file, to what the runtime changes.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use nix::sys::signal::SigSet;
use oci_spec::runtime::LinuxIntelRdt;
use serde_json::{Value, json};

use crate::args::update::{Kind, Limit, Schemata, Update, Wanted};
use crate::{ExitCode, Global, containers, input, output};
use rcrun_runtime::cgroup::Change;
use rcrun_runtime::container::{self, How, StateRoot};
use rcrun_runtime::error::{CallContext, Context};
use rcrun_runtime::spec;
use rcrun_runtime::{Code, Error, Result};

/// `rcrun update`
#[inline(never)]
pub fn update(global: &Global, args: &Update) -> Result<ExitCode> {
    let id = containers::parse(&args.id)?;
    let mut container = StateRoot::new(&global.root).open(&id).context(format!("update {id}"))?;
    let mut warnings = Vec::new();
    let text = match &args.wanted {
        Wanted::File(path) => {
            input::of_file(path).context(format!("update {id}: --resources {}", path.display()))?
        }
        Wanted::Stdin => input::of_stdin()?,
        Wanted::Options(options) => {
            from_options(options, &mut warnings).context("update")?.to_string().into_bytes()
        }
    };
    let whence = match &args.wanted {
        Wanted::File(path) => format!("update {id}: --resources {}", path.display()),
        _ => format!("update {id}"),
    };
    let wanted = spec::parse_resources(&text).context(whence)?;
    // All or nothing, also after ^C: it counts when this is done.
    SigSet::all().thread_block().call("pthread_sigmask")?;
    let Schemata { l3_cache, memory_bandwidth } = &args.schemata;
    let mut how = How { dry_run: args.dry_run, safe: args.safe, ..How::default() };
    if !args.schemata.is_empty() {
        let mut rdt = LinuxIntelRdt::default();
        rdt.set_l3_cache_schema(l3_cache.clone()).set_mem_bw_schema(memory_bandwidth.clone());
        how.schemata = Some(rdt);
    }
    let updated = container::update(&mut container, &wanted, how).context(format!("update {id}"))?;
    if args.dry_run {
        output::print(table(&updated.changes))?;
    }
    for warning in warnings.into_iter().chain(updated.warnings) {
        global.log.warn(warning);
    }
    Ok(ExitCode::SUCCESS)
}

/// The `linux.resources` object that the options stand for.
fn from_options(options: &[(&Limit, Vec<String>)], warnings: &mut Vec<String>) -> Result<Value> {
    let mut resources = json!({});
    for (limit, words) in options {
        let option = format!("--{}", limit.name);
        let word = words.last().map(String::as_str).unwrap_or_default();
        let usage = |why: &str| Error::new(Code::Usage, format!("{option} {word:?}: {why}"));
        let number = || word.parse::<i64>().map_err(|_| usage("not a whole number"));
        match limit.kind {
            Kind::Bytes(at) => match bytes(&option, word)? {
                0 => return Err(usage("0 changes nothing: -1 is no limit")),
                bytes => put(&mut resources, at, json!(bytes)),
            },
            Kind::Number(at) => put(&mut resources, at, json!(number()?)),
            Kind::Positive(at) => match number()? {
                0 => return Err(usage("0 changes nothing")),
                number => put(&mut resources, at, json!(number)),
            },
            Kind::Word(at) => put(&mut resources, at, json!(word)),
            Kind::BytesOf(file) => {
                let value = match word {
                    "max" => "max".to_string(),
                    word => match bytes(&option, word)? {
                        -1 => "max".to_string(),
                        bytes => bytes.to_string(),
                    },
                };
                resources["unified"][file] = json!(value);
            }
            Kind::NumberOf(file) => resources["unified"][file] = json!(number()?.to_string()),
            Kind::SwitchOf(file) => {
                let on = match word {
                    "1" | "true" => "1",
                    "0" | "false" => "0",
                    _ => return Err(usage("neither true nor false")),
                };
                resources["unified"][file] = json!(on);
            }
            Kind::Devices(file) => {
                let lines: Result<Vec<_>> = words.iter().map(|line| io_max(&option, line)).collect();
                resources["unified"][file] = json!(lines?.join("\n"));
            }
            Kind::Obsolete => warnings.push(format!("{option} is ignored: it counts for --memory")),
        }
    }
    Ok(resources)
}

/// Puts `value` at `/OBJECT/FIELD`.
fn put(resources: &mut Value, at: &str, value: Value) {
    if let Some((object, field)) = at.trim_start_matches('/').split_once('/') {
        resources[object][field] = value;
    }
}

fn bytes(option: &str, word: &str) -> Result<i64> {
    if word == "-1" {
        return Ok(-1);
    }
    let bytes = rcrun_image::bundle::bytes(option, word);
    let bytes = bytes.map_err(|error| Error::new(Code::Usage, error.to_string()))?;
    Ok(i64::try_from(bytes).unwrap_or(i64::MAX))
}

/// `8:0 rbps=1m wiops=max`, or with a device's path: a line for io.max.
fn io_max(option: &str, line: &str) -> Result<String> {
    let usage = |why: String| Error::new(Code::Usage, format!("{option} {line:?}: {why}"));
    let mut words = line.split([' ', ',']).filter(|word| !word.is_empty());
    let device = words.next().unwrap_or_default();
    let mut text = if device.starts_with('/') {
        let data = fs::metadata(device).call(format!("{option}: stat {device}"))?;
        if !data.file_type().is_block_device() {
            return Err(usage(format!("{device} is no block device")));
        }
        format!("{}:{}", nix::sys::stat::major(data.rdev()), nix::sys::stat::minor(data.rdev()))
    } else {
        let number = |text: &str| text.parse::<u32>().is_ok();
        match device.split_once(':') {
            Some((major, minor)) if number(major) && number(minor) => device.to_string(),
            _ => {
                return Err(usage(format!(
                    "{device:?} is neither MAJOR:MINOR nor the path of a block device"
                )));
            }
        }
    };
    let mut limits = 0;
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let value = match (key, value) {
            ("rbps" | "wbps" | "riops" | "wiops", "max" | "-1") => "max".to_string(),
            ("rbps" | "wbps" | "riops" | "wiops", "0") => {
                return Err(usage(format!("{word:?}: a rate of 0 cannot be had; max is no limit")));
            }
            ("rbps" | "wbps", value) => bytes(option, value)?.to_string(),
            ("riops" | "wiops", value) => {
                value.parse::<u64>().map_err(|_| usage(format!("{value:?} is no number")))?.to_string()
            }
            _ => return Err(usage(format!("{word:?} is none of rbps=, wbps=, riops= and wiops="))),
        };
        text += &format!(" {key}={value}");
        limits += 1;
    }
    match limits {
        0 => Err(usage("has no limit such as rbps=1m".to_string())),
        _ => Ok(text),
    }
}

/// Columns as wide as their widest cell.
fn table(changes: &[Change]) -> String {
    let head = ("FILE", "OLD", "NEW");
    let shown =
        |text: &str| if text.is_empty() { "\"\"".to_string() } else { text.escape_default().to_string() };
    let mut rows = vec![(head.0.to_string(), head.1.to_string(), head.2.to_string())];
    rows.extend(changes.iter().map(|change| {
        let old = change.old.as_deref().map_or("-".to_string(), shown);
        (shown(&change.file), old, shown(&change.new))
    }));
    let width = |cell: fn(&(String, String, String)) -> &String| {
        rows.iter().map(|r| cell(r).len()).max().unwrap_or(0)
    };
    let (first, second) = (width(|row| &row.0), width(|row| &row.1));
    rows.iter().map(|(file, old, new)| format!("{file:<first$}   {old:<second$}   {new}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Invocation, parse};

    fn options(line: &str) -> Result<Value> {
        let words = line.split('|').map(std::ffi::OsString::from);
        let words = ["update", "x"].map(std::ffi::OsString::from).into_iter().chain(words);
        match parse(words.collect()).1? {
            Invocation::Update(Update { wanted: Wanted::Options(options), .. }) => {
                from_options(&options, &mut Vec::new())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_option_becomes_its_field() {
        for (line, expected) in [
            ("--memory|64m|--memory-swap|-1", json!({"memory": {"limit": 67108864, "swap": -1}})),
            ("--memory-reservation=1k", json!({"memory": {"reservation": 1024}})),
            (
                "--memory-high|1g|--memory-min|max",
                json!({"unified": {"memory.high": "1073741824", "memory.min": "max"}}),
            ),
            (
                "--memory-low=-1|--oom-group=true",
                json!({"unified": {"memory.low": "max", "memory.oom.group": "1"}}),
            ),
            ("--cpu-quota|-1|--cpu-period|20000", json!({"cpu": {"quota": -1, "period": 20000}})),
            (
                "--cpu-share|512|--cpu-burst|7|--cpu-idle|0",
                json!({"cpu": {"shares": 512, "burst": 7, "idle": 0}}),
            ),
            ("--cpuset-cpus|0-1|--cpuset-mems|0", json!({"cpu": {"cpus": "0-1", "mems": "0"}})),
            ("--cpu-weight|200", json!({"unified": {"cpu.weight": "200"}})),
            ("--pids-limit|-1|--blkio-weight|10", json!({"pids": {"limit": -1}, "blockIO": {"weight": 10}})),
            (
                "--io-max|8:0 rbps=1m,wiops=-1|--io-max|8:16 riops=5",
                json!({"unified": {"io.max": "8:0 rbps=1048576 wiops=max\n8:16 riops=5"}}),
            ),
        ] {
            assert_eq!(options(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn a_wrong_option_is_named_with_its_value() {
        for (line, expected) in [
            ("--memory|lots", "update: --memory \"lots\": not an amount of memory such as 512m or 1.5g"),
            ("--memory|0", "--memory \"0\": 0 changes nothing"),
            ("--cpu-share|0", "--cpu-share \"0\": 0 changes nothing"),
            ("--cpu-quota|fast", "--cpu-quota \"fast\": not a whole number"),
            ("--oom-group|maybe", "--oom-group \"maybe\": neither true nor false"),
            ("--io-max|sda rbps=1", "is neither MAJOR:MINOR nor the path of a block device"),
            ("--io-max|/dev/null rbps=1", "/dev/null is no block device"),
            ("--io-max|8:0", "has no limit such as rbps=1m"),
            ("--io-max|8:0 speed=1", "\"speed=1\" is none of rbps="),
            ("--io-max|8:0 rbps=0", "\"rbps=0\": a rate of 0 cannot be had"),
            ("--dry-run", "nothing is to be changed"),
            ("--memory|1m|-r|f", "--memory may not stand beside it"),
        ] {
            let error = options(line).context("update").unwrap_err().to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn the_table_is_aligned() {
        let change = |file: &str, old: Option<&str>, new: &str| Change {
            file: file.into(),
            old: old.map(str::to_string),
            new: new.into(),
        };
        assert_eq!(
            table(&[
                change("memory.max", Some("max"), "1"),
                change("cpuset.cpus", Some(""), "0-1"),
                change("x", None, "2")
            ]),
            "\
FILE          OLD   NEW
memory.max    max   1
cpuset.cpus   \"\"    0-1
x             -     2
"
        );
    }
}
