//! The tables of sockets and rooms, without anything around them.

use std::hint::black_box;

use stentor::bench::Rooms;

/// A member of 3 rooms joins a room of 1 000 and leaves it.
pub(crate) fn join_leave() -> impl FnMut() {
    let mut rooms = Rooms::new(1001);
    let (last, all) = (1000, "all".to_owned());
    rooms.leave(last, &all);
    move || {
        rooms.join(black_box(last), black_box(&all));
        rooms.leave(black_box(last), black_box(&all));
    }
}

/// A room begins with its first member and ends with its last.
pub(crate) fn made_gone() -> impl FnMut() {
    let mut rooms = Rooms::new(1000);
    let own = "a room of its own".to_owned();
    move || {
        rooms.join(black_box(17), black_box(&own));
        rooms.leave(black_box(17), black_box(&own));
    }
}

/// A socket comes, joins this many rooms of 10 members, and goes.
pub(crate) fn disconnect(count: usize) -> impl FnMut() {
    let mut rooms = Rooms::new(10);
    let names: Vec<String> = (0..count).map(|number| format!("room {number}")).collect();
    for member in 0..10 {
        names.iter().for_each(|name| rooms.join(member, name));
    }
    move || rooms.come_and_go(black_box(&names))
}

/// Everybody in a room is looked up.
pub(crate) fn reach(members: usize) -> impl FnMut() {
    let mut rooms = Rooms::new(members);
    let all = ["all".into()];
    assert_eq!(rooms.reach(&all, &[]), members, "everybody is in the room");
    move || {
        black_box(rooms.reach(black_box(&all), &[]));
    }
}

/// The same for a union, with every second member in both rooms and a tenth left out.
pub(crate) fn reach_union_except(members: usize) -> impl FnMut() {
    let mut rooms = Rooms::new(members);
    let (union, except) = (["all".into(), "half".into()], ["tenth".into()]);
    assert_eq!(rooms.reach(&union, &except), members - members / 10, "a tenth is left out");
    move || {
        black_box(rooms.reach(black_box(&union), black_box(&except)));
    }
}
