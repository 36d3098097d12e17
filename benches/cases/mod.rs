//! What is measured, once for both kinds of benchmark: timed by criterion (`timings`) and
//! counted by valgrind (`instructions`).
//!
//! A case is a closure that can be run any number of times and leaves everything as it found it.
//! Making it is not measured. Its name is `group/case` in every list: criterion's output,
//! `baselines.json` and `budgets.toml`.

pub(crate) mod codecs;
pub(crate) mod tables;
pub(crate) mod turns;

/// Hands every case to the macro `$each`, as `group { case: elements => closure; }`, where
/// `elements` is how many packets, events, members or deliveries one run treats.
macro_rules! every_case {
    ($each:ident) => {
        $each! {
            websocket {
                decode_16: 1 => codecs::decode(16);
                decode_200: 1 => codecs::decode(200);
                decode_1000: 1 => codecs::decode(1000);
                unmask_16: 1 => codecs::unmask(16);
                unmask_200: 1 => codecs::unmask(200);
                unmask_1000: 1 => codecs::unmask(1000);
                encode_16: 1 => codecs::encode(16);
                encode_200: 1 => codecs::encode(200);
                encode_1000: 1 => codecs::encode(1000);
            }
            engine_io {
                write_1: 1 => codecs::write_payload(1);
                write_16: 16 => codecs::write_payload(16);
                write_binary: 1 => codecs::write_binary();
                split_1: 1 => codecs::split(1);
                split_16: 16 => codecs::split(16);
                split_binary: 1 => codecs::split_binary();
            }
            socket_io {
                head_short: 1 => codecs::head(codecs::short());
                head_record: 1 => codecs::head(codecs::record());
                head_ack: 1 => codecs::ack_head();
                args_string: 1 => codecs::args_string();
                args_pair: 1 => codecs::args_pair();
                args_record: 1 => codecs::args_record();
                args_binary: 1 => codecs::args_binary();
                event_string: 1 => codecs::event_string();
                event_record: 1 => codecs::event_record();
                event_binary: 1 => codecs::event_binary();
                ack_number: 1 => codecs::ack_number();
                ack_binary: 1 => codecs::ack_binary();
            }
            wire {
                event_string: 1 => codecs::frames_string();
                event_record: 1 => codecs::frames_record();
                event_binary: 1 => codecs::frames_binary();
            }
            http {
                head_poll: 1 => codecs::request(codecs::POLL);
                head_upgrade: 1 => codecs::request(codecs::UPGRADE);
            }
            rooms {
                join_leave: 1 => tables::join_leave();
                made_gone: 1 => tables::made_gone();
                disconnect_64: 64 => tables::disconnect(64);
                reach_1000: 1000 => tables::reach(1000);
                reach_union_except_1000: 900 => tables::reach_union_except(1000);
            }
            fanout {
                room_1000_w1: 1000 => turns::room(1000, 1);
                room_1000_w16: 16_000 => turns::room(1000, 16);
                union_except_1000: 900 => turns::union_except(1000);
                namespace_1000: 1000 => turns::namespace(1000);
                polling_100: 100 => turns::polling(100);
            }
            inbound {
                nothing: 100 => turns::inbound(turns::nothing());
                event: 100 => turns::inbound(turns::event());
                event_ack: 100 => turns::inbound(turns::event_ack());
                event_nobody: 100 => turns::inbound(turns::event_nobody());
                event_posted: 100 => turns::posted();
            }
            connection {
                made_gone: 1 => turns::made_gone();
            }
        }
    };
}
pub(crate) use every_case;
