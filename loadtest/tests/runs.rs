//! The program against its own servers: every driver and every floor, small and short.

#![allow(clippy::unwrap_used, reason = "a failed expectation is the verdict")]

mod support;

use support::Server;

const FANOUT: [&str; 5] = ["fanout", "--clients", "20", "--window", "4"];
const ECHO: [&str; 5] = ["echo", "--clients", "5", "--window", "4"];

fn is_allowed(io: &str) -> bool {
    // Containers forbid io_uring; the floor then has nothing to stand on.
    io != "uring" || io_uring::IoUring::new(8).is_ok()
}

#[test]
fn every_floor_keeps_the_contract() {
    for io in ["uring", "epoll"].into_iter().filter(|io| is_allowed(io)) {
        for sends in ["coalesced", "single"] {
            let floor = Server::start(&["floor", "--io", io, "--sends", sends]);
            assert!(floor.run(&FANOUT)["deliveries"].as_u64().unwrap() > 100);
            assert!(floor.run(&ECHO)["echoes"].as_u64().unwrap() > 100);
        }
    }
}

#[test]
fn stentor_keeps_the_contract_on_every_driver() {
    for driver in ["uring", "mio"].into_iter().filter(|driver| is_allowed(driver)) {
        let server = Server::start(&["serve", "--quiet", "--shards", "2", "--driver", driver]);
        assert!(server.run(&FANOUT)["deliveries"].as_u64().unwrap() > 100);
        assert!(server.run(&ECHO)["echoes"].as_u64().unwrap() > 100);
        let large = ["fanout", "--clients", "8", "--payload", "300000", "--window", "4"];
        assert!(server.run(&large)["deliveries"].as_u64().unwrap() > 0);
        let polling = ["fanout", "--clients", "20", "--transport", "polling", "--window", "4"];
        assert!(server.run(&polling)["deliveries"].as_u64().unwrap() > 100);
        let rooms = ["rooms", "--clients", "20", "--rooms", "3", "--rate", "100"];
        assert!(server.run(&rooms)["deliveries"].as_u64().unwrap() > 0);
        let churn = ["churn", "--clients", "10", "--rate", "50", "--churn", "100"];
        assert!(server.run(&churn)["connections"].as_u64().unwrap() > 10);
        let mixed = ["mixed", "--clients", "10", "--rooms", "2"];
        assert!(server.run(&mixed)["echoes"].as_u64().unwrap() > 100);
        let connect = ["connect", "--clients", "20"];
        assert!(server.run(&connect)["connections"].as_u64().unwrap() >= 20);
        assert!(server.run(&["idle", "--clients", "50"])["bytes_per_client"].is_number());
    }
}
