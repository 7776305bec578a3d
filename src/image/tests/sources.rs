//! Every form in which an image comes, and every way in which one can lie. Uses: made.

mod made;

use std::os::unix::fs::symlink;

use made::*;
use rcrun_image::document::media;
use rcrun_image::source::Blobs;
use rcrun_image::{Code, Digest, Platform};
use serde_json::{Value, json};

fn host() -> String {
    Platform::host().architecture
}

/// The image is whole, in the store and by its layers.
fn imported(place: &Place) {
    for (_, _, tar) in layers() {
        assert!(place.store.layer(&alone(&tar)).unwrap().is_some(), "layer {}", Digest::of(&tar));
    }
    assert_eq!(read_in_layer(place, &layers()[0].2, "etc/one"), b"1");
    assert_eq!(read_in_layer(place, &layers()[1].2, "big"), noise(2, 600_000));
    assert_eq!(read_in_layer(place, &layers()[2].2, "etc/three"), b"3");
    place.must_be_whole();
}

#[test]
fn a_layout_is_read_as_folder_and_as_tar_in_any_order_compressed_or_not() {
    let files = layout();
    let plain = tarred(&files, false);
    let mut digests = Vec::new();
    for tar in [
        plain.clone(),
        tarred(&files, true),
        gzip(&plain),
        zstd(&plain),
        [gzip(&plain[..99]), gzip(&plain[99..])].concat(),
    ] {
        let place = Place::new();
        digests.push(place.import_tar(&tar, None).unwrap().digest);
        imported(&place);
        assert_eq!(place.store.names().unwrap()[0].name.short(), "app:1");
    }
    let place = Place::new();
    let folder = place.folder.path().join("layout");
    write_folder(&files, &folder);
    let source = place.open(&folder).unwrap();
    let image = source.select(Some("app:1"), &Platform::host()).unwrap();
    rcrun_image::import::import(&place.store, &source, &image, &Default::default()).unwrap();
    imported(&place);
    digests.push(image.digest);
    digests.dedup();
    assert_eq!(digests.len(), 1, "the same image everywhere");
}

#[test]
fn an_archive_is_read_from_a_pipe() {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    let place = Place::new();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
    let writing = std::thread::spawn(move || writer.write_all(&gzip(&tarred(&layout(), false))).unwrap());
    let source = place.open(path.as_ref()).unwrap();
    writing.join().unwrap();
    assert_eq!(source.select(None, &Platform::host()).unwrap().layers.len(), 3);
}

/// What docker save writes since 1.10: layer.tar in a folder each, duplicates as links.
fn docker_save(plain: bool) -> Vec<u8> {
    let layers = layers();
    let diff_ids: Vec<Digest> = [0, 1, 2, 0].iter().map(|i| Digest::of(&layers[*i].2)).collect();
    let config = config(&host(), &diff_ids);
    let manifest = json!([{
        "Config": format!("{}.json", Digest::of(&config).hex()),
        "RepoTags": ["app:1", "localhost:5000/app:2"],
        "Layers": ["a/layer.tar", "b/layer.tar", "c/layer.tar", "d/layer.tar"],
    }]);
    let mut builder = tar::Builder::new(Vec::new());
    let mut file = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content).unwrap();
    };
    for (name, (_, blob, tar)) in ["a", "b", "c"].iter().zip(&layers) {
        file(&format!("{name}/layer.tar"), if plain { tar } else { blob });
    }
    file("manifest.json", manifest.to_string().as_bytes());
    file(&format!("{}.json", Digest::of(&config).hex()), &config);
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "d/layer.tar", "../a/layer.tar").unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn docker_save_with_manifest_json_and_linked_duplicates_is_read() {
    for tar in [docker_save(true), docker_save(false), gzip(&docker_save(true))] {
        let place = Place::new();
        let done = place.import_tar(&tar, Some("localhost:5000/app:2")).unwrap();
        imported(&place);
        let image = place.store.image(&done.digest).unwrap();
        assert_eq!(image.layers.len(), 4);
        assert_eq!(image.layers[0].diff_id, image.layers[3].diff_id);
        assert_eq!(done.unpacked, 3);
        assert_eq!(image.names.len(), 1, "the name that was asked for");
        let again = place.import_tar(&tar, None).unwrap();
        assert_eq!((again.digest, again.blobs, again.unpacked), (done.digest, 0, 0), "nothing is done twice");
        assert_eq!(place.store.names().unwrap().len(), 2);
    }
}

#[test]
fn docker_save_of_today_has_both_and_is_read_as_a_layout() {
    let mut files = layout();
    files.insert("manifest.json".into(), b"[]".to_vec());
    let place = Place::new();
    place.import(&files, None).unwrap();
    imported(&place);
}

#[test]
fn docker_save_of_before_1_10_is_read() {
    let layers = layers();
    let ids = ["aa", "bb", "cc"];
    let mut files = Files::new();
    for (i, (id, (_, _, tar))) in ids.iter().zip(&layers).enumerate() {
        let mut v1 = json!({ "id": id, "os": "linux", "architecture": host(), "created": "2014-01-01T00:00:00Z",
            "container_config": { "Cmd": ["/bin/sh", "-c", "step"] } });
        if i > 0 {
            v1["parent"] = json!(ids[i - 1]);
        }
        v1["config"] = json!({ "Cmd": [id], "Env": null });
        files.insert(format!("{id}/json"), v1.to_string().into_bytes());
        files.insert(format!("{id}/VERSION"), b"1.0".to_vec());
        files.insert(format!("{id}/layer.tar"), tar.clone());
    }
    files.insert("repositories".into(), br#"{"app":{"1":"cc"}}"#.to_vec());
    let place = Place::new();
    let done = place.import(&files, Some("app:1")).unwrap();
    imported(&place);
    let image = place.store.image(&done.digest).unwrap();
    assert_eq!(image.config.config.cmd, ["cc"]);
    assert_eq!(image.config.history[0].created_by.as_deref(), Some("/bin/sh -c step"));
    let order: Vec<Digest> = layers.iter().map(|(_, _, tar)| Digest::of(tar)).collect();
    assert_eq!(image.config.rootfs.diff_ids, order);

    files.insert("aa/json".into(), br#"{"parent":"cc"}"#.to_vec());
    assert!(place.import(&files, None).unwrap_err().to_string().contains("its own ancestor"));
    files.insert("aa/json".into(), br#"{"parent":"../../etc"}"#.to_vec());
    assert!(place.import(&files, None).unwrap_err().to_string().contains("not hexadecimal"));
}

#[test]
fn one_of_several_images_is_chosen_by_name_tag_or_digest() {
    let mut files = Files::new();
    let one = add(&mut files, &host(), &layers()[..1]);
    let two = add(&mut files, &host(), &layers()[1..]);
    let mut three = add(&mut files, &host(), &layers()[..2]);
    three["annotations"] = json!({ "io.containerd.image.name": "docker.io/library/third:v3",
        "org.opencontainers.image.ref.name": "v3" });
    index(&mut files, &[named(one.clone(), "app:1"), named(two.clone(), "latest"), three]);
    let place = Place::new();
    let source = place.open(&place.file("i.tar", &tarred(&files, false))).unwrap();
    let count = |reference: &str| source.select(Some(reference), &Platform::host()).unwrap().layers.len();
    let digest = |entry: &Value| entry["digest"].as_str().unwrap().to_string();
    for (reference, layers) in [
        ("app:1", 1),
        ("docker.io/library/app:1", 1),
        ("1", 1),
        (&digest(&one), 1),
        ("latest", 2),
        (&digest(&two), 2),
        ("third:v3", 2),
        ("v3", 2),
    ] {
        assert_eq!(count(reference), layers, "{reference}");
    }
    let all = source.select(None, &Platform::host()).unwrap_err();
    assert_eq!(all.code(), Code::Ambiguous);
    for name in ["app:1", "latest", "docker.io/library/third:v3"] {
        assert!(all.to_string().contains(name), "{all}");
    }
    let none = source.select(Some("other"), &Platform::host()).unwrap_err();
    assert_eq!(none.code(), Code::NotFound);
    assert!(none.to_string().contains("app:1"), "{none}");
}

#[test]
fn the_platform_is_found_through_nested_indexes_past_attestations() {
    let mut files = Files::new();
    let other = if host() == "arm64" { "amd64" } else { "arm64" };
    let foreign = of_platform(add(&mut files, other, &layers()[..1]), other);
    let own = of_platform(add(&mut files, &host(), &layers()), &host());
    let later = of_platform(add(&mut files, &host(), &layers()[..2]), &host());
    let attestation = json!({ "mediaType": media::MANIFEST, "size": 9, "digest": Digest::of(b"a").to_string(),
        "platform": { "os": "unknown", "architecture": "unknown" },
        "annotations": { "vnd.docker.reference.type": "attestation-manifest" } });
    let unknown = json!({ "mediaType": "application/x", "size": 9, "digest": Digest::of(b"b").to_string() });
    let inner = json!({ "schemaVersion": 2, "mediaType": media::DOCKER_LIST,
        "manifests": [attestation, unknown, foreign, own, later] })
    .to_string();
    put(&mut files, inner.as_bytes());
    index(&mut files, &[named(descriptor(media::DOCKER_LIST, inner.as_bytes()), "app:1")]);
    let place = Place::new();
    place.import(&files, Some("app:1")).unwrap();
    imported(&place);
    let source = place.open(&place.file("i.tar", &tarred(&files, true))).unwrap();
    let foreign = source.select(None, &format!("linux/{other}").parse().unwrap()).unwrap();
    assert_eq!(foreign.layers.len(), 1);
    let error = source.select(None, &"linux/s390x".parse().unwrap()).unwrap_err();
    assert_eq!(error.code(), Code::Platform);
    assert!(
        error.to_string().contains("linux/arm64") && error.to_string().contains("linux/amd64"),
        "{error}"
    );
}

/// Changes a layout, and what the import then says.
type Lie = (&'static str, fn(&mut Files), Code, &'static str);

fn change(files: &mut Files, name: &str, from: &str, to: &str) {
    let text = String::from_utf8(files[name].clone()).unwrap();
    assert!(text.contains(from), "{text}");
    files.insert(name.into(), text.replacen(from, to, 1).into_bytes());
}

fn blob_of(content: &[u8]) -> String {
    format!("blobs/sha256/{}", Digest::of(content).hex())
}

/// A layout with one manifest whose JSON is changed.
fn with_manifest(files: &mut Files, change: impl Fn(&mut Value)) {
    let index_value: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    let digest: Digest = index_value["manifests"][0]["digest"].as_str().unwrap().parse().unwrap();
    let mut manifest: Value =
        serde_json::from_slice(&files[&format!("blobs/sha256/{}", digest.hex())]).unwrap();
    change(&mut manifest);
    let text = manifest.to_string();
    put(files, text.as_bytes());
    index(files, &[descriptor(media::MANIFEST, text.as_bytes())]);
}

const LIES: &[Lie] = &[
    (
        "a digest that is a path",
        |f| change(f, "index.json", "sha256:", "sha256:../../"),
        Code::Invalid,
        "hexadecimal",
    ),
    (
        "no such blob",
        |f| change(f, "index.json", r#""digest":"sha256:"#, r#""digest":"sha512:"#),
        Code::Invalid,
        "128",
    ),
    (
        "a size that is too small",
        |f| with_manifest(f, |m| m["layers"][1]["size"] = json!(1000)),
        Code::Invalid,
        "longer than the 1000 bytes",
    ),
    (
        "a size that is too large",
        |f| with_manifest(f, |m| m["layers"][1]["size"] = json!(u64::MAX)),
        Code::Invalid,
        "ends after",
    ),
    (
        "a negative size",
        |f| with_manifest(f, |m| m["layers"][1]["size"] = json!(-1)),
        Code::Invalid,
        "invalid value",
    ),
    (
        "a configuration of another size",
        |f| with_manifest(f, |m| m["config"]["size"] = json!(3)),
        Code::Invalid,
        "its descriptor says 3",
    ),
    (
        "a configuration that is too large to read",
        |f| with_manifest(f, |m| m["config"]["size"] = json!(5 << 20)),
        Code::Limit,
        "larger than",
    ),
    (
        "a plain layer that was changed",
        |f| {
            let name = blob_of(&layers()[0].1);
            f.get_mut(&name).unwrap()[1000] ^= 1;
        },
        Code::Invalid,
        "has the digest",
    ),
    (
        "a gzip layer that was changed",
        |f| {
            let name = blob_of(&layers()[1].1);
            f.get_mut(&name).unwrap()[3000] ^= 1;
        },
        Code::Invalid,
        "has the digest",
    ),
    (
        "a gzip layer that was cut",
        |f| {
            let name = blob_of(&layers()[1].1);
            f.get_mut(&name).unwrap().truncate(3000);
        },
        Code::Invalid,
        "ends after 3000",
    ),
    (
        "a layer that is not there",
        |f| {
            f.remove(&blob_of(&layers()[2].1));
        },
        Code::NotFound,
        "is not there",
    ),
    (
        "layers in another order than their diffIDs",
        |f| with_manifest(f, |m| m["layers"].as_array_mut().unwrap().swap(0, 1)),
        Code::Invalid,
        "diffID",
    ),
    (
        "one layer less than diffIDs",
        |f| {
            with_manifest(f, |m| {
                m["layers"].as_array_mut().unwrap().pop();
            })
        },
        Code::Invalid,
        "3 entries, and the manifest 2 layers",
    ),
    (
        "gzip that says it is plain",
        |f| with_manifest(f, |m| m["layers"][1]["mediaType"] = json!(media::LAYER)),
        Code::Invalid,
        "its media type says not compressed",
    ),
    (
        "an artifact",
        |f| with_manifest(f, |m| m["config"]["mediaType"] = json!(media::EMPTY)),
        Code::Unsupported,
        "no image but an artifact",
    ),
    (
        "a manifest that is an index too",
        |f| with_manifest(f, |m| m["manifests"] = json!([])),
        Code::Invalid,
        "an index and a manifest at once",
    ),
    (
        "a key twice",
        |f| change(f, "index.json", r#""schemaVersion":2"#, r#""schemaVersion":2,"schemaVersion":2"#),
        Code::Invalid,
        "duplicate field",
    ),
    ("a version from the future", |f| change(f, "oci-layout", "1.0.0", "2.0.0"), Code::Unsupported, "2.0.0"),
    (
        "an index as large as memory",
        |f| {
            f.insert("index.json".into(), vec![b' '; 5 << 20]);
        },
        Code::Limit,
        "larger than",
    ),
    (
        "a million descriptors",
        |f| {
            let one = r#"{"mediaType":"","digest":"","size":0},"#;
            f.insert(
                "index.json".into(),
                format!(r#"{{"schemaVersion":2,"manifests":[{}"#, one.repeat(1_000_000)).into_bytes(),
            );
        },
        Code::Limit,
        "larger than",
    ),
    (
        "more descriptors than anyone has",
        |f| {
            let one =
                json!({ "mediaType": media::MANIFEST, "digest": Digest::of(b"").to_string(), "size": 0 });
            index(f, &vec![one; 20_000]);
        },
        Code::Limit,
        "20000 entries",
    ),
    ("an index without an image", |f| index(f, &[]), Code::NotFound, "no image in it"),
    (
        "an index that names nothing that is there",
        |f| {
            index(
                f,
                &[json!({ "mediaType": media::INDEX, "digest": Digest::of(b"gone").to_string(), "size": 4 })],
            )
        },
        Code::NotFound,
        "named by an index and is not there",
    ),
    (
        "indexes within each other without end",
        |f| {
            let mut text = json!({ "schemaVersion": 2, "manifests": [] }).to_string();
            for _ in 0..12 {
                put(f, text.as_bytes());
                let entry = descriptor(media::INDEX, text.as_bytes());
                text = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
            }
            f.insert("index.json".into(), text.into_bytes());
        },
        Code::Limit,
        "indexes within each other",
    ),
    (
        "more manifests than one looks through",
        |f| {
            let entries: Vec<Value> = (0..400)
                .map(|i| {
                    let text = json!({ "schemaVersion": 2, "manifests": [], "x": i }).to_string();
                    put(f, text.as_bytes());
                    descriptor(media::INDEX, text.as_bytes())
                })
                .collect();
            let outer = json!({ "schemaVersion": 2, "manifests": entries }).to_string();
            put(f, outer.as_bytes());
            index(f, &[descriptor(media::INDEX, outer.as_bytes())]);
        },
        Code::Limit,
        "manifests to look through",
    ),
    (
        "a folder of skopeo's dir:",
        |f| {
            f.clear();
            f.insert("manifest.json".into(), b"\n{\"schemaVersion\":2,\"layers\":[]}".to_vec());
        },
        Code::Unsupported,
        "`skopeo copy dir:FOLDER oci:LAYOUT`",
    ),
    (
        "nothing of an image",
        |f| {
            f.clear();
            f.insert("README".into(), b"hello".to_vec());
        },
        Code::Invalid,
        "is no image",
    ),
];

#[test]
fn a_source_that_lies_is_refused_in_words_and_leaves_no_trace() {
    for (what, lie, code, why) in LIES {
        let place = Place::new();
        let mut files = layout();
        lie(&mut files);
        let error = match place.import(&files, None) {
            Ok(done) => panic!("{what}: was imported as {}", done.digest),
            Err(error) => error,
        };
        let text = error.to_string();
        assert!(text.contains(why) && error.code() == *code, "{what}: {:?}: {text}", error.code());
        assert!(text.contains("image.tar") || text.contains("layer "), "{what}: names no image: {text}");
        assert!(text.len() < 3000);
        assert_eq!(place.store.images().unwrap(), [], "{what}");
        place.must_be_whole();
    }
}

#[test]
fn an_index_that_is_its_own_entry_is_read_once() {
    // A digest cannot stand in its own content, but the archive may hold anything under that name.
    let digest = Digest::of(b"x");
    let text = json!({ "schemaVersion": 2, "manifests": [
        { "mediaType": media::INDEX, "digest": digest.to_string(), "size": 150 } ] })
    .to_string();
    let mut files = Files::new();
    files.insert(format!("blobs/sha256/{}", digest.hex()), text.clone().into_bytes());
    index(&mut files, &[]);
    files.insert("index.json".into(), text.into_bytes());
    let error = Place::new().import(&files, None).unwrap_err();
    assert_eq!(error.code(), Code::Invalid, "{error}");
}

#[test]
fn a_bomb_is_bounded_by_the_limits() {
    let zeros = vec![0; 8 << 20];
    let mut files = Files::new();
    let entry = add(&mut files, &host(), &[(media::LAYER_GZIP, gzip(&zeros), zeros.clone())]);
    index(&mut files, &[entry]);
    let place = Place::new();
    let source = place.open(&place.file("i.tar", &tarred(&files, false))).unwrap();
    let image = source.select(None, &Platform::host()).unwrap();
    let limits = rcrun_image::layer::Limits { stream: 1 << 20, ..Default::default() };
    let options = rcrun_image::import::Options { limits, ..Default::default() };
    let error = rcrun_image::import::import(&place.store, &source, &image, &options).unwrap_err();
    assert_eq!(error.code(), Code::Limit, "{error}");
    place.must_be_whole();
    let limits = rcrun_image::source::Limits { archive: 1 << 20, ..Default::default() };
    let path = place.file("bomb.tar.gz", &gzip(&zeros));
    let error = rcrun_image::source::Source::open(&path, place.store.scratch(), limits).err().unwrap();
    assert_eq!(error.code(), Code::Limit, "{error}");
    place.must_be_whole();
}

#[test]
fn links_of_a_layout_folder_stay_within_it() {
    let place = Place::new();
    let folder = place.folder.path().join("layout");
    let mut files = layout();
    let blob = blob_of(&layers()[0].1);
    let content = files.remove(&blob).unwrap();
    write_folder(&files, &folder);
    let select = || place.open(&folder).unwrap().select(None, &Platform::host());
    let open = || {
        let source = place.open(&folder)?;
        let image = source.select(None, &Platform::host())?;
        source.open(&image.layers[0]).map(|_| ())
    };
    std::fs::write(place.folder.path().join("outside"), &content).unwrap();
    symlink(place.folder.path().join("outside"), folder.join(&blob)).unwrap();
    select().unwrap();
    assert_eq!(open().unwrap_err().code(), Code::NotFound, "an absolute link is resolved within the layout");
    std::fs::remove_file(folder.join(&blob)).unwrap();
    symlink("../../../outside", folder.join(&blob)).unwrap();
    assert_eq!(open().unwrap_err().code(), Code::NotFound, "`..` stops at the layout");
    std::fs::remove_file(folder.join(&blob)).unwrap();
    std::fs::write(folder.join("blobs/elsewhere"), &content).unwrap();
    symlink("../elsewhere", folder.join(&blob)).unwrap();
    open().unwrap();
    std::fs::remove_file(folder.join(&blob)).unwrap();
    let fifo = folder.join(&blob);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    assert!(open().unwrap_err().to_string().contains("no regular file"));
}

#[test]
fn every_truncated_archive_is_an_error_and_leaves_no_trace() {
    let mut files = Files::new();
    let small = layer(&[("x", b"y")]);
    let entry = add(&mut files, &host(), &[(media::LAYER_GZIP, gzip(&small), small)]);
    index(&mut files, &[entry]);
    let place = Place::new();
    let whole = tarred(&files, true);
    // The zeros at the end are no content.
    let content = whole.iter().rposition(|b| *b != 0).unwrap() + 1;
    for tar in [whole.clone(), gzip(&whole)] {
        let end = if tar.len() == whole.len() { content } else { tar.len() };
        for cut in (0..end).step_by(97) {
            assert!(place.import_tar(&tar[..cut], None).is_err(), "cut at {cut} of {}", tar.len());
        }
    }
    assert_eq!(place.store.images().unwrap(), []);
    place.must_be_whole();
    place.import_tar(&whole[..content], None).unwrap();
}
