//! What stands on screen, word for word and colour for colour.

use super::*;

#[test]
fn the_worst_car_stands_first_with_its_state_its_sensor_and_by_how_much() {
    let bench = Bench::new(Sample::new(100), 120, 40);
    let first = bench.line(3);
    for said in ["●", "87", "critical", "electric-vehicle-00042", "engine vibration ▲", "2,493.4 mV", "00:41", "now"]
    {
        assert!(first.contains(said), "{said:?} is missing in {first:?}");
    }
}
