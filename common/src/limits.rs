//! Every bound on what a user, a guest or a broker may send, with what happens at it.

use std::time::Duration;

/// Bytes in a kibibyte.
pub const KIB: u64 = 1024;
/// Bytes in a mebibyte.
pub const MIB: u64 = 1024 * KIB;
/// Bytes in a gibibyte.
pub const GIB: u64 = 1024 * MIB;

/// A JobRequest, encoded. A larger one is refused with the size and this limit.
pub const JOB_REQUEST_BYTES: u64 = 16 * MIB;
/// Steps in one job. More are refused before a machine starts. As many parts of actions may run before
/// the first step; more fail the job.
pub const STEPS: usize = 1_000;
/// Values to mask in one job. Further ones are ignored with one notice in the log.
pub const MASKS: usize = 10_000;
/// One value to mask. A longer one is not masked, with one notice in the log.
pub const MASK_BYTES: usize = 64 * KIB as usize;
/// Everything that is searched for because of the values to mask, their encodings included. Further
/// values are not masked, with one notice in the log.
pub const ALL_MASK_BYTES: usize = 16 * MIB as usize;
/// All outputs of one job together, names and values. What does not fit fails the step.
pub const OUTPUT_BYTES: usize = MIB as usize;
/// The summary of one step. A larger one is dropped with an error annotation.
pub const SUMMARY_BYTES: usize = MIB as usize;
/// One log line. The rest of a longer one is cut, with a notice in its place.
pub const LOG_LINE_BYTES: usize = 64 * KIB as usize;
/// How the notice at the end of a cut line begins; a count of bytes and a few words follow.
pub const CUT_NOTICE: &str = " [";
/// Room for the notice at the end of a cut line, inside [`LOG_LINE_BYTES`].
pub const CUT_NOTICE_BYTES: usize = 64;
/// The log of one job. Beyond it one notice is written and the step goes on unlogged.
pub const LOG_BYTES: u64 = 256 * MIB;
/// The lines in the log of one job. Beyond it one notice is written and the step goes on unlogged.
pub const LOG_LINES: u64 = 2_000_000;
/// The bytes of log lines in one event.
pub const LOG_BATCH_BYTES: usize = 64 * KIB as usize;
/// The longest time that a log line waits for company before its event is sent.
pub const LOG_BATCH_DELAY: Duration = Duration::from_millis(50);
/// Events that the guest program keeps until the host has them. At the limit the step's pipe
/// blocks: a job slows itself and nothing else.
pub const GUEST_SPOOL_BYTES: u64 = 64 * MIB;
/// One frame between the host and the guest program. A larger one ends the connection as a fault of
/// the guest.
pub const FRAME_BYTES: usize = 4 * MIB as usize;
/// The job document that the guest program reads from its standard input.
pub const JOB_DOCUMENT_BYTES: usize = 32 * MIB as usize;
/// One of the files in which a step leaves outputs, variables, paths or state. A larger one fails
/// the step.
pub const COMMAND_FILE_BYTES: u64 = 16 * MIB;
/// Annotations of each level in one step; further ones stand in the log only.
pub const ANNOTATIONS_PER_STEP: usize = 10;
/// The message of an annotation; the rest is cut.
pub const ANNOTATION_CHARACTERS: usize = 4096;
/// A workflow file. A larger one is refused.
pub const WORKFLOW_BYTES: u64 = MIB;
/// Nodes of a YAML document after aliases are expanded. More are refused: an alias bomb.
pub const YAML_NODES: usize = 20_000;
/// Nesting of a YAML document. Deeper ones are refused.
pub const YAML_DEPTH: usize = 100;
/// Legs of one matrix. GitHub has the same limit.
pub const MATRIX_LEGS: usize = 256;
/// The text of one expression, in characters
/// (github-runner-protocol 5.8).
pub const EXPRESSION_CHARACTERS: usize = 21_000;
/// The nesting of one expression (github-runner-protocol 5.8).
pub const EXPRESSION_DEPTH: usize = 50;
/// The bytes that evaluating one expression or template may produce. Beyond it the evaluation is an
/// error.
pub const EVALUATION_BYTES: usize = 10 * MIB as usize;
/// Kept output of a machine's serial console; older output is dropped.
pub const CONSOLE_BYTES: usize = 256 * KIB as usize;
/// The label of a job, in characters. A longer one is refused with its message.
pub const LABEL_CHARACTERS: usize = 100;
/// The repository of a job, in characters. A longer one is refused with its message.
pub const REPOSITORY_CHARACTERS: usize = 300;
/// The longest time that a job may ask to wait or to run; GitHub ends a workflow run after as long.
/// A message that asks for more is refused.
pub const JOB_DEADLINE: Duration = Duration::from_secs(35 * 24 * 3600);
/// Virtual processors of one machine; QEMU's machine types stop at 255 and jobs long before. More
/// are refused, wherever they are asked for.
pub const MACHINE_CPUS: u32 = 64;
/// Memory of one machine. A message that asks for more is refused.
pub const MACHINE_MEMORY: u64 = 16 * 1024 * GIB;
/// The encoded events of one sealed part. More are refused when they are sealed: they belong in
/// several parts. One event alone is below it, because each of its own limits is.
pub const EVENT_PART_BYTES: usize = 4 * MIB as usize;
/// One message with several parts of events. A larger one is refused; what does not fit travels in
/// the next message. A part that is larger travels alone.
pub const EVENT_BATCH_BYTES: usize = MIB as usize;
/// One message that tells an orchestrator something. A larger one is refused.
pub const CONTROL_BYTES: usize = KIB as usize;
/// One question for a reservation, or its answer. A larger one is refused.
pub const RESERVE_BYTES: usize = 64 * KIB as usize;
/// Labels in one question for a reservation, or in its answer. More are refused.
pub const RESERVE_LABELS: usize = 256;
/// The name of who asks for a reservation, in characters. A longer one is refused.
pub const RUNNER_CHARACTERS: usize = 100;
