//! The few calls of the operating system that std does not offer: signals and the effective user id.
//!
//! The only file of the workspace with `unsafe` in it.

use std::sync::atomic::{AtomicI32, Ordering};

/// 0 while all is well; a signal's number, or -1 when a part of the command failed and the others should stop.
static STOP: AtomicI32 = AtomicI32::new(0);

/// Sent to a program that should end by itself.
pub(crate) const INTERRUPT: i32 = libc::SIGINT;
/// RabbitMQ's clean stop.
pub(crate) const TERMINATE: i32 = libc::SIGTERM;
/// PostgreSQL's immediate stop.
pub(crate) const QUIT: i32 = libc::SIGQUIT;
/// The end.
pub(crate) const KILL: i32 = libc::SIGKILL;

extern "C" fn on_signal(signal: libc::c_int) {
    STOP.store(signal, Ordering::SeqCst);
}

/// From here on SIGINT, SIGTERM and SIGHUP are remembered instead of ending the process, so that the services
/// are stopped first.
#[expect(
    unsafe_code,
    reason = "sigaction has no safe counterpart in std; the handler only stores to an atomic"
)]
pub(crate) fn catch_signals() {
    let handler: extern "C" fn(libc::c_int) = on_signal;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        unsafe {
            libc::signal(signal, handler as libc::sighandler_t);
        }
    }
}

/// Asks every waiting part of this process to stop.
pub(crate) fn give_up() {
    STOP.store(-1, Ordering::SeqCst);
}

/// Whether to stop: a signal came, or another part gave up.
pub(crate) fn stopping() -> bool {
    STOP.load(Ordering::SeqCst) != 0
}

/// Whether a signal came.
pub(crate) fn interrupted() -> bool {
    STOP.load(Ordering::SeqCst) > 0
}

/// Sends `signal` to the process `pid`; false if there is none (or it is not ours).
#[expect(
    unsafe_code,
    reason = "kill has no safe counterpart in std; it takes two integers"
)]
pub(crate) fn signal_process(pid: u32, signal: i32) -> bool {
    libc::pid_t::try_from(pid).is_ok_and(|pid| pid > 1 && unsafe { libc::kill(pid, signal) } == 0)
}

/// Sends `signal` to every process of the group `leader`; false if the group is empty.
#[expect(
    unsafe_code,
    reason = "kill has no safe counterpart in std; it takes two integers"
)]
pub(crate) fn signal_group(leader: u32, signal: i32) -> bool {
    libc::pid_t::try_from(leader)
        .is_ok_and(|pid| pid > 1 && unsafe { libc::kill(-pid, signal) } == 0)
}

/// The user id whose rights this process has.
#[expect(
    unsafe_code,
    reason = "geteuid has no safe counterpart in std; it cannot fail"
)]
pub(crate) fn effective_uid() -> u32 {
    unsafe { libc::geteuid() }
}
