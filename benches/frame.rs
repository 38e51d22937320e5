//! What one frame costs: state to bytes, at 160x50, with a hundred and with a hundred thousand cars.

use std::hint::black_box;
use std::io::sink;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use dashlight::console::app::App;
use dashlight::console::colour::Depth;
use dashlight::console::keys::{Input, Key};
use dashlight::console::sample::Sample;
use dashlight::console::screen::Screen;
use dashlight::console::theme::Theme;
use dashlight::engine::view::{Query, Snapshot};
use ratatui::layout::Size;

/// Snapshots that differ as live ones do, for the view that `key` leads to.
fn live(cars: usize, key: Key) -> (App, Vec<Arc<Snapshot>>) {
    let sample = Sample::new(cars);
    let first = Arc::new(sample.snapshot(&Query::default(), 0));
    let mut app = App::new(Theme::built_in(), Size::new(160, 50), first);
    app.input(&Input::Key(key), Duration::ZERO);
    let query = app.query(Duration::ZERO);
    let snapshots = (0..8).map(|step| Arc::new(sample.snapshot(&query, step * 10))).collect();
    (app, snapshots)
}

fn frame(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame 160x50");
    for (name, cars, key) in [
        ("fleet, 100 cars", 100, Key::Char('1')),
        ("fleet, 100,000 cars", 100_000, Key::Char('1')),
        ("car, 100,000 cars", 100_000, Key::Enter),
    ] {
        let (mut app, snapshots) = live(cars, key);
        let Ok(mut screen) = Screen::new(sink(), app.size, Depth::Ansi256, false) else { continue };
        let mut turn = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                turn += 1;
                app.receive(snapshots[turn % snapshots.len()].clone(), Duration::ZERO);
                black_box(screen.draw(&app))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, frame);
criterion_main!(benches);
