//! What the store has, in tables and JSON: list, inspect, history. Uses: table.

use std::ffi::OsStr;

use rcrun_image::document::History;
use rcrun_image::source::Image;
use rcrun_image::store::Store;
use rcrun_image::{Digest, Name};
use rcrun_runtime::{Code, Error, Result};
use serde_json::{Value, json};

use super::table::{bytes, cut, table};
use super::{find, told};
use crate::args::Table;
use crate::output;

/// `rcrun image list`, also where there is no store.
pub fn list(store: Option<&Store>, format: Table, quiet: bool) -> Result<()> {
    let (named, digests) = match store {
        Some(store) => (store.names().map_err(told)?, store.images().map_err(told)?),
        None => Default::default(),
    };
    let mut rows: Vec<(Option<Name>, Digest)> =
        named.iter().map(|n| (Some(n.name.clone()), n.manifest)).collect();
    let nameless = digests.into_iter().filter(|digest| named.iter().all(|n| n.manifest != *digest));
    rows.extend(nameless.map(|digest| (None, digest)));
    if quiet {
        let line = |(name, digest): &(Option<Name>, Digest)| match name {
            Some(name) => format!("{}\n", name.short()),
            None => format!("{digest}\n"),
        };
        return output::print(rows.iter().map(line).collect::<String>());
    }
    let mut objects = Vec::new();
    let mut cells = Vec::new();
    for (name, digest) in rows {
        let Some(store) = store else { break };
        // One that cannot be read, or was removed meanwhile, does not hide the others.
        let image = match store.image(&digest) {
            Ok(image) => Some(image),
            Err(error) if error.code() == rcrun_image::Code::NotFound => continue,
            Err(error) if error.code() == rcrun_image::Code::Damaged => None,
            Err(error) => return Err(told(error)),
        };
        let size = image.as_ref().map(size);
        let created = image.as_ref().and_then(|image| image.config.created.clone());
        let platform = image.as_ref().map(|image| image.config.platform.to_string());
        objects.push(json!({
            "name": name.as_ref().map(Name::to_string),
            "digest": digest,
            "platform": platform,
            "created": created,
            "layers": image.as_ref().map(|image| image.layers.len()),
            "size": size,
            "damaged": image.is_none(),
        }));
        cells.push(vec![
            name.map_or("-".into(), |name| name.short()),
            digest.hex()[..12].into(),
            platform.unwrap_or_else(|| "damaged: see image fsck".into()),
            date(created.as_deref()),
            image.as_ref().map_or("-".into(), |image| image.layers.len().to_string()),
            size.map_or("-".into(), bytes),
        ]);
    }
    match format {
        Table::Json => output::line(&objects),
        Table::Table => output::print(table(
            &["NAME", "DIGEST", "PLATFORM", "CREATED", "LAYERS", "SIZE"],
            &[4, 5],
            &cells,
        )),
    }
}

/// Bytes of all blobs.
fn size(image: &Image) -> u64 {
    let layers: u64 = image.layers.iter().map(|layer| layer.descriptor.size).sum();
    layers.saturating_add(image.config_text.len() as u64).saturating_add(image.manifest.len() as u64)
}

/// `2026-11-21 08:30` of an RFC 3339 time.
fn date(created: Option<&str>) -> String {
    created
        .filter(|text| text.len() >= 16 && text.is_ascii())
        .map_or("-".into(), |text| text[..16].replace('T', " "))
}

/// `rcrun image inspect`
pub fn inspect(store: &Store, word: &OsStr) -> Result<()> {
    let digest = find(store, word)?;
    let image = store.image(&digest).map_err(told)?;
    let document = |text: &[u8]| {
        serde_json::from_slice::<Value>(text)
            .map_err(|e| Error::new(Code::System, format!("a document of the store is no JSON: {e}")))
    };
    let layers: Vec<Value> = image
        .layers
        .iter()
        .map(|layer| {
            let descriptor = &layer.descriptor;
            json!({
                "mediaType": descriptor.media_type,
                "digest": descriptor.digest,
                "size": descriptor.size,
                "diffId": layer.diff_id,
            })
        })
        .collect();
    output::pretty(&json!({
        "names": image.names.iter().map(Name::to_string).collect::<Vec<_>>(),
        "digest": digest,
        "platform": image.config.platform.to_string(),
        "size": size(&image),
        "layers": layers,
        "manifest": document(&image.manifest)?,
        "config": document(&image.config_text)?,
    }))
}

/// The history with the layer of each step: its number in the image.
pub fn steps(image: &Image) -> Vec<(Option<usize>, &History)> {
    let mut layer = 0..image.layers.len();
    image
        .config
        .history
        .iter()
        .map(|step| (if step.empty_layer { None } else { layer.next() }, step))
        .collect()
}

/// What a step says it did, without what builders put around it.
pub fn command(step: &History) -> String {
    let by = step.created_by.as_deref().or(step.comment.as_deref()).unwrap_or("-");
    let by = by.trim_start_matches("/bin/sh -c #(nop) ").trim_start_matches("/bin/sh -c ");
    by.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `rcrun image history`
pub fn history(store: &Store, word: &OsStr, format: Table) -> Result<()> {
    let digest = find(store, word)?;
    let image = store.image(&digest).map_err(told)?;
    let steps = steps(&image);
    // Images of some tools tell no history, or not all.
    let told_of = steps.iter().filter_map(|(layer, _)| *layer).count();
    let rest: Vec<usize> = (told_of..image.layers.len()).collect();
    if format == Table::Json {
        let object = |layer: Option<usize>, step: Option<&History>| {
            json!({
                "created": step.and_then(|step| step.created.clone()),
                "createdBy": step.and_then(|step| step.created_by.clone()),
                "author": step.and_then(|step| step.author.clone()),
                "comment": step.and_then(|step| step.comment.clone()),
                "layer": layer,
                "diffId": layer.map(|layer| image.layers[layer].diff_id),
                "size": layer.map(|layer| image.layers[layer].descriptor.size),
            })
        };
        let objects: Vec<Value> = steps
            .iter()
            .map(|(layer, step)| object(*layer, Some(step)))
            .chain(rest.iter().map(|layer| object(Some(*layer), None)))
            .collect();
        return output::line(&objects);
    }
    let cells = |layer: Option<usize>, created: Option<&str>, by: String| {
        vec![
            layer.map_or("-".into(), |layer| (layer + 1).to_string()),
            date(created),
            layer.map_or("-".into(), |layer| bytes(image.layers[layer].descriptor.size)),
            cut(&by, 100),
        ]
    };
    let mut rows: Vec<Vec<String>> =
        steps.iter().map(|(layer, step)| cells(*layer, step.created.as_deref(), command(step))).collect();
    rows.extend(rest.iter().map(|layer| cells(Some(*layer), None, "-".into())));
    output::print(table(&["LAYER", "CREATED", "SIZE", "BY"], &[0, 2], &rows))
}
