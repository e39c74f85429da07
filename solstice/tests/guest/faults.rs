//! What goes wrong around a job, and what the user is told.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::Rng;

use crate::harness::{Story, steps};

#[test]
fn a_guest_that_powers_itself_off() {
    steps("- run: |\n    echo going\n    sync; poweroff -f\n    sleep 100")
        .run()
        .code(2)
        .shows_in_order(&["going", "SOL-GUEST-POWERED-OFF", "the machine powered itself off"]);
    ends_its_step_as_a_failure("sync; poweroff -f", "SOL-GUEST-POWERED-OFF");
}

/// What a program is told when a step ends its machine: a step that failed, and why.
fn ends_its_step_as_a_failure(command: &str, cause: &str) {
    let text = format!("- run: |\n    echo going\n    {command}\n    sleep 100");
    let ended = steps(&text).with(&["--json"]).run().code(2);
    let lines = ended.json();
    let finished =
        |name: &'static str| lines.iter().filter_map(move |line| line["event"].get(name));
    let results: Vec<_> = finished("step_finished").map(|step| &step["conclusion"]).collect();
    assert_eq!(results, ["failure"], "{}", ended.text);
    let job = finished("finished").next().unwrap();
    assert_eq!(job["infrastructure"]["cause"], cause, "{}", ended.text);
}

#[test]
fn a_guest_that_reboots() {
    steps("- run: |\n    echo going\n    sync; reboot -f\n    sleep 100")
        .run()
        .code(2)
        .shows_in_order(&["going", "SOL-GUEST-REBOOTED", "the machine rebooted"]);
    ends_its_step_as_a_failure("sync; reboot -f", "SOL-GUEST-REBOOTED");
}

#[test]
fn a_step_that_kills_init() {
    // The kernel shields init from signals, so the step overwrites its code and wakes it.
    steps(
        r#"
- run: |
    start=$(sed -n '/r-xp/{s/-.*//p;q}' /proc/1/maps)
    length=$(sed -n '/r-xp/{s/.*-\([0-9a-f]*\) .*/\1/p;q}' /proc/1/maps)
    pages=$(( (0x$length - 0x$start) / 4096 ))
    dd if=/dev/zero of=/proc/1/mem bs=4096 seek=$(( 0x$start / 4096 )) count=$pages conv=notrunc
    for child in $(cat /proc/1/task/1/children); do kill -9 $child; done
    sleep 100
"#,
    )
    .run()
    .code(2)
    .shows("SOL-GUEST-PANIC")
    .shows("Attempted to kill init");
}

#[test]
fn qemu_killed_from_outside() {
    let mut live = steps("- run: |\n    echo start''ed\n    sleep 100").start();
    live.wait_for("started\n");
    for pid in live.qemu() {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    live.end().code(2).shows("SOL-QEMU-KILLED");
}

#[test]
fn solstice_killed_leaves_nothing() {
    let mut live = steps("- run: |\n    echo start''ed\n    sleep 100").start();
    live.wait_for("started\n").signal(Signal::SIGKILL);
    live.wait_until_gone();
    drop(live.end());
}

/// 400 lines, and twice an end of every connection.
pub(crate) fn cut() -> Story {
    let at: u32 = simulators::dice().random_range(40..190);
    steps(&CUT.replace("AT", &at.to_string()))
}

/// The connections end with the lines AT and 2 AT.
const CUT: &str = r#"
- run: |
    i=0
    while [ $i -lt 400 ]; do
      i=$((i+1)); echo "line $i."
      # Lines that take a while: the cut finds some on their way, and others come after it.
      [ $((i % AT)) -lt $((AT - 15)) ] && [ $((i % AT)) -gt 15 ] || usleep 20000
      if [ $i = AT ] || [ $i = $((2 * AT)) ]; then
        # Every session process of the SSH server, but not the one that listens. Some end first.
        for p in $(pidof dropbear); do
          [ "$(sed -n 's/^PPid:[^0-9]*//p' /proc/$p/status)" = 1 ] || kill -9 $p || :
        done
      fi
    done
"#;

#[test]
fn a_connection_cut_in_the_middle_of_a_step_loses_no_line() {
    cut().run().code(0).shows_each_line_once(400);
}

#[test]
fn a_step_that_takes_all_memory_of_the_guest() {
    let endless = r#"awk 'BEGIN { while (1) a[i++] = sprintf("%100000s", i) }'"#;
    steps(&format!("- run: |\n    echo going\n    {endless}")).run().code(1).shows_in_order(&[
        "going",
        "SOL-GUEST-MEMORY",
        "Out of memory: Killed process",
    ]);
}

#[test]
fn a_full_disk_in_the_guest() {
    steps(
        r#"
- run: |
    dd if=/dev/zero of=/var/tmp/most bs=1M count=1500 2>/dev/null
    dd if=/dev/zero of=/var/tmp/rest bs=1M 2>/dev/null || echo "no room is left"
    i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo "line $i"; done
    rm /var/tmp/rest
- run: echo "after that"
- run: dd if=/dev/zero of=/var/tmp/rest bs=1M
- if: always()
  run: echo never
"#,
    )
    .run()
    // A step of the user failed first.
    .code(1)
    .shows_in_order(&[
        "no room is left",
        "line 2000\n",
        "after that",
        "Process completed with exit code 1.",
        "SOL-GUEST-DISK-FULL: the disk of the machine is full at /",
        " of 2.0 GiB are free.",
        "SOL-GUEST-DISK-FULL: cannot write /",
        "No space left on device",
    ])
    .hides("\nnever\n");
}

#[test]
fn a_full_disk_in_the_guest_that_a_step_leaves_behind() {
    steps("- run: dd if=/dev/zero of=/var/tmp/full bs=1M || true\n- run: echo never")
        .run()
        .code(2)
        .shows_in_order(&["SOL-GUEST-DISK-FULL: cannot write /", "No space left on device"])
        .hides("\nnever\n");
}

#[test]
fn a_file_of_the_host_that_cannot_grow() {
    // As with a quota, or a file system whose files have a limit.
    steps("- run: dd if=/dev/urandom of=/var/tmp/big bs=1M count=200; sync; sleep 20")
        .through(&["prlimit", "--fsize=60000000"])
        .run()
        .code(2)
        .shows("SOL-GUEST-DISK-ERROR");
}

/// Gives the program a state directory on a small disk of its own, which nobody else sees, and says
/// what is left on it.
const SMALL_DISK: &str = r#"
mkdir -p "$SOLSTICE_STATE_DIR"
mount -t tmpfs -o size=64M,mode=700 none "$SOLSTICE_STATE_DIR" || exit 99
"$@"
code=$?
find "$SOLSTICE_STATE_DIR/instances" -mindepth 1 | sed 's/^/left: /'
exit $code
"#;

#[test]
fn a_disk_of_the_host_that_fills_up_while_a_job_runs() {
    let unshare =
        if nix::unistd::geteuid().is_root() { "--mount" } else { "--map-root-user --mount" };
    let unshare = format!("exec unshare {unshare} sh -c \"$0\" sh \"$@\"");
    steps("- run: echo begun; dd if=/dev/urandom of=/var/tmp/big bs=1M count=200; sync; sleep 20")
        .env("SOLSTICE_DISK_RESERVE", "16M")
        .through(&["sh", "-c", &unshare, SMALL_DISK])
        .run()
        .code(2)
        .shows_in_order(&["begun\n", "SOL-HOST-DISK-FULL", "No space left on device"])
        .hides("left: ");
}

#[test]
fn no_room_on_the_hosts_disk() {
    steps("- run: echo never")
        .env("SOLSTICE_DISK_RESERVE", "900T")
        .run()
        .code(2)
        .shows("SOL-HOST-DISK-FULL")
        .hides("never\n");
}

#[test]
fn no_memory_for_the_machine() {
    steps("- run: echo never")
        .with(&["--memory", "900G"])
        .run()
        .code(2)
        .shows("SOL-HOST-MEMORY")
        .hides("never\n");
}

#[test]
fn no_qemu() {
    steps("- run: echo never")
        .env("SOLSTICE_QEMU", "/nonexistent/qemu")
        .run()
        .code(2)
        .shows("SOL-QEMU-MISSING")
        .hides("never\n");
}
