//! rtnetlink(7), as far as a network device is moved: messages as bytes, and the socket that they go over.
//! Uses: error.

use crate::error::CallContext;
use crate::{Code, Error, Result};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::os::fd::OwnedFd;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE_EXCL: u16 = 0x600;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_F_PERMANENT: u32 = 0x80;
/// What of an address's flags can be asked for: no duplicate address detection, no route to its network.
const IFA_F_KEPT: u32 = 0x2 | 0x200;
const RT_SCOPE_UNIVERSE: u8 = 0;
const IFF_UP: u32 = 1;

/// struct nlmsghdr, struct ifinfomsg, struct ifaddrmsg, struct rtattr.
const HEADER: usize = 16;
const LINK: usize = 16;
const ADDRESS: usize = 8;
const ATTRIBUTE: usize = 4;

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in its network namespace.
    pub index: i32,
    /// Its name there.
    pub name: String,
}

/// An address of a device, as the kernel's attributes tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    family: u8,
    prefix: u8,
    flags: u32,
    attributes: Vec<(u16, Vec<u8>)>,
}

/// A message that is being made.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, fixed: &[u8]) -> Message {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Message(bytes)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = (ATTRIBUTE + value.len()) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn with_number(mut self, sequence: u32) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[0..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

fn link_header(index: i32, flags: u32, change: u32) -> [u8; LINK] {
    let mut fixed = [0; LINK];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..16].copy_from_slice(&change.to_ne_bytes());
    fixed
}

fn name_bytes(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The attributes in `bytes`; what is cut off is left.
fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let (Some(length), Some(kind)) = (half(bytes, 0), half(bytes, 2)) {
        let length = usize::from(length);
        let Some(value) = bytes.get(ATTRIBUTE..length) else { break };
        // The two highest bits say how a value is nested and ordered.
        found.push((kind & 0x3fff, value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// What a record of a reply says.
#[derive(Debug, PartialEq, Eq)]
enum Record<'a> {
    /// The last of a list.
    Done,
    /// 0 is an acknowledgement, else an errno.
    Outcome(i32),
    /// Anything else: its kind and what follows the header.
    Other(u16, &'a [u8]),
}

/// The records of one datagram that answer message `sequence`.
fn records(mut bytes: &[u8], sequence: u32) -> Vec<Record<'_>> {
    let mut found = Vec::new();
    while let (Some(length), Some(kind), Some(number)) = (word(bytes, 0), half(bytes, 4), word(bytes, 8)) {
        let length = length as usize;
        let Some(body) = bytes.get(HEADER..length) else { break };
        if number == sequence {
            found.push(match kind {
                NLMSG_DONE => Record::Done,
                NLMSG_ERROR => Record::Outcome(word(body, 0).map_or(libc::EIO, |code| -(code as i32))),
                kind => Record::Other(kind, body),
            });
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn link(body: &[u8]) -> Option<Link> {
    let index = word(body, 4)? as i32;
    let name = attributes(body.get(LINK..)?).into_iter().find(|(kind, _)| *kind == IFLA_IFNAME)?.1;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(Link { index, name: String::from_utf8_lossy(name).into_owned() })
}

/// An address of device `index` that is permanent and of global scope.
fn address(body: &[u8], index: i32) -> Option<Address> {
    let (family, prefix, flags, scope) = (*body.first()?, *body.get(1)?, *body.get(2)?, *body.get(3)?);
    let found = attributes(body.get(ADDRESS..)?);
    // Since Linux 3.14 the eight bits of the header are not all.
    let all = found.iter().find(|(kind, _)| *kind == IFA_FLAGS).and_then(|(_, value)| word(value, 0));
    let flags = all.unwrap_or(u32::from(flags));
    let wanted = word(body, 4)? as i32 == index && scope == RT_SCOPE_UNIVERSE && flags & IFA_F_PERMANENT != 0;
    wanted.then(|| Address {
        family,
        prefix,
        flags: flags & IFA_F_KEPT,
        attributes: found
            .into_iter()
            .filter(|(kind, _)| matches!(*kind, IFA_ADDRESS | IFA_LOCAL | IFA_BROADCAST))
            .map(|(kind, value)| (kind, value.to_vec()))
            .collect(),
    })
}

/// A socket in a network namespace.
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// In the network namespace of the calling thread.
    pub fn open() -> rustix::io::Result<Netlink> {
        // Without a protocol it is NETLINK_ROUTE.
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// Sends a message and gives each record of the answer to `each`.
    fn ask(&mut self, message: Message, what: &str, mut each: impl FnMut(&[u8])) -> Result<()> {
        self.sequence += 1;
        let bytes = message.with_number(self.sequence);
        let call = || format!("netlink: {what}");
        rustix::net::send(&self.socket, &bytes, SendFlags::empty()).call(call())?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.call(call())?.0,
            };
            for record in records(&buffer[..length], self.sequence) {
                match record {
                    Record::Done | Record::Outcome(0) => return Ok(()),
                    Record::Outcome(errno) => {
                        return Err(Error::call(call(), std::io::Error::from_raw_os_error(errno)));
                    }
                    Record::Other(_, body) => each(body),
                }
            }
        }
    }

    /// All devices.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let mut found = Vec::new();
        let message = Message::new(RTM_GETLINK, NLM_F_DUMP, &link_header(0, 0, 0));
        self.ask(message, "list the network devices", |body| found.extend(link(body)))?;
        Ok(found)
    }

    /// The permanent addresses of global scope that a device has.
    pub fn addresses(&mut self, of: &Link) -> Result<Vec<Address>> {
        let mut found = Vec::new();
        let message = Message::new(RTM_GETADDR, NLM_F_DUMP, &[0; ADDRESS]);
        self.ask(message, &format!("list the addresses of {}", of.name), |body| {
            found.extend(address(body, of.index));
        })?;
        Ok(found)
    }

    /// Moves a device into the network namespace behind `namespace`, where it gets `name`.
    pub fn move_link(&mut self, link: &Link, namespace: i32, name: &str) -> Result<()> {
        let mut message = Message::new(RTM_NEWLINK, NLM_F_ACK, &link_header(link.index, 0, 0));
        message.attribute(IFLA_NET_NS_FD, &namespace.to_ne_bytes());
        message.attribute(IFLA_IFNAME, &name_bytes(name));
        self.ask(message, &format!("move {} into the container as {name}", link.name), |_| {})
    }

    /// Adds an address to a device.
    pub fn add_address(&mut self, to: &Link, address: &Address) -> Result<()> {
        let index = to.index.to_ne_bytes();
        let fixed =
            [address.family, address.prefix, 0, RT_SCOPE_UNIVERSE, index[0], index[1], index[2], index[3]];
        let mut message = Message::new(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE_EXCL, &fixed);
        for (kind, value) in &address.attributes {
            message.attribute(*kind, value);
        }
        if address.flags != 0 {
            message.attribute(IFA_FLAGS, &address.flags.to_ne_bytes());
        }
        self.ask(message, &format!("add an address to {}", to.name), |_| {})
    }

    /// Sets a device up.
    pub fn set_up(&mut self, link: &Link) -> Result<()> {
        let message = Message::new(RTM_NEWLINK, NLM_F_ACK, &link_header(link.index, IFF_UP, IFF_UP));
        self.ask(message, &format!("set {} up", link.name), |_| {})
    }
}

/// No such device, in the words of the error.
pub fn no_device(name: &str) -> Error {
    Error::new(Code::Host, format!("there is no network device {name} in rcrun's own network namespace"))
        .with_errno(libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        Message::new(kind, 0, body).with_number(sequence)
    }

    #[test]
    fn records_of_other_messages_and_cut_ones_are_left() {
        let mut bytes = message(RTM_NEWLINK, 7, &[1, 2, 3, 4]);
        bytes.extend(message(RTM_NEWLINK, 8, &[5; 4]));
        bytes.extend(message(NLMSG_ERROR, 7, &(-17i32).to_ne_bytes()));
        bytes.extend(message(NLMSG_DONE, 7, &[0; 4]));
        let cut = bytes.len() - 2;
        let first = Record::Other(RTM_NEWLINK, &[1, 2, 3, 4]);
        assert_eq!(records(&bytes, 7), [first, Record::Outcome(17), Record::Done]);
        assert_eq!(records(&bytes[..cut], 7).len(), 2);
        for length in 0..HEADER {
            assert_eq!(records(&bytes[..length], 7), []);
        }
        // A length of nothing must not be looked at for ever.
        assert_eq!(records(&[0; 64], 0), []);
    }

    #[test]
    fn attributes_end_where_the_bytes_do() {
        let mut message = Message(Vec::new());
        message.attribute(3, b"eth0\0");
        message.attribute(0x8000 | 8, &[1, 2]);
        assert_eq!(attributes(&message.0), [(3, &b"eth0\0"[..]), (8, &[1, 2][..])]);
        assert_eq!(attributes(&message.0[..13]), [(3, &b"eth0\0"[..])]);
        assert_eq!(attributes(&[0; 16]), []);
        assert_eq!(attributes(&[255; 3]), []);
    }

    #[test]
    fn only_permanent_addresses_of_global_scope_are_kept() {
        let body = |index: u8, flags: u8, scope: u8, more: Option<u32>| {
            let mut message = Message(vec![2, 24, flags, scope, index, 0, 0, 0]);
            message.attribute(IFA_LOCAL, &[192, 0, 2, 1]);
            message.attribute(3, b"label\0");
            if let Some(flags) = more {
                message.attribute(IFA_FLAGS, &flags.to_ne_bytes());
            }
            message.0
        };
        for (bytes, kept) in [
            (body(5, 0x80, 0, None), Some(0)),
            (body(5, 0x80, 0, Some(0x282)), Some(0x202)),
            (body(5, 0x80, 0, Some(0x200)), None),
            (body(5, 0, 0, None), None),
            (body(5, 0x80, 253, None), None),
            (body(4, 0x80, 0, None), None),
            (vec![2, 24], None),
        ] {
            let found = address(&bytes, 5);
            assert_eq!(found.as_ref().map(|found| found.flags), kept, "{bytes:?}");
            if let Some(found) = found {
                assert_eq!(found.attributes, [(IFA_LOCAL, vec![192, 0, 2, 1])]);
            }
        }
    }
}
