//! `rcrun image layers`: what each layer added, changed, removed and wasted, as a tree. Uses: show, table.

use rcrun_image::Digest;
use rcrun_image::store::Store;
use rcrun_image::survey::{Amount, Node, survey};
use rcrun_runtime::Result;
use serde_json::{Value, json};

use super::show::{command, steps};
use super::table::{bytes, cut};
use super::{load, told};
use crate::args::Table;
use crate::output::{self, shown};

/// Lines for what is in one folder: what comes after is summed up.
const WIDTH: usize = 12;

/// `rcrun image layers`
pub fn layers(store: &Store, digest: &Digest, depth: usize, format: Table) -> Result<()> {
    let hold = store.hold_image(digest).map_err(told)?;
    let image = store.image(digest).map_err(told)?;
    load::restore(store, digest)?;
    let folders: Vec<_> =
        store.all_layers_of(digest).map_err(told)?.into_iter().map(|layer| layer.fd).collect();
    let nodes = survey(&folders, store.form()).map_err(told)?;
    drop(hold);
    let mut by = vec![String::new(); image.layers.len()];
    for (layer, step) in steps(&image) {
        if let Some(layer) = layer {
            by[layer] = command(step);
        }
    }
    if format == Table::Json {
        let object = |(i, node): (usize, &Node)| {
            let layer = &image.layers[i];
            json!({
                "diffId": layer.diff_id,
                "digest": layer.descriptor.digest,
                "size": layer.descriptor.size,
                "createdBy": by[i],
                "tree": value(node, depth),
            })
        };
        return output::line(&nodes.iter().enumerate().map(object).collect::<Vec<_>>());
    }
    let mut text = String::new();
    let mut wasted = 0;
    for (i, node) in nodes.iter().enumerate() {
        wasted += node.wasted.bytes;
        let hex = image.layers[i].diff_id.hex();
        text += &format!("layer {} of {}  {}  {}\n", i + 1, nodes.len(), &hex[..12], shown(&cut(&by[i], 80)));
        text = format!("{}\n", text.trim_end());
        text += "     ADDED    CHANGED    REMOVED     WASTED\n";
        lines(node, "", "", depth, &mut text);
        text.push('\n');
    }
    let total: u64 = nodes.iter().map(|node| node.added.bytes + node.changed.bytes).sum();
    let share = (wasted * 100).checked_div(total).unwrap_or_default();
    let layers = if nodes.len() == 1 { "layer" } else { "layers" };
    let [total, wasted] = [total, wasted].map(bytes);
    text += &format!("{total} in {} {layers}, {wasted} of it wasted ({share} %)\n", nodes.len());
    output::print(text)
}

fn lines(node: &Node, lead: &str, below: &str, depth: usize, text: &mut String) {
    *text += &format!("{}  {lead}{}\n", columns(node), name(node));
    if depth == 0 {
        return;
    }
    // Links and empty files fill pages, where there is something that weighs.
    let heavy = node.children.iter().filter(|child| child.weight() + child.wasted.bytes > 0).count();
    let shown = if heavy == 0 { node.children.len() } else { heavy };
    let (first, rest) = node.children.split_at(shown.min(WIDTH));
    for (i, child) in first.iter().enumerate() {
        let last = i + 1 == first.len() && rest.is_empty();
        let (lead, next) = if last { ("└── ", "    ") } else { ("├── ", "│   ") };
        lines(child, &format!("{below}{lead}"), &format!("{below}{next}"), depth - 1, text);
    }
    if !rest.is_empty() {
        let mut sum = Node::default();
        for child in rest {
            for (sum, part) in [
                (&mut sum.added, child.added),
                (&mut sum.changed, child.changed),
                (&mut sum.removed, child.removed),
                (&mut sum.wasted, child.wasted),
            ] {
                sum.bytes += part.bytes;
                sum.files += part.files;
            }
        }
        *text += &format!("{}  {below}└── ({} more)\n", columns(&sum), rest.len());
    }
}

fn columns(node: &Node) -> String {
    let cell = |amount: Amount| match amount {
        Amount { files: 0, .. } => "-".to_string(),
        Amount { bytes: amount, .. } => bytes(amount),
    };
    format!(
        "{:>10} {:>10} {:>10} {:>10}",
        cell(node.added),
        cell(node.changed),
        cell(node.removed),
        cell(node.wasted)
    )
}

fn name(node: &Node) -> String {
    let name = shown(&String::from_utf8_lossy(&node.name));
    if node.folder { name + "/" } else { name }
}

fn value(node: &Node, depth: usize) -> Value {
    let amount = |amount: Amount| json!({ "bytes": amount.bytes, "files": amount.files });
    let mut value = json!({
        "name": name(node),
        "added": amount(node.added),
        "changed": amount(node.changed),
        "removed": amount(node.removed),
        "wasted": amount(node.wasted),
    });
    if depth > 0 && !node.children.is_empty() {
        value["children"] = node.children.iter().map(|child| self::value(child, depth - 1)).collect();
    }
    value
}
