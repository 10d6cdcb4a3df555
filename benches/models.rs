//! What a hit of the model registry costs (SC-002): a handle taken and dropped, by one thread and by two at once.
//!
//! `cargo bench -p tensorbus-benches --bench models`

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use tensorbus::{KeepAlive, Measured, ModelRegistry};

type Model = Measured<[u8; 64]>;

fn registry(models: usize) -> ModelRegistry {
    let registry = ModelRegistry::new();
    for number in 0..models {
        let load = || std::io::Result::Ok(Measured::new([0; 64], 64));
        let key = format!("model/{number}");
        registry.entry(&key).keep_alive(KeepAlive::Forever).get_or_load_blocking::<Model, _, _>(load).expect("load");
    }
    registry
}

fn hit(registry: &ModelRegistry, key: &str) {
    let load = || -> std::io::Result<Model> { unreachable!("it is there") };
    black_box(registry.get_or_load_blocking(black_box(key), load).expect("hit"));
}

/// The time of one thread's hits while each of the others does as many.
fn threads(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, registry: &ModelRegistry, keys: &[&str]) {
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|hits| {
            let barrier = Barrier::new(keys.len());
            let run = |key: &str| {
                barrier.wait();
                let begun = Instant::now();
                (0..hits).for_each(|_| hit(registry, key));
                begun.elapsed()
            };
            std::thread::scope(|scope| {
                let threads: Vec<_> = keys.iter().map(|key| scope.spawn(|| run(key))).collect();
                threads.into_iter().map(|thread| thread.join().expect("thread")).max().unwrap_or(Duration::ZERO)
            })
        });
    });
}

fn hits(criterion: &mut Criterion) {
    let registry = registry(32);
    let mut group = criterion.benchmark_group("hit");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    threads(&mut group, "1 thread", &registry, &["model/0"]);
    threads(&mut group, "2 threads, a model each", &registry, &["model/0", "model/1"]);
    threads(&mut group, "2 threads, the same model", &registry, &["model/0", "model/0"]);
    let handle = registry.get::<Model>("model/0").expect("type").expect("there");
    group.bench_function("cloning a handle instead", |bencher| bencher.iter(|| black_box(handle.clone())));
    group.finish();
}

criterion_group!(benches, hits);
criterion_main!(benches);
