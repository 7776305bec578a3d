//! linux.netDevices: network devices of rcrun's own network namespace go into the container's, with their permanent
//! addresses of global scope, and are set up there. Uses: error, netlink, plan.

use crate::error::CallContext;
use crate::netlink::{Link, Netlink, no_device};
use crate::plan::NetDevice;
use crate::{Code, Error, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

/// Moves all devices into the network namespace of `pid`. What is wrong with one is found before the first is moved, as
/// far as it can be: what is moved once is gone with the namespace, or stays in the one that was joined.
pub fn move_all(pid: i32, devices: &[NetDevice]) -> Result<()> {
    let path = format!("/proc/{pid}/ns/net");
    let namespace = File::open(&path).call(format!("open {path}"))?;
    let mut ours = Netlink::open().call("netlink socket")?;
    let mut theirs = netlink_in(&namespace)?;
    let here = ours.links()?;
    let there = theirs.links()?;
    let mut found = Vec::new();
    for device in devices {
        let link = here
            .iter()
            .find(|link| link.name == device.name)
            .ok_or_else(|| at(device, no_device(&device.name)))?;
        if there.iter().any(|link| link.name == device.renamed) {
            let text = format!(
                "a network device {} is in the container's network namespace already",
                device.renamed
            );
            return Err(at(device, Error::new(Code::Host, text).with_errno(libc::EEXIST)));
        }
        found.push((device, link));
    }
    for (device, link) in found {
        one(device, link, &namespace, &mut ours, &mut theirs).map_err(|error| at(device, error))?;
    }
    Ok(())
}

fn one(
    device: &NetDevice,
    link: &Link,
    namespace: &File,
    ours: &mut Netlink,
    theirs: &mut Netlink,
) -> Result<()> {
    let addresses = ours.addresses(link)?;
    let before = theirs.links()?;
    ours.move_link(link, namespace.as_raw_fd(), &device.renamed).map_err(|error| {
        let hint = match error.errno() {
            Some(libc::EPERM) => Some(
                "moving a device takes CAP_NET_ADMIN in rcrun's own network namespace and in the container's",
            ),
            Some(libc::EINVAL) => {
                Some("this kind of device belongs to its network namespace and cannot be moved")
            }
            _ => None,
        };
        error.hint(hint)
    })?;
    // The name may have been made up by the kernel (`eth%d`), and the number is another where it was taken.
    let new = |link: &Link| before.iter().all(|old| old.index != link.index);
    let after = theirs.links()?;
    let mut moved = after.iter().filter(|link| new(link));
    let moved = after
        .iter()
        .find(|link| new(link) && link.name == device.renamed)
        .or_else(|| after.iter().find(|there| new(there) && there.index == link.index))
        .or_else(|| moved.next())
        .ok_or_else(|| no_device(&device.renamed).context("after the move"))?;
    for address in &addresses {
        theirs.add_address(moved, address)?;
    }
    theirs.set_up(moved)
}

/// A socket that belongs to another network namespace: a thread enters it and ends, so that this one never leaves its own.
fn netlink_in(namespace: &File) -> Result<Netlink> {
    let open = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        Netlink::open()
    };
    let opened = std::thread::scope(|scope| scope.spawn(open).join());
    match opened {
        Ok(opened) => opened.call("netlink socket in the container's network namespace"),
        Err(_) => Err(Error::new(Code::System, "a thread for the container's network namespace died")),
    }
}

fn at(device: &NetDevice, error: Error) -> Error {
    let pointer = format!("/linux/netDevices/{}", device.name);
    error.context(pointer.clone()).at(pointer)
}
