//! How many instructions each case executes, counted by callgrind: the gate that noise cannot fool.
//!
//! ```text
//! cargo run -p ledger -- instructions
//! ```
//!
//! Each case is a process of its own under valgrind. It is made and run twice before it is
//! counted, so that tables have grown, lazy things exist and symbols are bound. Nothing here is
//! random: see `getrandom`.

#![expect(missing_docs, reason = "what the macros of gungraun make is public and undocumented")]

mod cases;

use std::ffi::{c_uint, c_void};

use cases::{codecs, tables, turns};
use gungraun::prelude::*;

/// Stands before the C library's function of this name, so that the keys of every hash table are
/// the same in every process. With keys of chance, one lookup in fifty meets a stranger whose
/// hash begins like its own, which one hundred equal events repeat: 0.7 % more, in some runs.
/// The standard library asks by a weak symbol to let measurements do this.
///
/// # Safety
///
/// `buffer` is `len` writable bytes, as for the function of the C library.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, len: usize, _flags: c_uint) -> isize {
    // SAFETY: the caller owns `len` bytes from `buffer` on.
    unsafe { buffer.cast::<u8>().write_bytes(0x5a, len) };
    isize::try_from(len).unwrap_or(isize::MAX)
}

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
