//! What the extended headers before an entry say of it, PAX's records and GNU's long names.
//! Uses: error, tar.

use super::super::error::{Error, Result, Shown};
use super::{Time, pax, sparse};

/// listxattr(2) tells of no more names than fit 64 KiB.
const XATTRS: usize = 1024;

/// What extended headers said about the entry that follows.
#[derive(Default)]
pub struct Extended {
    /// A PAX header was among them.
    pub pax: bool,
    /// The name, as PAX tells it.
    pub path: Option<Vec<u8>>,
    /// A link's target, as PAX tells it.
    pub link: Option<Vec<u8>>,
    /// The name, as GNU tells it.
    pub long_path: Option<Vec<u8>>,
    /// A link's target, as GNU tells it.
    pub long_link: Option<Vec<u8>>,
    /// Bytes of data in the archive.
    pub size: Option<u64>,
    /// The owner.
    pub uid: Option<u64>,
    /// The group.
    pub gid: Option<u64>,
    /// Last changed.
    pub mtime: Option<Time>,
    /// Last read.
    pub atime: Option<Time>,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The map of a sparse file.
    pub sparse: sparse::Records,
}

/// PAX and GNU each have a way to tell a long name: told by both, they must agree.
pub fn one_name(what: &str, pax: Option<Vec<u8>>, gnu: Option<Vec<u8>>) -> Result<Option<Vec<u8>>> {
    match (pax, gnu) {
        (Some(pax), Some(gnu)) if pax != gnu => Err(Error::archive(format!(
            "{what} is \"{}\" to PAX and \"{}\" to GNU",
            Shown(&pax),
            Shown(&gnu)
        ))),
        (pax, gnu) => Ok(pax.or(gnu)),
    }
}

impl Extended {
    /// Applies the records of a PAX header.
    pub fn read(&mut self, mut records: &[u8]) -> Result<()> {
        while !records.is_empty() {
            let (record, rest) = pax::first(records)?;
            records = rest;
            self.record(&record)?;
        }
        Ok(())
    }

    /// Applies a record; an empty value takes an earlier one back.
    fn record(&mut self, record: &pax::Record<'_>) -> Result<()> {
        let value = record.value;
        let wrong = || Error::archive(format!("PAX {} is \"{}\"", Shown(record.key), Shown(value)));
        let number = || -> Result<Option<u64>> {
            if value.is_empty() { Ok(None) } else { pax::decimal(value).map(Some).ok_or_else(wrong) }
        };
        let time = || -> Result<Option<Time>> {
            if value.is_empty() { Ok(None) } else { pax::time(value).map(Some).ok_or_else(wrong) }
        };
        let name = || if value.is_empty() { None } else { Some(value.to_vec()) };
        match record.key {
            b"path" => self.path = name(),
            b"linkpath" => self.link = name(),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" => self.mtime = time()?,
            b"atime" => self.atime = time()?,
            key => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    return self.sparse.take(key, value);
                }
                if let Some(key) = key.strip_prefix(b"SCHILY.xattr.") {
                    let key = pax::attribute(key);
                    self.xattrs.retain(|(other, _)| *other != key);
                    if self.xattrs.len() >= XATTRS {
                        return Err(Error::limit(format!(
                            "more than {XATTRS} extended attributes of one file"
                        )));
                    }
                    self.xattrs.push((key, value.to_vec()));
                }
                // POSIX: a keyword that is not known is passed over. ACLs and SELinux labels in Schilling's and
                // Red Hat's keywords are read by no engine.
            }
        }
        Ok(())
    }
}
