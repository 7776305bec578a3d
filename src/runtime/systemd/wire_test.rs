//! Messages: what is written is what the Specification says, and what comes in is read to its end or refused.

use super::super::value::{Property, Value};
use super::*;

const METHOD: Method =
    Method { destination: "org.freedesktop.systemd1", path: "/a", interface: "i.I", member: "Member" };

/// A message as a server writes it: `fields` are code, signature and text or number.
pub(in super::super) fn message(
    kind: u8,
    fields: &[(u8, Value)],
    signature: &str,
    body: &[Value],
) -> Vec<u8> {
    let mut content = Bytes::new();
    body.iter().for_each(|value| content.value(value));
    let mut out = Bytes::new();
    out.0.extend([b'l', kind, 0, 1]);
    out.u32(content.0.len() as u32);
    out.u32(99);
    out.array(8, |out| {
        for (code, value) in fields {
            out.pad(8);
            out.0.push(*code);
            out.value(&Value::Variant(Box::new(value.clone())));
        }
        out.pad(8);
        out.0.extend([SIGNATURE, 1, b'g', 0]);
        out.signature(signature);
    });
    out.pad(8);
    out.0.extend(content.0);
    out.0
}

/// An answer to the call of that serial.
pub(in super::super) fn reply(serial: u32, signature: &str, body: &[Value]) -> Vec<u8> {
    message(REPLY, &[(REPLY_SERIAL, Value::Uint32(serial))], signature, body)
}

/// A call is refused, for that reason.
pub(in super::super) fn error(serial: u32, name: &str) -> Vec<u8> {
    message(ERROR, &[(REPLY_SERIAL, Value::Uint32(serial)), (ERROR_NAME, Value::text(name))], "", &[])
}

/// The end of a job, as systemd says it on its own socket.
pub(in super::super) fn job_removed(job: &str, result: &str) -> Vec<u8> {
    job_removed_by("", job, result)
}

/// The same as a bus passes it on.
pub(in super::super) fn job_removed_by(sender: &str, job: &str, result: &str) -> Vec<u8> {
    let mut fields = vec![
        (PATH, Value::text("/org/freedesktop/systemd1")),
        (INTERFACE, Value::text("org.freedesktop.systemd1.Manager")),
        (MEMBER, Value::text("JobRemoved")),
    ];
    if !sender.is_empty() {
        fields.push((SENDER, Value::text(sender)));
    }
    let body = [Value::Uint32(7), Value::text(job), Value::text("x.scope"), Value::text(result)];
    message(SIGNAL, &fields, "uoss", &body)
}

#[test]
fn a_call_is_written_as_the_specification_says() {
    let mut expected = Vec::new();
    expected.extend(b"l\x01\x00\x01\x09\x00\x00\x00\x05\x00\x00\x00\x62\x00\x00\x00");
    expected.extend(b"\x01\x01o\x00\x02\x00\x00\x00/a\x00\x00\x00\x00\x00\x00");
    expected.extend(b"\x02\x01s\x00\x03\x00\x00\x00i.I\x00\x00\x00\x00\x00");
    expected.extend(b"\x03\x01s\x00\x06\x00\x00\x00Member\x00\x00");
    expected.extend(b"\x06\x01s\x00\x18\x00\x00\x00org.freedesktop.systemd1\x00\x00\x00\x00\x00\x00\x00\x00");
    expected.extend(b"\x08\x01g\x00\x01s\x00");
    expected.resize(expected.len().next_multiple_of(8), 0);
    expected.extend(b"\x04\x00\x00\x00text\x00");
    let bytes = call(5, &METHOD, &[Value::text("text")]);
    // The length of the fields, without the padding after them.
    let fields = u32::from_le_bytes(bytes[12..16].try_into().unwrap());
    expected[12..16].copy_from_slice(&fields.to_le_bytes());
    assert_eq!(bytes, expected);
    assert_eq!(length(bytes.first_chunk().unwrap()), Some(bytes.len()));
    assert_eq!(fields as usize, 16 + 16 + 16 + 40 + 7);
}

#[test]
fn values_are_aligned_from_the_start_of_the_body() {
    for (value, expected) in [
        (Value::Byte(7), &b"\x07"[..]),
        (Value::Bool(true), b"\x01\0\0\0"),
        (Value::Int32(-1), b"\xff\xff\xff\xff"),
        (Value::Uint64(258), b"\x02\x01\0\0\0\0\0\0"),
        (Value::Double(1.0), b"\0\0\0\0\0\0\xf0\x3f"),
        (Value::Array("y".into(), vec![Value::Byte(1), Value::Byte(2)]), b"\x02\0\0\0\x01\x02"),
        (Value::Array("u".into(), vec![Value::Uint32(9)]), b"\x04\0\0\0\x09\0\0\0"),
        // Padding after an array's length is there also where it is empty.
        (Value::Array("(st)".into(), vec![]), b"\0\0\0\0\0\0\0\0"),
        (Value::Variant(Box::new(Value::Bool(false))), b"\x01b\0\0\0\0\0\0"),
        (
            Property::list(&[Property::new("A", Value::Uint64(1))]),
            b"\x18\0\0\0\0\0\0\0\x01\0\0\0A\0\x01t\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0",
        ),
    ] {
        let mut bytes = Bytes::new();
        bytes.value(&value);
        if let Value::Array(..) = value
            && value.signature() == "a(sv)"
        {
            // Its last field is aligned to 8: A at 12 to 13, t at 14 to 16, the number at 24.
            assert_eq!(bytes.0.len(), 32);
        }
        assert_eq!(bytes.0, expected, "{value:?}");
    }
}

#[test]
fn answers_and_signals_are_read() {
    let job = Value::text("/org/freedesktop/systemd1/job/5");
    let error = [(REPLY_SERIAL, Value::Uint32(4)), (ERROR_NAME, Value::text("a.Name"))];
    for (bytes, expected) in [
        (reply(3, "o", &[job]), Message::Reply(3, vec!["/org/freedesktop/systemd1/job/5".into()])),
        (reply(3, "", &[]), Message::Reply(3, vec![])),
        (reply(3, "u", &[Value::Uint32(1)]), Message::Reply(3, vec![])),
        (message(ERROR, &error, "s", &[Value::text("no")]), Message::Error(4, "a.Name".into(), "no".into())),
        (message(ERROR, &error, "", &[]), Message::Error(4, "a.Name".into(), String::new())),
        (job_removed("/job/5", "done"), Message::JobRemoved("/job/5".into(), "done".into(), String::new())),
        (message(SIGNAL, &[(MEMBER, Value::text("Else"))], "", &[]), Message::Other),
    ] {
        assert_eq!(length(bytes.first_chunk().unwrap()), Some(bytes.len()));
        assert_eq!(read(&bytes), Some(expected));
    }
}

#[test]
fn what_is_cut_off_or_changed_is_refused_and_never_read_past_its_end() {
    let whole = job_removed("/job/5", "done");
    for end in 0..whole.len() {
        // Cut off it may still be something, but not this.
        assert_ne!(read(&whole[..end]), read(&whole), "{end}");
    }
    for at in 0..whole.len() {
        for byte in [0, 0x7f, 0xff] {
            let mut changed = whole.clone();
            changed[at] = byte;
            let _ = read(&changed);
            let _ = length(changed.first_chunk().unwrap());
        }
    }
    for head in [*b"x\x02\0\x01\0\0\0\0\0\0\0\0\0\0\0\0", *b"l\x02\0\x02\0\0\0\0\0\0\0\0\0\0\0\0"] {
        assert_eq!(length(&head), None);
    }
    let huge = *b"l\x02\0\x01\xff\xff\xff\xff\x01\0\0\0\xff\xff\xff\xff";
    assert_eq!(length(&huge), None);
}
