//! linux.netDevices: names that the kernel takes (dev_valid_name of net/core/dev.c). Uses: fault, text.

use oci_spec::runtime::{self as oci, LinuxNamespaceType};

use super::super::Namespace;
use super::super::fault::{Fault, Quoted};
use super::text::{Checked, count};
use super::{entry, namespace};

/// IFNAMSIZ counts the NUL.
const LONGEST_NAME: usize = 15;
const MAX_DEVICES: usize = 1024;

/// Checks the devices that are to be moved into the container.
pub fn all(spec: &oci::Spec, linux: &oci::Linux) -> Checked {
    let Some(devices) = linux.net_devices().as_ref().filter(|devices| !devices.is_empty()) else {
        return Ok(());
    };
    let base = "/linux/netDevices";
    if namespace(spec, LinuxNamespaceType::Network) == Namespace::Inherit {
        let text = "needs a network namespace in /linux/namespaces: the devices are there already";
        return Err(Fault::new(base, text));
    }
    count(devices.len(), MAX_DEVICES, format_args!("{base}"))?;
    let mut sorted: Vec<_> = devices.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    let mut taken = Vec::new();
    for (name, device) in sorted {
        if !valid(name) || name.contains('%') {
            let shown = Quoted(name);
            return Err(Fault::new(
                entry(base, name),
                format_args!("{shown} is no name of a network device"),
            ));
        }
        let given = device.name().as_deref().filter(|given| !given.is_empty());
        let inside = given.unwrap_or(name);
        // The kernel knows one template: a single %d.
        let template = inside.contains('%');
        if !valid(inside) || template && (inside.matches('%').count() > 1 || !inside.contains("%d")) {
            let at = format!("{}/name", entry(base, name));
            return Err(Fault::new(at, format_args!("{} is no name of a network device", Quoted(inside))));
        }
        if !template && taken.contains(&inside) {
            let at = format!("{}/name", entry(base, name));
            return Err(Fault::new(at, format_args!("{} is the name of another one", Quoted(inside))));
        }
        taken.push(inside);
    }
    Ok(())
}

fn valid(name: &str) -> bool {
    let plain = |c: char| c != '/' && c != ':' && !c.is_ascii_whitespace() && c != '\u{b}' && c != '\0';
    !name.is_empty() && name.len() <= LONGEST_NAME && name != "." && name != ".." && name.chars().all(plain)
}
