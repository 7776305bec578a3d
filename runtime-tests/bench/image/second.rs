//! The second run of an image: its layers are in the store, and a container starts. Beside it, a bundle with the same root
//! and the same configuration, written out flat.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Bench, Kind};
use crate::host::WORK;
use crate::stats::{Quartiles, quartiles};
use crate::{Result, fail};

/// What the container runs: nothing that would hide the start.
const PAYLOAD: &str = "/bin/true";

/// Seconds of each round: of the bundle and of the image.
#[derive(Default)]
pub struct Starts {
    bundle: Vec<f64>,
    image: Vec<f64>,
}

impl Starts {
    pub fn ratio(&self) -> Quartiles {
        quartiles(self.image.iter().zip(&self.bundle).map(|(image, bundle)| image / bundle))
    }

    pub fn bundle(&self) -> Quartiles {
        quartiles(self.bundle.iter().copied())
    }

    pub fn rounds(&self) -> usize {
        self.image.len()
    }
}

fn bundle() -> PathBuf {
    Path::new(WORK).join("bundle")
}

fn store() -> PathBuf {
    Path::new(WORK).join("store")
}

fn rcrun(bench: &Bench) -> Command {
    let mut command = Command::new(&bench.rcrun);
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command.arg("--root").arg(Path::new(WORK).join("root"));
    command
}

fn done(command: &mut Command) -> Result<Duration> {
    let begin = Instant::now();
    let status = command.spawn()?.wait()?;
    let time = begin.elapsed();
    if status.success() { Ok(time) } else { fail(format!("{command:?}: {status}")) }
}

/// Loads the image, and writes the bundle with its tree.
pub fn prepare(bench: &Bench) -> Result<()> {
    let layout = bench.layout(Kind::Gzip);
    done(
        rcrun(bench)
            .args(["image", "load", "--quiet", "--store"])
            .arg(store())
            .arg(format!("{}:bench", layout.display())),
    )?;
    done(
        rcrun(bench).args(["image", "unpack", "--flat", "--store"]).arg(store()).arg(&layout).arg(bundle()),
    )?;
    let path = bundle().join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    config["process"]["args"] = json!([PAYLOAD]);
    Ok(fs::write(path, config.to_string())?)
}

/// The flat tree of the image.
pub fn tree() -> PathBuf {
    bundle().join("rootfs")
}

/// More rounds, after two that are not counted.
pub fn measure(bench: &Bench, rounds: usize, starts: &mut Starts) -> Result<()> {
    let image = fs::read_dir(store().join("images/sha256"))?.next().transpose()?;
    let Some(image) = image else { return fail("the store holds no image") };
    let image = format!("sha256:{}", image.file_name().to_string_lossy());
    for round in 0..rounds + 2 {
        let id = |what: &str| format!("{}{what}-{}-{round}", bench.prefix, starts.rounds());
        let of_bundle = || done(rcrun(bench).args(["run", "--bundle"]).arg(bundle()).arg(id("bundle")));
        let of_image = || {
            let name = id("image");
            done(rcrun(bench).args(["run", "--store"]).arg(store()).args(["--name", &name, &image, PAYLOAD]))
        };
        let (bundle, image) = match round % 2 {
            0 => (of_bundle()?, of_image()?),
            _ => {
                let image = of_image()?;
                (of_bundle()?, image)
            }
        };
        if round >= 2 {
            starts.bundle.push(bundle.as_secs_f64());
            starts.image.push(image.as_secs_f64());
        }
    }
    Ok(())
}
