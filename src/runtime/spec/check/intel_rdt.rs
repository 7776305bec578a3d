//! linux.intelRdt. Uses: fault, text.

use oci_spec::runtime::LinuxIntelRdt;

use super::super::fault::{Fault, Quoted};
use super::text::{Checked, bounded, count};

/// A page is what resctrl takes in one write.
const MOST: usize = 4096;
/// What lies in the root of resctrl and is no group.
const OWN: [&str; 3] = ["info", "mon_groups", "mon_data"];

/// Checks the object.
pub fn check(rdt: &LinuxIntelRdt) -> Checked {
    let base = "/linux/intelRdt";
    if let Some(id) = rdt.clos_id().as_deref().filter(|id| !id.is_empty() && *id != "/") {
        let at = format_args!("{base}/closID");
        bounded(id, 255, at)?;
        if id.contains('/') || id.contains('\n') || id == "." || id == ".." || OWN.contains(&id) {
            return Err(Fault::new(at, format_args!("{} is no name of a group, nor \"/\"", Quoted(id))));
        }
    }
    for (field, text) in [("l3CacheSchema", rdt.l3_cache_schema()), ("memBwSchema", rdt.mem_bw_schema())] {
        bounded(text.as_deref().unwrap_or_default(), MOST, format_args!("{base}/{field}"))?;
    }
    if let Some(text) = rdt.mem_bw_schema().as_deref().filter(|text| !text.is_empty())
        && (!text.starts_with("MB:") || text.contains('\n'))
    {
        let at = format_args!("{base}/memBwSchema");
        return Err(Fault::new(at, format_args!("{} is not one line that begins with MB:", Quoted(text))));
    }
    let lines = rdt.schemata().as_deref().unwrap_or_default();
    count(lines.len(), 256, format_args!("{base}/schemata"))?;
    for (i, line) in lines.iter().enumerate() {
        bounded(line, MOST, format_args!("{base}/schemata/{i}"))?;
    }
    Ok(())
}
