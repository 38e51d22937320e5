//! How records stand in a segment, byte for byte (numbers are little-endian), and what can still be read of a damaged one.
//!
//! ```text
//! segment: "DLWAL 1\n"  id u64  first u64  crc u32       crc of the bytes before it
//! record:  length u32   crc u32  seq u64  time i64  body   crc of body, length, seq, time
//! ```
//! The highest bit of `length` is set in the first record of a batch. A batch is written only after the one before it is
//! synced: so damage with a later batch behind it is damage to what was kept, and damage in the last batch is, as a rule, one
//! that a power failure cut short and that nobody was told to be kept.

use crc32fast::Hasher;

/// Bytes before a segment's first record.
pub const HEADER: usize = 28;
/// Bytes of a record beside its body.
pub const OVERHEAD: usize = 24;
/// Most bytes of a body.
pub const BODY: usize = 1 << 29;

const MAGIC: &[u8; 8] = b"DLWAL 1\n";
const BEGINS: u32 = 1 << 31;

/// A record as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its number in the log.
    pub seq: u64,
    /// When it was appended, milliseconds since the Unix epoch.
    pub time: i64,
    /// What was appended.
    pub body: &'a [u8],
    /// Whether a batch begins with it.
    pub begins: bool,
}

impl Record<'_> {
    /// Bytes it takes up.
    pub fn size(&self) -> usize {
        OVERHEAD + self.body.len()
    }
}

/// What stands at some place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A record.
    Record(Record<'a>),
    /// The beginning of one of so many bytes, or of none: there are too few bytes to tell.
    Short(usize),
    /// No record.
    Bad,
}

/// The first bytes of a segment.
pub fn header(id: u64, first: u64) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&id.to_le_bytes());
    bytes[16..24].copy_from_slice(&first.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..24]);
    bytes[24..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The log's id that a segment's first bytes name, if they are those of the segment that begins with `first`.
pub fn id_of(bytes: &[u8], first: u64) -> Option<u64> {
    let id = number(bytes, 8)?;
    (bytes.get(..HEADER)? == header(id, first)).then_some(id)
}

/// The part of a record's checksum that can be had before it has a number.
pub fn checksum(parts: &[&[u8]]) -> Hasher {
    let mut hasher = Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher
}

/// Writes a record whose body is `parts`, with [`checksum`] of them.
pub fn write(out: &mut Vec<u8>, seq: u64, time: i64, begins: bool, parts: &[&[u8]], checksum: Hasher) {
    let length = parts.iter().map(|part| part.len()).sum::<usize>() as u32 | if begins { BEGINS } else { 0 };
    let mut head = [0; OVERHEAD];
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[8..16].copy_from_slice(&seq.to_le_bytes());
    head[16..].copy_from_slice(&time.to_le_bytes());
    let crc = sealed(checksum, &head);
    head[4..8].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&head);
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

fn sealed(mut hasher: Hasher, head: &[u8; OVERHEAD]) -> u32 {
    hasher.update(&head[..4]);
    hasher.update(&head[8..]);
    hasher.finalize()
}

/// What stands at the beginning of `bytes`.
pub fn find(bytes: &[u8]) -> Found<'_> {
    let Some(head) = bytes.first_chunk::<OVERHEAD>() else { return Found::Short(OVERHEAD) };
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let size = (length & !BEGINS) as usize;
    if size > BODY {
        return Found::Bad;
    }
    let Some(body) = bytes.get(OVERHEAD..OVERHEAD + size) else { return Found::Short(OVERHEAD + size) };
    let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    if sealed(checksum(&[body]), head) != crc {
        return Found::Bad;
    }
    let (Some(seq), Some(time)) = (number(head, 8), number(head, 16)) else { return Found::Bad };
    Found::Record(Record { seq, time: time as i64, body, begins: length & BEGINS != 0 })
}

/// Where, after the damage at the beginning of `bytes`, the next record stands that can be read. Its number must be
/// `expected` or above, and no further above than there is room for records.
pub fn next_readable(bytes: &[u8], expected: u64) -> Option<usize> {
    let most = expected.saturating_add((bytes.len() / OVERHEAD) as u64);
    (1..bytes.len().saturating_sub(OVERHEAD - 1)).find(|&at| {
        // The number first: it rules nearly every place out without a checksum.
        number(bytes, at + 8).is_some_and(|seq| (expected..=most).contains(&seq))
            && matches!(find(&bytes[at..]), Found::Record(_))
    })
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk::<8>().map(|eight| u64::from_le_bytes(*eight))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Vec<u8> {
        let mut out = Vec::new();
        for (seq, body) in [(7, b"one".as_slice()), (8, b""), (9, b"three")] {
            write(&mut out, seq, -5, seq == 7, &[body], checksum(&[body]));
        }
        out
    }

    #[test]
    fn what_is_written_is_found_and_a_cut_record_is_short() {
        let bytes = three();
        let one = Record { seq: 7, time: -5, body: b"one", begins: true };
        assert_eq!(find(&bytes), Found::Record(one));
        let rest = &bytes[one.size()..];
        assert_eq!(find(rest), Found::Record(Record { seq: 8, time: -5, body: b"", begins: false }));
        assert_eq!(find(&bytes[..10]), Found::Short(OVERHEAD));
        assert_eq!(find(&bytes[..OVERHEAD + 2]), Found::Short(OVERHEAD + 3));
    }

    #[test]
    fn whichever_bit_is_flipped_the_record_is_not_found_and_the_next_one_is() {
        let whole = three();
        for bit in 0..8 * (OVERHEAD + 3) {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(find(&bytes), Found::Record(_)), "bit {bit}");
            assert_eq!(next_readable(&bytes, 7), Some(OVERHEAD + 3), "bit {bit}");
        }
    }

    #[test]
    fn a_header_names_its_log_and_its_first_record() {
        let bytes = header(77, 5);
        assert_eq!(id_of(&bytes, 5), Some(77));
        assert_eq!(id_of(&bytes, 6), None);
        assert_eq!(id_of(&bytes[..20], 5), None);
    }
}
