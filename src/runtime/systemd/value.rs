//! Values as D-Bus has them, with their signatures. Pure.

/// A value. Of D-Bus's types those that properties of units have.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `y`
    Byte(u8),
    /// `b`
    Bool(bool),
    /// `i`
    Int32(i32),
    /// `u`
    Uint32(u32),
    /// `x`
    Int64(i64),
    /// `t`
    Uint64(u64),
    /// `d`
    Double(f64),
    /// `s`
    Text(String),
    /// `a` and the signature of what is in it.
    Array(String, Vec<Value>),
    /// `(...)`
    Struct(Vec<Value>),
    /// `v`
    Variant(Box<Value>),
}

impl Value {
    /// A text.
    pub fn text(text: impl Into<String>) -> Value {
        Value::Text(text.into())
    }

    /// Its type.
    pub fn signature(&self) -> String {
        match self {
            Value::Byte(_) => "y".to_string(),
            Value::Bool(_) => "b".to_string(),
            Value::Int32(_) => "i".to_string(),
            Value::Uint32(_) => "u".to_string(),
            Value::Int64(_) => "x".to_string(),
            Value::Uint64(_) => "t".to_string(),
            Value::Double(_) => "d".to_string(),
            Value::Text(_) => "s".to_string(),
            Value::Array(of, _) => format!("a{of}"),
            Value::Struct(fields) => format!("({})", fields.iter().map(Value::signature).collect::<String>()),
            Value::Variant(_) => "v".to_string(),
        }
    }
}

/// A property of a unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Property {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Value,
}

impl Property {
    /// The property `name`.
    pub fn new(name: impl Into<String>, value: Value) -> Property {
        Property { name: name.into(), value }
    }

    /// A list of properties as the calls of systemd take it: `a(sv)`.
    pub fn list(properties: &[Property]) -> Value {
        let one = |property: &Property| {
            let value = Value::Variant(Box::new(property.value.clone()));
            Value::Struct(vec![Value::text(&property.name), value])
        };
        Value::Array("(sv)".to_string(), properties.iter().map(one).collect())
    }
}
