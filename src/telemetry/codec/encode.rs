//! Readings to payloads, for those who publish them: the simulated fleet and a replayed file.

use super::Schema;

/// Appends a reading as a JSON object: the sensors by name, then `car` if given, then `time` in milliseconds. A gap
/// (NaN, or what JSON cannot say) is left out. Each value in the shortest decimal form that reads back as the same `f32`.
///
/// `row` has one place for each sensor of the schema. Allocates only when `out` must grow.
pub fn encode_json(schema: &Schema, row: &[f32], time_ms: i64, car: Option<&str>, out: &mut Vec<u8>) {
    let mut float = zmij::Buffer::new();
    out.push(b'{');
    for (sensor, &value) in schema.sensors().iter().zip(row) {
        if value.is_finite() {
            push_string(&sensor.name, out);
            out.push(b':');
            out.extend_from_slice(shortest(&mut float, value));
            out.push(b',');
        }
    }
    if let Some(car) = car {
        out.extend_from_slice(b"\"car\":");
        push_string(car, out);
        out.push(b',');
    }
    out.extend_from_slice(b"\"time\":");
    out.extend_from_slice(itoa::Buffer::new().format(time_ms).as_bytes());
    out.push(b'}');
}

/// Appends a reading as `EVENT,v1#v2#…`; a gap is an empty value. `event` must hold no comma.
pub fn encode_delimited(event: &str, row: &[f32], out: &mut Vec<u8>) {
    let mut float = zmij::Buffer::new();
    out.extend_from_slice(event.as_bytes());
    for (n, &value) in row.iter().enumerate() {
        out.push(if n == 0 { b',' } else { b'#' });
        if value.is_finite() {
            out.extend_from_slice(shortest(&mut float, value));
        }
    }
}

/// `32`, not `32.0`: as devices write it, and two bytes less for each whole number.
fn shortest(buffer: &mut zmij::Buffer, value: f32) -> &[u8] {
    let text = buffer.format_finite(value).as_bytes();
    text.strip_suffix(b".0").unwrap_or(text)
}

fn push_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    if text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        out.extend_from_slice(text.as_bytes());
    } else {
        for c in text.chars() {
            match c {
                '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
                '\0'..='\x1f' => {
                    const HEX: &[u8; 16] = b"0123456789abcdef";
                    let code = c as usize;
                    out.extend_from_slice(&[b'\\', b'u', b'0', b'0', HEX[code >> 4], HEX[code & 15]]);
                }
                _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }
    out.push(b'"');
}
