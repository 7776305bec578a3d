//! Of zstd windows above 8 MiB there is one at a time, and nobody waits for ever for it. Uses: made.

mod made;

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use made::*;
use rcrun_image::document::media;
use rcrun_image::import::{Imported, Options, import};
use rcrun_image::jail::Jail;
use rcrun_image::source::{Blobs, Image, Layer, Source};
use rcrun_image::{Platform, Result};

/// A window of 128 MiB, in bytes of memory.
const WINDOW: u64 = 128 << 20;

/// What nobody needs who does not wait for ever.
const LONG: Duration = Duration::from_secs(60);

/// What a child needs to take a window that nothing keeps from it.
const MOMENT: Duration = Duration::from_millis(300);

/// One test at a time: each looks at all children of this process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn jail() -> Jail {
    Jail::with_arguments(["--ignored", "--exact", "the_child", "--test-threads=1", "--nocapture"])
}

#[test]
#[ignore = "is the child of the tests that unpack in a jail"]
fn the_child() {
    rcrun_image::jail::serve();
}

/// The children of this process that have a window of 128 MiB, whether they wrote to all of it or not.
fn with_window() -> Vec<i32> {
    let mut found = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let Ok(children) = std::fs::read_to_string(task.unwrap().path().join("children")) else { continue };
        for pid in children.split_whitespace() {
            let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
            let data = status.lines().find_map(|line| line.strip_prefix("VmData:"));
            let kib: u64 = data.map_or(0, |data| data.trim().trim_end_matches(" kB").parse().unwrap());
            if kib << 10 > WINDOW {
                found.push(pid.parse().unwrap());
            }
        }
    }
    found
}

/// A frame whose window is 128 MiB.
fn wide(content: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    std::io::Write::write_all(&mut encoder, content).unwrap();
    encoder.finish().unwrap()
}

/// The image whose layers are these blobs of these tars.
fn opened(place: &Place, layers: &[(Vec<u8>, Vec<u8>)]) -> (Source, Image) {
    let layers: Vec<_> =
        layers.iter().map(|(blob, tar)| (media::LAYER_ZSTD, blob.clone(), tar.clone())).collect();
    let mut files = Files::new();
    let entry = add(&mut files, &Platform::host().architecture, &layers);
    index(&mut files, &[named(entry, "app:1")]);
    let source = place.open(&place.file("opened.tar", &tarred(&files, false))).unwrap();
    let image = source.select(None, &Platform::host()).unwrap();
    (source, image)
}

/// What happens when the first byte of a layer is asked for, and when its last one was given.
struct Watched<F> {
    source: Source,
    layers: Vec<Layer>,
    happens: F,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    First,
    End,
}

struct Reader<'a, F> {
    blob: Box<dyn Read + Send + 'a>,
    index: usize,
    begun: bool,
    ended: bool,
    happens: &'a F,
}

impl<F: Fn(usize, At) + Sync> Blobs for Watched<F> {
    fn open<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>> {
        let index = self.layers.iter().position(|other| other == layer).unwrap();
        let blob = self.source.open(layer)?;
        Ok(Box::new(Reader { blob, index, begun: false, ended: false, happens: &self.happens }))
    }
}

impl<F: Fn(usize, At)> Read for Reader<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if !std::mem::replace(&mut self.begun, true) {
            (self.happens)(self.index, At::First);
        }
        let read = self.blob.read(buffer)?;
        if read == 0 && !buffer.is_empty() && !std::mem::replace(&mut self.ended, true) {
            (self.happens)(self.index, At::End);
        }
        Ok(read)
    }
}

/// Imports, and panics when that takes for ever.
fn imported(
    place: &Arc<Place>,
    layers: &[(Vec<u8>, Vec<u8>)],
    options: Options,
    happens: impl Fn(usize, At) + Send + Sync + 'static,
) -> Result<Imported> {
    let (source, image) = opened(place, layers);
    let (sender, receiver) = channel();
    let place = place.clone();
    std::thread::spawn(move || {
        let watched = Watched { source, layers: image.layers.clone(), happens };
        let _ = sender.send(import(&place.store, &watched, &image, &options));
    });
    receiver.recv_timeout(LONG).expect("the import ends")
}

#[test]
fn of_many_children_one_has_a_wide_window() {
    let _alone = alone();
    const LAYERS: usize = 6;
    let layers: Vec<_> = (0..LAYERS)
        .map(|i| {
            let tar = layer(&[(&format!("file{i}"), &noise(i as u64, 100_000))]);
            (wide(&tar), tar)
        })
        .collect();
    let place = Arc::new(Place::new());
    let options = Options { parallel: LAYERS, jail: Some(jail()), ..Options::default() };
    let (all_given, seen) = (Barrier::new(LAYERS), Arc::new(Mutex::new(Vec::new())));
    let count = seen.clone();
    let done = imported(&place, &layers, options, move |_, at| {
        if at == At::End {
            // The blobs fit in their pipes: all children have all but the end.
            if all_given.wait().is_leader() {
                std::thread::sleep(MOMENT);
                count.lock().unwrap().push(with_window().len());
            }
            all_given.wait();
        }
    });
    assert_eq!(done.unwrap().unpacked, LAYERS);
    assert_eq!(*seen.lock().unwrap(), [1], "windows at once");
    place.must_be_whole();
}

/// Marks that are set once, and waited for.
#[derive(Default)]
struct Marks(Mutex<Vec<(usize, u8)>>, Condvar);

impl Marks {
    fn set(&self, mark: (usize, u8)) {
        self.0.lock().unwrap().push(mark);
        self.1.notify_all();
    }

    fn wait(&self, mark: (usize, u8)) {
        drop(self.1.wait_while(self.0.lock().unwrap(), |marks| !marks.contains(&mark)).unwrap());
    }
}

#[test]
fn a_layer_with_the_window_does_not_wait_for_one_below_that_waits_for_it() {
    let _alone = alone();
    let noise_of = |large: bool| noise(5, if large { 300_000 } else { 100_000 });
    for (large_below, jail) in
        [false, true].into_iter().flat_map(|large| [(large, None), (large, Some(jail()))])
    {
        let below = layer(&[("d/file", &noise_of(large_below))]);
        let links = Tar::default().hard("d/link", "d/file").dir("more");
        let rest = Tar::default().file("more/file", &noise_of(!large_below)).end();
        // All in a wide frame; what needs the layer below in a small one, before the wide one.
        let head = {
            let mut head = links.end();
            head.truncate(head.len() - 1024);
            head
        };
        let above = [&head[..], &rest].concat();
        let (whole, split) = (wide(&above), [zstd(&head), wide(&rest)].concat());
        for (what, blob) in [("wide", whole), ("small, then wide", split)] {
            // Which of the two comes first to its window.
            for first in [0, 1] {
                let place = Arc::new(Place::new());
                let options = Options { parallel: 2, jail: jail.clone(), ..Options::default() };
                let marks = Marks::default();
                let done = imported(
                    &place,
                    &[(wide(&below), below.clone()), (blob.clone(), above.clone())],
                    options,
                    move |index, at| {
                        let other = 1 - index;
                        match at {
                            At::First => {
                                marks.set((index, 0));
                                marks.wait((other, 0));
                                if index != first {
                                    marks.wait((other, 1));
                                }
                            }
                            At::End => {
                                if index == first {
                                    std::thread::sleep(MOMENT);
                                }
                                marks.set((index, 1));
                            }
                        }
                    },
                );
                let told = format!(
                    "{what}, layer {first} first, below the {}",
                    if large_below { "larger" } else { "smaller" }
                );
                let done = done.unwrap_or_else(|error| panic!("{told}: {error}"));
                let top = &place.store.layers_of(&done.digest).unwrap()[0];
                assert!(std::fs::read(top.path.join("d/link")).unwrap() == noise_of(large_below), "{told}");
                assert!(
                    std::fs::read(top.path.join("more/file")).unwrap() == noise_of(!large_below),
                    "{told}"
                );
                place.must_be_whole();
            }
        }
    }
}

#[test]
fn a_child_that_is_killed_with_the_window_leaves_it_to_others() {
    let _alone = alone();
    let layers: Vec<_> = (0..2)
        .map(|i| {
            let tar = layer(&[(&format!("file{i}"), &noise(i, 100_000))]);
            (wide(&tar), tar)
        })
        .collect();
    let place = Arc::new(Place::new());
    let options = Options { parallel: 2, jail: Some(jail()), ..Options::default() };
    let killed = Arc::new(AtomicUsize::new(0));
    let count = killed.clone();
    let error = imported(&place, &layers, options.clone(), move |_, at| {
        let begun = Instant::now();
        while at == At::End && count.load(Ordering::Relaxed) == 0 && begun.elapsed() < LONG / 2 {
            for pid in with_window() {
                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
                count.fetch_add(1, Ordering::Relaxed);
            }
            std::thread::sleep(MOMENT / 30);
        }
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("ended without a word (signal: 9"), "{error}");
    assert!(killed.load(Ordering::Relaxed) >= 1);
    let done = imported(&place, &layers, options, |_, _| ()).unwrap();
    assert_eq!(place.store.layers_of(&done.digest).unwrap().len(), 2);
    place.must_be_whole();
}
