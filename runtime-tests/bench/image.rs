//! `make bench-image`: how long an image takes to become a root file system, here and with other tools, against floors
//! of our own. Alternating rounds; only times of one round are compared. Uses: rcrun-image, for the floors.

mod floors;
mod fresh;
mod page;
mod second;
mod tools;

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::stats::{Quartiles, quartiles};
use crate::{Result, fail};
use floors::Layers;
use fresh::Fresh;
pub use page::{gate, table};
use tools::Tool;

/// What the layers are compressed with: each an image of its own, of the same tars.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Gzip,
    Zstd,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Gzip => "gzip",
            Kind::Zstd => "zstd",
        }
    }
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Column {
    /// A program, from its start to its end.
    Tool(Tool),
    /// A part of the work, in this process, with rcrun's own code.
    Floor(floors::Part),
}

impl Column {
    fn name(self) -> &'static str {
        match self {
            Column::Tool(tool) => tool.name(),
            Column::Floor(part) => part.name(),
        }
    }
}

/// The seconds of one image: of each column, one for each round.
pub struct Series {
    pub kind: Kind,
    pub columns: Vec<Column>,
    pub seconds: Vec<Vec<f64>>,
    /// Of all processors, in user and system mode together.
    pub worked: Vec<Vec<f64>>,
}

impl Series {
    fn of(&self, column: Column) -> Result<&[f64]> {
        match self.columns.iter().position(|c| *c == column) {
            Some(at) => Ok(&self.seconds[at]),
            None => fail(format!("{} was not measured with {}", column.name(), self.kind.name())),
        }
    }

    /// In each round the larger of the two halves of the work: what the whole cannot be faster than, with processors
    /// enough to do the other half meanwhile.
    fn floor(&self) -> Result<Vec<f64>> {
        let [verify, write] = [floors::Part::Verify, floors::Part::Write].map(Column::Floor);
        Ok(self.of(verify)?.iter().zip(self.of(write)?).map(|(verify, write)| verify.max(*write)).collect())
    }

    /// The same with the processors there are: both halves' time of them is to be had too.
    fn floor_here(&self) -> Result<Vec<f64>> {
        let processors = std::thread::available_parallelism()?.get() as f64;
        let place = |part| self.columns.iter().position(|c| *c == Column::Floor(part)).ok_or("no floor");
        let (verify, write) = (place(floors::Part::Verify)?, place(floors::Part::Write)?);
        let sums = self.worked[verify].iter().zip(&self.worked[write]).map(|(a, b)| (a + b) / processors);
        Ok(sums.zip(self.floor()?).map(|(sum, floor)| floor.max(sum)).collect())
    }

    fn rcrun_to(&self, others: &[f64]) -> Result<Quartiles> {
        let rcrun = self.of(Column::Tool(Tool::Rcrun))?;
        Ok(quartiles(rcrun.iter().zip(others).map(|(rcrun, other)| rcrun / other)))
    }

    fn append(&mut self, mut more: Series) {
        for (all, more) in [(&mut self.seconds, &mut more.seconds), (&mut self.worked, &mut more.worked)] {
            all.iter_mut().zip(more).for_each(|(all, more)| all.append(more));
        }
    }
}

/// Everything that the timer needs.
pub struct Bench {
    rcrun: PathBuf,
    images: PathBuf,
    layers: [Layers; 2],
    /// How many files, folders and links the tree has that all layers make together.
    entries: usize,
    /// Where fresh folders are made; else each time on a tmpfs of its own.
    on: Option<PathBuf>,
    prefix: String,
}

impl Bench {
    /// `images` is where image.sh put them.
    pub fn new(rcrun: &Path, images: &Path, on: Option<PathBuf>, prefix: String) -> Result<Bench> {
        let rcrun = std::fs::canonicalize(rcrun).or_else(|e| fail(format!("{}: {e}", rcrun.display())))?;
        let layers: [Layers; 2] =
            [Layers::read(&images.join(Kind::Gzip.name()))?, Layers::read(&images.join(Kind::Zstd.name()))?];
        let mut bench = Bench { rcrun, images: images.to_owned(), layers, entries: 0, on, prefix };
        bench.layers[0].decompress_all()?;
        for kind in [Kind::Gzip, Kind::Zstd] {
            tools::archive(&bench.layout(kind), &bench.archive(kind))?;
        }
        second::prepare(&bench)?;
        bench.entries = fresh::entries(&second::tree())?;
        Ok(bench)
    }

    /// Removes what is left of it where the caller chose.
    pub fn remove(&self) -> Result<()> {
        self.on.as_ref().map_or(Ok(()), |on| fresh::remove_all(on, &self.prefix))
    }

    fn layout(&self, kind: Kind) -> PathBuf {
        self.images.join(kind.name())
    }

    /// The layout as one file.
    fn archive(&self, kind: Kind) -> PathBuf {
        Path::new(crate::host::WORK).join(kind.name()).with_extension("tar")
    }

    fn layers(&self, kind: Kind) -> &Layers {
        &self.layers[kind as usize]
    }

    /// Times all columns in alternating rounds, after one that is not counted: it brings the files into memory.
    fn measure(&self, kind: Kind, columns: &[Column], rounds: usize, warm: usize) -> Result<Series> {
        let mut seconds = vec![Vec::new(); columns.len()];
        let mut worked = seconds.clone();
        for round in 0..warm + rounds {
            for place in 0..columns.len() {
                let column = (round + place) % columns.len();
                let (time, work) = self.once(kind, columns[column])?;
                if round >= warm {
                    seconds[column].push(time.as_secs_f64());
                    worked[column].push(work.as_secs_f64());
                }
            }
        }
        Ok(Series { kind, columns: columns.to_vec(), seconds, worked })
    }

    fn once(&self, kind: Kind, column: Column) -> Result<(Duration, Duration)> {
        let fresh = Fresh::new(self.on.as_deref(), &self.prefix)?;
        let before = processor_time()?;
        let time = match column {
            Column::Tool(tool) => tool.time(self, kind, fresh.path())?,
            Column::Floor(part) => part.time(self.layers(kind), &self.layers[0], fresh.path())?,
        };
        let work = processor_time()? - before;
        // What was timed did its work.
        if column.writes() && fresh::entries(fresh.path())? < self.entries {
            return fail(format!("{} left less than the tree of the image", column.name()));
        }
        fresh.remove()?;
        Ok((time, work))
    }
}

impl Column {
    fn writes(self) -> bool {
        match self {
            Column::Tool(_) => true,
            Column::Floor(part) => part == floors::Part::Write,
        }
    }
}

/// What this process and the children that it has waited for have used.
fn processor_time() -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        for time in [usage.user_time(), usage.system_time()] {
            sum += Duration::from_micros(u64::try_from(time.num_microseconds())?);
        }
    }
    Ok(sum)
}
