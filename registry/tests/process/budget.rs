//! FR-010: the budget is kept before a load, and who makes room is the policy's choice.

use tensorbus_registry::{KeepAlive, LoadError, ModelHandle, ModelRegistry, OverBudget, Policy};

use crate::support::{Maker, Noted};

fn load(
    registry: &ModelRegistry,
    maker: &Maker,
    name: &'static str,
    bytes: u64,
) -> Result<ModelHandle<Noted>, LoadError> {
    registry.entry(name).bytes(bytes).get_or_load_blocking(|| maker.make(name, bytes))
}

fn keys(registry: &ModelRegistry) -> Vec<String> {
    registry.list().into_iter().map(|model| model.key).collect()
}

fn refused(result: Result<ModelHandle<Noted>, LoadError>) -> OverBudget {
    match result {
        Err(LoadError::OverBudget { source, .. }) => source,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was loaded"),
    }
}

#[test]
fn room_is_made_before_the_load() {
    let registry = ModelRegistry::builder().memory_budget(100).build();
    let (maker, told) = Maker::new();
    drop(load(&registry, &maker, "old", 60).unwrap());
    let check = || {
        assert_eq!(told.try_recv(), Ok("old"), "dropped before the loader is called");
        assert_eq!(registry.metrics().bytes, 70, "reserved");
        maker.make("new", 70)
    };
    registry.entry("new").bytes(70).get_or_load_blocking(check).unwrap();
    assert_eq!(registry.metrics().evicted, 1);
}

#[test]
fn the_one_used_longest_ago_goes_first() {
    let registry = ModelRegistry::builder().memory_budget(100).policy(Policy::Lru).build();
    let (maker, _told) = Maker::new();
    for name in ["a", "b", "c"] {
        drop(load(&registry, &maker, name, 30).unwrap());
    }
    drop(registry.get::<Noted>("a").unwrap());
    drop(load(&registry, &maker, "d", 40).unwrap());
    assert_eq!(keys(&registry), ["a", "c", "d"]);
}

#[test]
fn the_one_used_least_goes_first() {
    let registry = ModelRegistry::builder().memory_budget(100).policy(Policy::Lfu).build();
    let (maker, _told) = Maker::new();
    for (name, uses) in [("a", 3), ("b", 1), ("c", 2)] {
        for _ in 0..uses {
            drop(load(&registry, &maker, name, 30).unwrap());
        }
    }
    drop(load(&registry, &maker, "d", 60).unwrap());
    assert_eq!(keys(&registry), ["a", "d"]);
}

#[test]
fn ttl_and_manual_give_up_nothing_before_its_time() {
    for policy in [Policy::Ttl, Policy::Manual] {
        let registry = ModelRegistry::builder().memory_budget(100).policy(policy).build();
        let (maker, _told) = Maker::new();
        drop(load(&registry, &maker, "a", 60).unwrap());
        let error = refused(load(&registry, &maker, "b", 60));
        assert_eq!(error, OverBudget { needed: 60, budget: 100, pinned: 60 });
        registry.unload("a").unwrap();
        load(&registry, &maker, "b", 60).unwrap();
    }
}

#[test]
fn what_is_in_use_or_pinned_is_never_given_up() {
    let registry = ModelRegistry::builder().memory_budget(100).build();
    let (maker, told) = Maker::new();
    let used = load(&registry, &maker, "used", 40).unwrap();
    drop(load(&registry, &maker, "pinned", 30).unwrap());
    assert!(registry.pin("pinned"));
    drop(load(&registry, &maker, "idle", 20).unwrap());
    let error = refused(load(&registry, &maker, "new", 31));
    assert_eq!(error, OverBudget { needed: 31, budget: 100, pinned: 70 });
    assert!(told.try_recv().is_err(), "what would not help is not given up");
    drop(load(&registry, &maker, "new", 30).unwrap());
    assert_eq!(keys(&registry), ["new", "pinned", "used"]);
    assert_eq!(used.bytes, 40);
    assert!(registry.unpin("pinned"));
    drop(used);
    drop(load(&registry, &maker, "all", 100).unwrap());
    assert_eq!(keys(&registry), ["all"]);
}

#[test]
fn a_model_larger_than_the_budget_is_refused_before_it_is_loaded() {
    let registry = ModelRegistry::builder().memory_budget(100).build();
    let (maker, _told) = Maker::new();
    assert_eq!(
        refused(load(&registry, &maker, "huge", u64::MAX)),
        OverBudget { needed: u64::MAX, budget: 100, pinned: 0 }
    );
    assert_eq!(maker.made(), 0);
}

#[test]
fn a_size_that_was_wrong_is_corrected() {
    let registry = ModelRegistry::builder().memory_budget(100).build();
    let (maker, told) = Maker::new();
    drop(load(&registry, &maker, "idle", 50).unwrap());
    let large = registry.entry("large").bytes(10).get_or_load_blocking(|| maker.make("large", 80)).unwrap();
    assert_eq!(told.try_recv(), Ok("idle"), "room is made for what it really takes");
    assert_eq!(registry.metrics().bytes, 80);
    let none = registry.get_or_load_blocking("unknown", || maker.make("unknown", 21));
    assert_eq!(refused(none), OverBudget { needed: 21, budget: 100, pinned: 80 });
    assert_eq!(told.try_recv(), Ok("unknown"), "what has no room is not kept");
    let made = maker.made();
    refused(registry.get_or_load_blocking("unknown", || maker.make("unknown", 21)));
    assert_eq!(maker.made(), made, "the second time its size is known, and nothing is loaded");
    drop(large);
    registry.get_or_load_blocking("unknown", || maker.make("unknown", 21)).unwrap();
}

#[test]
fn reservations_of_loads_under_way_count() {
    let registry = ModelRegistry::builder().memory_budget(100).build();
    let (maker, _told) = Maker::new();
    let outer = || {
        let error = refused(load(&registry, &maker, "inner", 50));
        assert_eq!(error, OverBudget { needed: 50, budget: 100, pinned: 60 });
        maker.make("outer", 60)
    };
    registry.entry("outer").bytes(60).get_or_load_blocking(outer).unwrap();
}

#[test]
fn a_load_that_fails_gives_its_room_back() {
    let registry = ModelRegistry::builder().memory_budget(100).build();
    let (maker, _told) = Maker::new();
    let fail = || Err::<Noted, _>("broken");
    registry.entry("a").bytes(100).get_or_load_blocking(fail).unwrap_err();
    assert_eq!(registry.metrics().bytes, 0);
    registry
        .entry("b")
        .bytes(100)
        .keep_alive(KeepAlive::Forever)
        .get_or_load_blocking(|| maker.make("b", 100))
        .unwrap();
}
