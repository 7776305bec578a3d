//! An upper folder becomes an image: its layer's bytes, the spelling of its documents, and its limits. Uses: made.

mod made;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use made::*;
use rcrun_image::commit::{Taken, Words, changes, commit, take};
use rcrun_image::document::media;
use rcrun_image::import::Options;
use rcrun_image::layer::{Changes, Over};
use rcrun_image::{Code, Digest, Platform, Result};
use serde_json::{Value, json};

fn changed(place: &Place, upper: &Path, image: &Digest) -> Changes {
    let layers = place.store.layers_of(image).unwrap();
    let lower = || layers.iter().map(|layer| layer.fd.try_clone()).collect();
    let over = Over {
        form: place.store.form(),
        lower: &lower,
        root: None,
        made: &BTreeMap::new(),
        without: &BTreeSet::new(),
    };
    changes(File::open(upper).unwrap().as_fd(), &over).unwrap()
}

fn taken(place: &Place, upper: &Path, image: &Digest, stop: &dyn Fn() -> Option<String>) -> Result<Taken> {
    let changes = changed(place, upper, image);
    take(&place.store, File::open(upper).unwrap().as_fd(), &changes, place.store.form(), Some(5), stop)
}

fn in_store(place: &Place, digest: &str) -> Vec<u8> {
    let hex = digest.strip_prefix("sha256:").unwrap();
    std::fs::read(place.folder.path().join("store/blobs/sha256").join(hex)).unwrap()
}

/// One image whose documents are in Docker's spelling, and one in OCI's.
fn spelled(docker: bool) -> Files {
    let mut files = Files::new();
    let tar = layer(&[("etc/one", b"1")]);
    let entry = add(&mut files, &Platform::host().architecture, &[(media::LAYER_GZIP, gzip(&tar), tar)]);
    let mut entry = named(entry, "app:1");
    if docker {
        let hex = entry["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_string();
        let text = String::from_utf8(files.remove(&format!("blobs/sha256/{hex}")).unwrap()).unwrap();
        let text = text
            .replace(media::MANIFEST, media::DOCKER_MANIFEST)
            .replace(media::CONFIG, media::DOCKER_CONFIG)
            .replace(media::LAYER_GZIP, media::DOCKER_LAYER);
        put(&mut files, text.as_bytes());
        entry = named(descriptor(media::DOCKER_MANIFEST, text.as_bytes()), "app:1");
    }
    index(&mut files, &[entry]);
    files
}

#[test]
fn the_new_layer_is_spelled_as_its_image_and_its_bytes_hold_no_clock() {
    for (docker, manifest_type, config_type, layer_type) in [
        (false, media::MANIFEST, media::CONFIG, media::LAYER_GZIP),
        (true, media::DOCKER_MANIFEST, media::DOCKER_CONFIG, media::DOCKER_LAYER),
    ] {
        let place = Place::new();
        let base = place.import(&spelled(docker), None).unwrap().digest;
        let upper = place.folder.path().join("upper");
        std::fs::create_dir(&upper).unwrap();
        std::fs::write(upper.join("new"), "new").unwrap();
        let image = place.store.image(&base).unwrap();
        let mut digests = Vec::new();
        for _ in 0..2 {
            let taken = taken(&place, &upper, &base, &|| None).unwrap();
            let options = Options { names: vec!["app:2".parse().unwrap()], ..Options::default() };
            let made = commit(&place.store, &image, &taken, &Words::default(), Some(5), &options).unwrap();
            digests.push(made.digest);
        }
        assert_eq!(digests[0], digests[1]);
        let new = place.store.image(&digests[0]).unwrap();
        let manifest: Value = serde_json::from_slice(&new.manifest).unwrap();
        assert_eq!(manifest["mediaType"], manifest_type);
        assert_eq!(manifest["config"]["mediaType"], config_type);
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 2);
        assert_eq!(layers[1]["mediaType"], layer_type);
        let blob = in_store(&place, layers[1]["digest"].as_str().unwrap());
        assert_eq!(blob[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0], "gzip without name and time");
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(&blob[..]).read_to_end(&mut tar).unwrap();
        let config: Value = serde_json::from_slice(&new.config_text).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][1], json!(Digest::of(&tar).to_string()));
        assert_eq!(config["created"], "1970-01-01T00:00:05Z");
        // The image came without a history: each layer has a step, or readers count them wrong.
        let history = config["history"].as_array().unwrap();
        assert_eq!(history.len(), 2);
        assert_eq!(read_in_layer(&place, &tar, "new"), b"new");
        place.must_be_whole();
    }
}

#[test]
fn an_image_with_all_the_layers_there_may_be_gets_none_more() {
    let place = Place::new();
    let mut files = Files::new();
    let layers: Vec<_> = (0..500)
        .map(|i| {
            let tar = layer(&[(&format!("f{i}"), b"")]);
            (media::LAYER, tar.clone(), tar)
        })
        .collect();
    let entry = add(&mut files, &Platform::host().architecture, &layers);
    index(&mut files, &[named(entry, "app:1")]);
    let base = place.import(&files, None).unwrap().digest;
    let upper = place.folder.path().join("upper");
    std::fs::create_dir(&upper).unwrap();
    std::fs::write(upper.join("new"), "new").unwrap();
    let image = place.store.image(&base).unwrap();
    let taken = taken(&place, &upper, &base, &|| None).unwrap();
    let error =
        commit(&place.store, &image, &taken, &Words::default(), None, &Options::default()).unwrap_err();
    assert_eq!(error.code(), Code::Limit);
    assert_eq!(error.to_string(), "the image would have 501 layers, and 500 is the most");
    place.must_be_whole();
}

#[test]
fn who_is_asked_to_stop_stops_and_leaves_nothing() {
    let place = Place::new();
    let base = place.import(&layout(), None).unwrap().digest;
    let upper = place.folder.path().join("upper");
    std::fs::create_dir(&upper).unwrap();
    std::fs::write(upper.join("big"), noise(9, 3 << 20)).unwrap();
    let asked = std::cell::Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        (asked.get() > 5).then(|| "SIGTERM came".to_string())
    };
    let error = taken(&place, &upper, &base, &stop).unwrap_err();
    assert!(error.to_string().ends_with("SIGTERM came"), "{error}");
    assert!(asked.get() < 12, "{} pieces more were written", asked.get());
    place.must_be_whole();
}
