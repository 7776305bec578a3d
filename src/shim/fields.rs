//! The fields of a protobuf message of which we know some, by their numbers: what Kubernetes calls a pod, for one, is a thousand
//! lines of generated code of which ten fields count here. Pure.

use containerd_shim_protos::protobuf::{CodedInputStream, Error};

/// A field's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number, a bool or an enum.
    Number(u64),
    /// A text, bytes, a message, or an entry of a map, which is a message of key (1) and value (2).
    Bytes(Vec<u8>),
}

/// A message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(u32, Value)>);

impl Fields {
    /// Reads one.
    pub fn read(bytes: &[u8]) -> Result<Fields, Error> {
        const VARINT: u32 = 0;
        const FIXED64: u32 = 1;
        const LENGTH: u32 = 2;
        const FIXED32: u32 = 5;
        let mut input = CodedInputStream::from_bytes(bytes);
        let mut fields = Vec::new();
        while let Some(tag) = input.read_raw_tag_or_eof()? {
            let value = match tag & 7 {
                VARINT => Value::Number(input.read_raw_varint64()?),
                FIXED64 => Value::Number(input.read_fixed64()?),
                FIXED32 => Value::Number(input.read_fixed32()?.into()),
                LENGTH => Value::Bytes(input.read_bytes()?),
                // A group: nobody writes one any more.
                other => return Err(std::io::Error::other(format!("wire type {other}")).into()),
            };
            fields.push((tag >> 3, value));
        }
        Ok(Fields(fields))
    }

    /// A number; the last one counts, and 0 where there is none.
    pub fn number(&self, field: u32) -> u64 {
        let numbers = self.0.iter().rev().filter(|(number, _)| *number == field);
        numbers
            .filter_map(|(_, value)| if let Value::Number(n) = value { Some(*n) } else { None })
            .next()
            .unwrap_or(0)
    }

    /// All values of a field that has more than one.
    pub fn all(&self, field: u32) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.iter().filter(move |(number, _)| *number == field).filter_map(|(_, value)| match value {
            Value::Bytes(bytes) => Some(bytes.as_slice()),
            Value::Number(_) => None,
        })
    }

    /// A text; empty where there is none.
    pub fn text(&self, field: u32) -> String {
        String::from_utf8_lossy(self.all(field).next_back().unwrap_or_default()).into_owned()
    }

    /// A message, if it is there.
    pub fn message(&self, field: u32) -> Result<Option<Fields>, Error> {
        self.all(field).next_back().map(Fields::read).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::protobuf::Message;
    use containerd_shim_protos::shim::oci::Options;

    #[test]
    fn fields_are_found_by_their_numbers() {
        let mut options = Options::new();
        (options.no_pivot_root, options.io_uid, options.root) = (true, 70_000, "/r".into());
        let fields = Fields::read(&options.write_to_bytes().unwrap()).unwrap();
        // runc's options: no_pivot_root 1, no_new_keyring 2, io_uid 4, root 7.
        assert_eq!([1, 2, 4].map(|field| fields.number(field)), [1, 0, 70_000]);
        let root = fields.0.iter().find(|(_, value)| *value == Value::Bytes(b"/r".to_vec())).unwrap().0;
        assert_eq!((fields.text(root).as_str(), fields.text(99).as_str()), ("/r", ""));
        assert!(fields.message(99).unwrap().is_none());
        for broken in
            [&b"\x0a\x05abc"[..], b"\x08", b"\x0b\x0c", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"]
        {
            assert!(Fields::read(broken).is_err(), "{broken:?}");
        }
    }
}
