//! Messages as bytes (D-Bus Specification, "Marshaling" and "Message Format"). Pure.

use super::value::Value;

const CALL: u8 = 1;
const REPLY: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

// Header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SENDER: u8 = 7;
const SIGNATURE: u8 = 8;

/// Bytes of a header before its fields: all that is needed to know how long a message is.
pub const FIXED: usize = 16;

/// The Specification's bound for one message.
const LENGTH_MAX: usize = 1 << 27;

/// Who is called.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// The bus name of who has the object.
    pub destination: &'static str,
    /// The object.
    pub path: &'static str,
    /// The interface.
    pub interface: &'static str,
    /// The method.
    pub member: &'static str,
}

/// The bytes of a call.
pub fn call(serial: u32, method: &Method, arguments: &[Value]) -> Vec<u8> {
    let mut body = Bytes::new();
    arguments.iter().for_each(|argument| body.value(argument));
    let mut out = Bytes::new();
    out.0.extend([b'l', CALL, 0, 1]);
    out.u32(u32::try_from(body.0.len()).unwrap_or(u32::MAX));
    out.u32(serial);
    out.array(8, |out| {
        for (code, kind, text) in [
            (PATH, b"o", method.path),
            (INTERFACE, b"s", method.interface),
            (MEMBER, b"s", method.member),
            (DESTINATION, b"s", method.destination),
        ] {
            out.pad(8);
            out.0.extend([code, 1, kind[0], 0]);
            out.text(text);
        }
        let signature: String = arguments.iter().map(Value::signature).collect();
        if !signature.is_empty() {
            out.pad(8);
            out.0.extend([SIGNATURE, 1, b'g', 0]);
            out.signature(&signature);
        }
    });
    out.pad(8);
    out.0.extend(body.0);
    out.0
}

/// Bytes in the making. All are little-endian: the header says so.
struct Bytes(Vec<u8>);

impl Bytes {
    fn new() -> Bytes {
        Bytes(Vec::with_capacity(1024))
    }

    fn pad(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, number: u32) {
        self.pad(4);
        self.0.extend(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    /// An array whose length is known when it is written. `align` is that of what is in it, and not counted.
    fn array(&mut self, align: usize, fill: impl FnOnce(&mut Bytes)) {
        self.u32(0);
        let at = self.0.len();
        self.pad(align);
        let start = self.0.len();
        fill(self);
        let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        self.0[at - 4..at].copy_from_slice(&length.to_le_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Byte(byte) => self.0.push(*byte),
            Value::Bool(on) => self.u32((*on).into()),
            Value::Int32(number) => self.u32(number.cast_unsigned()),
            Value::Uint32(number) => self.u32(*number),
            Value::Int64(number) => self.u64(number.cast_unsigned()),
            Value::Uint64(number) => self.u64(*number),
            Value::Double(number) => self.u64(number.to_bits()),
            Value::Text(text) => self.text(text),
            Value::Array(of, list) => {
                self.array(alignment(of), |out| list.iter().for_each(|value| out.value(value)));
            }
            Value::Struct(fields) => {
                self.pad(8);
                fields.iter().for_each(|field| self.value(field));
            }
            Value::Variant(inner) => {
                self.signature(&inner.signature());
                self.value(inner);
            }
        }
    }

    fn u64(&mut self, number: u64) {
        self.pad(8);
        self.0.extend(number.to_le_bytes());
    }
}

fn alignment(signature: &str) -> usize {
    match signature.bytes().next() {
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        Some(b'y' | b'g' | b'v') => 1,
        Some(b'n' | b'q') => 2,
        _ => 4,
    }
}

/// How many bytes the message has whose first `FIXED` bytes these are. None for what is no message.
pub fn length(head: &[u8; FIXED]) -> Option<usize> {
    let number = |at: usize| number_at(head, at, head[0] == b'l');
    if !matches!(head[0], b'l' | b'B') || head[3] != 1 {
        return None;
    }
    let fields = usize::try_from(number(12)?).ok()?;
    let body = usize::try_from(number(4)?).ok()?;
    let length = FIXED.checked_add(fields.checked_next_multiple_of(8)?)?.checked_add(body)?;
    (length <= LENGTH_MAX).then_some(length)
}

fn number_at(bytes: &[u8], at: usize, little: bool) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
}

/// What came in, as far as rcrun listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The answer to the call of that serial. Of what is in it, the texts (also paths) that it begins with.
    Reply(u32, Vec<String>),
    /// The refusal of the call of that serial: its name and its text.
    Error(u32, String, String),
    /// A job is done: its path, and how it went, and the unique name of who says so, which a bus fills in.
    JobRemoved(String, String, String),
    /// Something else.
    Other,
}

/// Reads a whole message. None for what is no message.
pub fn read(bytes: &[u8]) -> Option<Message> {
    let little = bytes.first() == Some(&b'l');
    let kind = *bytes.get(1)?;
    let end = FIXED.checked_add(usize::try_from(number_at(bytes, 12, little)?).ok()?)?;
    let mut fields = Reader { bytes: bytes.get(..end)?, at: FIXED, little };
    let mut serial = None;
    let [mut name, mut member, mut interface, mut signature, mut sender] = [const { String::new() }; 5];
    while fields.at < end {
        fields.pad(8)?;
        let code = fields.byte()?;
        match (code, fields.signature()?.as_str()) {
            (REPLY_SERIAL, "u") => serial = Some(fields.u32()?),
            (ERROR_NAME, "s") => name = fields.text()?,
            (MEMBER, "s") => member = fields.text()?,
            (INTERFACE, "s") => interface = fields.text()?,
            (SENDER, "s") => sender = fields.text()?,
            (SIGNATURE, "g") => signature = fields.signature()?,
            (_, "s" | "o") => drop(fields.text()?),
            (_, "g") => drop(fields.signature()?),
            (_, "u") => drop(fields.u32()?),
            _ => return None,
        }
    }
    let body = bytes.get(end.checked_next_multiple_of(8)?..)?;
    let mut body = Reader { bytes: body, at: 0, little };
    Some(match (kind, serial) {
        (REPLY, Some(serial)) => {
            let mut texts = Vec::new();
            for _ in signature.bytes().take_while(|kind| matches!(kind, b's' | b'o')) {
                texts.push(body.text()?);
            }
            Message::Reply(serial, texts)
        }
        (ERROR, Some(serial)) => {
            let text = if signature.starts_with('s') { body.text()? } else { String::new() };
            Message::Error(serial, name, text)
        }
        (SIGNAL, _)
            if (interface.as_str(), member.as_str(), signature.as_str())
                == ("org.freedesktop.systemd1.Manager", "JobRemoved", "uoss") =>
        {
            body.u32()?;
            let job = body.text()?;
            body.text()?;
            Message::JobRemoved(job, body.text()?, sender)
        }
        _ => Message::Other,
    })
}

/// Goes through bytes that somebody else has sent.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    little: bool,
}

impl Reader<'_> {
    fn pad(&mut self, to: usize) -> Option<()> {
        self.at = self.at.checked_next_multiple_of(to)?;
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.pad(4)?;
        let number = number_at(self.bytes, self.at, self.little)?;
        self.at += 4;
        Some(number)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u32()?;
        self.chars(usize::try_from(length).ok()?)
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.byte()?;
        self.chars(length.into())
    }

    /// That many bytes, and the NUL after them.
    fn chars(&mut self, length: usize) -> Option<String> {
        let end = self.at.checked_add(length)?;
        let text = String::from_utf8_lossy(self.bytes.get(self.at..end)?).into_owned();
        self.bytes.get(end).filter(|byte| **byte == 0)?;
        self.at = end.checked_add(1)?;
        Some(text)
    }
}

#[cfg(test)]
#[path = "wire_test.rs"]
pub(super) mod tests;
