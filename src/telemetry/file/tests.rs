//! Tests of [`super`]: what is read, what is refused and how it is said, and that what is written reads back.

use super::*;

fn open(text: &str) -> Result<FileReader, FileError> {
    FileReader::new("dir/night.csv", io::Cursor::new(text.as_bytes().to_vec()))
}

type Row = (i64, String, Vec<f32>, Option<(bool, String)>);

fn read(reader: &mut FileReader) -> Result<Vec<Row>, FileError> {
    let mut row = vec![0.0; reader.sensors().len()];
    let mut rows = Vec::new();
    while let Some(meta) = reader.next_into(&mut row)? {
        let label = meta.label.map(|label| (label.anomalous, label.failures.to_owned()));
        rows.push((meta.time_ms, meta.car.to_owned(), row.clone(), label));
    }
    Ok(rows)
}

fn all(text: &str) -> Vec<Row> {
    read(&mut open(text).unwrap()).unwrap()
}

fn refusal(text: &str) -> String {
    match open(text).and_then(|mut reader| read(&mut reader)) {
        Err(error) => error.to_string(),
        Ok(rows) => panic!("read {rows:?}"),
    }
}

#[test]
fn readings_come_in_the_files_order_with_gaps_as_nan() {
    let rows = all("time,car,a,b\n1567606196,car1,1.5,\n1567606196500,car2,NaN,-2e3\n\n2019-09-04T14:09:57Z,,null,7\n");
    assert_eq!(rows.len(), 3);
    assert_eq!((rows[0].0, rows[0].1.as_str(), rows[0].2[0]), (1_567_606_196_000, "car1", 1.5));
    assert!(rows[0].2[1].is_nan() && rows[1].2[0].is_nan() && rows[2].2[0].is_nan());
    assert_eq!((rows[1].0, rows[1].2[1]), (1_567_606_196_500, -2000.0));
    assert_eq!((rows[2].0, rows[2].1.as_str()), (1_567_606_197_000, "night"));
    assert!(rows.iter().all(|row| row.3.is_none()));
}

#[test]
fn without_a_car_column_the_file_is_the_car() {
    let mut reader = open("\u{feff}Time,a\r\n1,2\r\n3,4").unwrap();
    assert!(!reader.has_car());
    assert_eq!(
        read(&mut reader).unwrap(),
        [(1000, "night".into(), vec![2.0], None), (3000, "night".into(), vec![4.0], None)]
    );
}

#[test]
fn both_kinds_of_labels_are_understood() {
    let rows = all("time,car,a,anomaly\n1,c,1,0\n2,c,1,1\n3,c,1,\n");
    assert_eq!(
        rows.iter().map(|row| row.3.clone()).collect::<Vec<_>>(),
        [Some((false, String::new())), Some((true, String::new())), None]
    );
    let rows = all("time,car,a,failures\n1,c,1,\n2,c,1,tyre overheating\n");
    assert_eq!(rows[0].3, Some((false, String::new())));
    assert_eq!(rows[1].3, Some((true, "tyre overheating".into())));
}

#[test]
fn quotes_hold_commas_and_quotes() {
    let rows = all("\"time\",car,\"a,b\"\n1,\"x, \"\"y\"\"\",3\n2,\"\",\"4\"\n");
    assert_eq!((rows[0].1.as_str(), rows[0].2[0]), ("x, \"y\"", 3.0));
    assert_eq!((rows[1].1.as_str(), rows[1].2[0]), ("night", 4.0));
}

#[test]
fn a_schema_brings_its_own_order_and_spellings() {
    let mut reader = open("time,car,TIRE_PRESSURE11,odd,speed\n1,c,32,x,20\n").unwrap();
    let schema = Schema::car_sensors();
    let binding = reader.bind(&schema).unwrap();
    assert_eq!(binding.ignored, ["odd"]);
    assert_eq!(binding.missing.len(), 16);
    let rows = read(&mut reader).unwrap();
    assert_eq!((rows[0].2[6], rows[0].2[9]), (20.0, 32.0));
    assert!(rows[0].2[0].is_nan());
}

#[test]
fn a_file_of_another_kind_is_refused_by_a_schema() {
    let mut reader = open("time,car,m01\n1,c,2\n").unwrap();
    let said = reader.bind(&Schema::car_sensors()).unwrap_err().to_string();
    assert!(said.contains("none of the 18 sensors") && said.contains("coolant_temp"), "{said}");
    let mut reader = open("time,car,tire_pressure_1_1,tire_pressure_11\n").unwrap();
    let said = reader.bind(&Schema::car_sensors()).unwrap_err().to_string();
    assert!(said.contains("are one sensor"), "{said}");
}

#[test]
fn a_mistake_is_said_with_file_line_and_column() {
    for (text, parts) in [
        ("", &["night.csv, line 1", "empty"][..]),
        ("a;b;c\n1;2;3\n", &["line 1", "`time`", "commas"]),
        ("time,car,a,a\n", &["two columns named \"a\""]),
        ("time,time\n", &["two columns named \"time\""]),
        ("time,,a\n", &["column 2 has no name"]),
        ("time,car,a\n1,c,2\n2,c\n", &["line 3", "2 fields where the header has 3"]),
        ("time,car,a\n1,c,2\n\nsoon,c,2\n", &["line 4", "column \"time\"", "\"soon\" is no time"]),
        ("time,car,a\n1,c,warm\n", &["line 2", "column \"a\"", "\"warm\" is not a number"]),
        ("time,car,a\n1,c,1e40\n", &["is not finite"]),
        ("time,car,a\n1,c,-inf\n", &["is not finite"]),
        ("time,car,a,anomaly\n1,c,1,maybe\n", &["neither 0 nor 1"]),
        ("time,car,a\n1,\"c,1\n", &["line 2", "not closed"]),
        ("time,car,a\n1,\"c\"d,1\n", &["after a closing"]),
    ] {
        let said = refusal(text);
        assert!(parts.iter().all(|part| said.contains(part)), "{text:?}: {said}");
    }
}

#[test]
fn a_line_without_end_costs_a_fixed_amount() {
    let endless = io::Cursor::new(b"time,car,a\n1,c,".to_vec()).chain(io::repeat(b'7'));
    let mut reader = FileReader::new("endless.csv", endless).unwrap();
    let said = read(&mut reader).unwrap_err().to_string();
    assert!(said.contains("endless.csv, line 2: longer than"), "{said}");
}

#[test]
fn binary_is_refused_with_a_sentence() {
    let said = FileReader::new("x.csv", io::Cursor::new(vec![0x1f, 0x8b, 0x08, 0xff])).unwrap_err().to_string();
    assert!(said.contains("gzip without the extension"), "{said}");
}

#[test]
fn what_is_written_reads_back_plain_and_gzipped() {
    let folder = tempfile::tempdir().unwrap();
    let sensors = ["a,b".to_owned(), "c".to_owned()];
    for name in ["x.csv", "x.csv.gz"] {
        let path = folder.path().join(name);
        let mut writer = FileWriter::create(&path, &sensors, LabelKind::Failures).unwrap();
        for n in 0..1000 {
            let label = Label { anomalous: n % 2 == 1, failures: if n % 2 == 1 { "tyre, flat" } else { "" } };
            writer.write(-3 + n, "a \"car\"\n", &[0.1 * n as f32, f32::NAN], label).unwrap();
        }
        writer.finish().unwrap();
        let mut reader = FileReader::open(&path).unwrap();
        assert_eq!(reader.sensors(), &sensors);
        let rows = read(&mut reader).unwrap();
        assert_eq!(rows.len(), 1000);
        for (n, row) in rows.iter().enumerate() {
            assert_eq!((row.0, row.1.as_str()), (n as i64 - 3, "a \"car\"\\u{a}"), "{name}");
            assert_eq!(row.2[0].to_bits(), (0.1 * n as f32).to_bits());
            assert!(row.2[1].is_nan());
            let failures = if n % 2 == 1 { "tyre, flat" } else { "" };
            assert_eq!(row.3, Some((n % 2 == 1, failures.to_owned())));
        }
    }
}

#[test]
fn a_cut_gzip_is_an_error_and_not_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.csv.gz");
    let mut writer = FileWriter::create(&path, &["a".to_owned()], LabelKind::None).unwrap();
    for n in 0..10_000 {
        writer.write(n * 1000, "c", &[(n as f32).sin()], Label { anomalous: false, failures: "" }).unwrap();
    }
    writer.finish().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let said = read(&mut FileReader::open(&path).unwrap()).unwrap_err().to_string();
    assert!(said.contains("cannot be read"), "{said}");
}

#[test]
fn a_missing_file_is_named() {
    let said = FileReader::open("no/such.csv").unwrap_err().to_string();
    assert!(said.starts_with("no/such.csv: "), "{said}");
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
        let text = [b"time,car,a,failures\n", &bytes[..]].concat();
        if let Ok(mut reader) = FileReader::new("x", io::Cursor::new(text)) {
            let _ = read(&mut reader);
        }
        let _ = FileReader::new("x", io::Cursor::new(bytes));
    }
}
