//! How many instructions each case executes, counted by callgrind: the gate that noise cannot fool.
//!
//! ```text
//! cargo run -p gate -- instructions
//! ```
//!
//! Each case is a process of its own under valgrind. It is made and run twice before it is
//! counted, so that tables have grown, lazy things exist and symbols are bound.

#![expect(missing_docs, reason = "what the macros of gungraun make is public and undocumented")]

mod cases;

use cases::{codecs, tables, turns};
use gungraun::prelude::*;

/// A case that is warm.
type Case = Box<dyn FnMut()>;

fn warm(mut case: impl FnMut() + 'static) -> Case {
    case();
    case();
    Box::new(case)
}

macro_rules! counted {
    ($($group:ident { $($case:ident: $elements:literal => $make:expr;)* })*) => {
        $(
            // The teardown forgets the case: what it owns need not be taken apart under valgrind.
            #[library_benchmark(teardown = std::mem::forget)]
            $(#[bench::$case(warm($make))])*
            fn $group(mut case: Case) -> Case {
                case();
                case
            }
        )*
    };
}

cases::every_case!(counted);

library_benchmark_group!(
    name = cases_of_stentor,
    benchmarks = [websocket, engine_io, socket_io, wire, http, rooms, fanout, inbound, connection]
);

main!(library_benchmark_groups = cases_of_stentor);
