//! Decoded readings of one schema, side by side in memory as a model wants them.

/// Whether a sensor's value is a gap: the reading did not have it.
pub fn is_gap(value: f32) -> bool {
    value.is_nan()
}

/// Where and when a reading of a [`Batch`] came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadingMeta {
    /// The car, as its shard numbers it.
    pub car: u32,
    /// Event time in milliseconds since the Unix epoch: the device's own if it said one, else when we received it.
    pub time_ms: i64,
    /// When the gate received it, milliseconds since the Unix epoch.
    pub received_ms: i64,
    /// The Kafka partition and offset it was consumed from: with the topic, its identity.
    pub partition: i32,
    /// See `partition`.
    pub offset: i64,
}

/// Readings of one schema: a row-major `[N, S]` matrix of raw sensor values (a gap is NaN) and what is known of each row.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    width: usize,
    values: Vec<f32>,
    meta: Vec<ReadingMeta>,
}

impl Batch {
    /// An empty batch for readings of `width` sensors.
    pub fn new(width: usize) -> Self {
        Batch { width, values: Vec::new(), meta: Vec::new() }
    }

    /// Number of readings.
    pub fn len(&self) -> usize {
        self.meta.len()
    }

    /// Whether there is no reading in it.
    pub fn is_empty(&self) -> bool {
        self.meta.is_empty()
    }

    /// Number of sensors of each reading.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Forgets the readings, keeps the memory.
    pub fn clear(&mut self) {
        self.values.clear();
        self.meta.clear();
    }

    /// Adds a row of gaps for `fill` to write into; the row is kept only if `fill` answers with its meta data.
    pub fn try_push<E>(&mut self, fill: impl FnOnce(&mut [f32]) -> Result<ReadingMeta, E>) -> Result<(), E> {
        let start = self.values.len();
        self.values.resize(start + self.width, f32::NAN);
        match fill(&mut self.values[start..]) {
            Ok(meta) => {
                self.meta.push(meta);
                Ok(())
            }
            Err(error) => {
                self.values.truncate(start);
                Err(error)
            }
        }
    }

    /// The `[N, S]` matrix, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The sensors of reading `n`.
    pub fn row(&self, n: usize) -> &[f32] {
        &self.values[n * self.width..(n + 1) * self.width]
    }

    /// What is known of reading `n` beside its sensors.
    pub fn meta(&self, n: usize) -> &ReadingMeta {
        &self.meta[n]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: ReadingMeta = ReadingMeta { car: 1, time_ms: 2, received_ms: 3, partition: 4, offset: 5 };

    #[test]
    fn a_row_that_fails_to_decode_leaves_no_trace() {
        let mut batch = Batch::new(2);
        batch
            .try_push(|row| {
                row.copy_from_slice(&[1.0, 2.0]);
                Ok::<_, ()>(META)
            })
            .unwrap();
        assert!(
            batch
                .try_push(|row| {
                    row[0] = 9.0;
                    Err(())
                })
                .is_err()
        );
        batch
            .try_push(|row| {
                row[1] = 4.0;
                Ok::<_, ()>(META)
            })
            .unwrap();
        assert_eq!(batch.len(), 2);
        assert_eq!(batch.row(0), [1.0, 2.0]);
        assert!(batch.row(1)[0].is_nan(), "a sensor that was not written is a gap");
        assert_eq!(batch.row(1)[1], 4.0);
    }
}
