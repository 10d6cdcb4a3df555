//! `fork()` without exec, as `multiprocessing` in Python does it.

use crate::support::Session;

#[test]
fn a_forked_child_that_exits_leaves_the_parents_ports_alone() {
    let session = Session::new();
    let node = session.node("fork-and-exit", &[]);
    node.expect("parent goes on");
    assert!(node.end().success());
}

#[test]
fn a_forked_child_is_refused_and_can_open_a_bus_of_its_own() {
    let session = Session::new();
    let node = session.node("fork-and-use", &[]);
    node.expect("parent goes on");
    assert!(node.end().success());
}

#[test]
fn a_forked_child_leaves_weights_to_its_parent() {
    let session = Session::new();
    let node = session.node("fork-weights", &[]);
    node.expect("parent goes on");
    assert!(node.end().success());
}
