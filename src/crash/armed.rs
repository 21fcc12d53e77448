use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use super::{Act, Side};

/// What happens at a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// SIGKILL: no destructor runs, no buffer is written.
    Kill,
    /// SIGSTOP, until somebody sends SIGCONT.
    Stop,
    /// A panic of the task that came here.
    Panic,
}

/// One part of the setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trap<'a> {
    boundary: &'a str,
    blow: Blow,
    /// Which visit of the boundary it waits for, from 1.
    visit: u32,
}

/// Sets the traps that `setting` names, such as `finish.after=kill` or
/// `append.after=kill@2;model.before=stop`: the boundary, then `kill`, `stop` or `panic`, then the
/// number of the visit, if it is not the first.
///
/// # Errors
/// What cannot be read, for people.
pub fn arm(setting: Option<&str>) -> Result<(), String> {
    let parts = setting.unwrap_or_default().split(';').map(str::trim);
    for part in parts.filter(|part| !part.is_empty()) {
        let Trap {
            boundary,
            blow,
            visit,
        } = read(part)?;
        let visits = AtomicU32::new(0);
        fail::cfg_callback(boundary, move || {
            if visits.fetch_add(1, Ordering::Relaxed) + 1 == visit {
                strike(blow);
            }
        })?;
    }
    Ok(())
}

fn read(part: &str) -> Result<Trap<'_>, String> {
    let wrong = |what: &str| format!("CHAT_FAILPOINT: {part:?}: {what}");
    let (boundary, rest) = part
        .split_once('=')
        .ok_or_else(|| wrong("expected BOUNDARY=ACTION"))?;
    let sides = |act: &Act| [Side::Before, Side::After].map(|side| act.boundary(side));
    if !Act::ALL.iter().flat_map(sides).any(|name| name == boundary) {
        return Err(wrong("there is no such boundary"));
    }
    let (blow, visit) = rest.split_once('@').unwrap_or((rest, "1"));
    let blow = match blow {
        "kill" => Blow::Kill,
        "stop" => Blow::Stop,
        "panic" => Blow::Panic,
        _ => return Err(wrong("expected kill, stop or panic")),
    };
    let visit = visit
        .parse()
        .ok()
        .filter(|visit| *visit > 0)
        .ok_or_else(|| wrong("expected the number of a visit behind @"))?;
    Ok(Trap {
        boundary,
        blow,
        visit,
    })
}

pub(super) fn reach(act: Act, side: Side) {
    // It says something only for actions of the crate's own, and there is none.
    let _nothing: Option<()> = fail::eval(act.boundary(side), |_| ());
}

#[expect(clippy::panic, reason = "what somebody asked for")]
#[expect(
    clippy::disallowed_methods,
    reason = "this thread must do nothing more until the signal has stopped it"
)]
fn strike(blow: Blow) {
    match blow {
        Blow::Kill => signal(Signal::KILL),
        Blow::Stop => {
            signal(Signal::STOP);
            std::thread::sleep(Duration::from_millis(100));
        }
        Blow::Panic => panic!("CHAT_FAILPOINT says so"),
    }
}

fn signal(signal: Signal) {
    if let Err(error) = kill_process(getpid(), signal) {
        tracing::error!(%error, "a failpoint had no effect");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trap_is_a_boundary_an_action_and_perhaps_a_visit() {
        let trap = |boundary, blow, visit| {
            Ok(Trap {
                boundary,
                blow,
                visit,
            })
        };
        assert_eq!(
            read("finish.after=kill"),
            trap("finish.after", Blow::Kill, 1)
        );
        assert_eq!(
            read("publish.result.before=stop@2"),
            trap("publish.result.before", Blow::Stop, 2)
        );
        assert_eq!(
            read("model.before=panic"),
            trap("model.before", Blow::Panic, 1)
        );
        for bad in [
            "finish.after",
            "finish=kill",
            "finish.after=",
            "finish.after=sleep",
            "finish.after=kill@0",
            "finish.after=kill@x",
        ] {
            let problem = read(bad).unwrap_err();
            assert!(
                problem.starts_with("CHAT_FAILPOINT") && problem.contains(bad),
                "{problem}"
            );
        }
    }

    #[test]
    fn a_boundary_without_a_trap_is_passed() {
        arm(None).unwrap();
        arm(Some(" ; ")).unwrap();
        reach(Act::Claim, Side::Before);
    }
}
