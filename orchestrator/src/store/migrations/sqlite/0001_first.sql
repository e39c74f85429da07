-- Times are microseconds since 1970-01-01T00:00:00Z, durations microseconds, memory bytes, ids text.
-- A job's state is one of the names of `JobState`.

CREATE TABLE hosts (
    id           TEXT    NOT NULL PRIMARY KEY,
    boot         TEXT,              -- the process that announced it last; NULL after a clean end
    heartbeat    INTEGER NOT NULL,  -- 0 when it ended and left no job
    refused      INTEGER NOT NULL,  -- other processes with its id since it announced itself last
    draining     INTEGER NOT NULL,
    name         TEXT    NOT NULL,
    labels       TEXT    NOT NULL,  -- JSON: what it can run, with sizes
    cpus         INTEGER NOT NULL,
    memory       INTEGER NOT NULL,
    room_cpus    INTEGER NOT NULL,  -- what others on the host leave of that
    room_memory  INTEGER NOT NULL,
    acceleration TEXT    NOT NULL,
    load         INTEGER NOT NULL,
    version      TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE jobs (
    id                TEXT    NOT NULL PRIMARY KEY,
    forge             TEXT    NOT NULL,
    repository        TEXT    NOT NULL,
    label             TEXT    NOT NULL,
    priority          INTEGER NOT NULL,
    reply_to          TEXT    NOT NULL,
    asked_cpus        INTEGER,      -- what the request asks for
    asked_memory      INTEGER,
    cpus              INTEGER,      -- what the machine has, once known
    memory            INTEGER,
    state             TEXT    NOT NULL,
    since             INTEGER NOT NULL,
    deadline          INTEGER,
    queued_until      INTEGER NOT NULL,  -- how long it may wait for a host in all
    only_host         TEXT,         -- where it must run; NULL for any host
    host              TEXT,
    lease             TEXT,
    vm                TEXT,
    tries             INTEGER NOT NULL DEFAULT 0,
    user_step_started INTEGER NOT NULL DEFAULT FALSE,
    cancel_requested  INTEGER NOT NULL DEFAULT FALSE,
    unreserved        INTEGER NOT NULL DEFAULT FALSE,  -- claimed from its forge without a reservation
    created           INTEGER NOT NULL,
    claimed           INTEGER,
    ended             INTEGER,
    finished          TEXT,         -- JSON: how it ended
    delivered         INTEGER NOT NULL,
    CHECK ((lease IS NULL) = (state IN ('queued', 'done'))),
    CHECK ((finished IS NULL) = (state <> 'done'))
) STRICT, WITHOUT ROWID;

-- What a host looks through for its next job, in the order in which jobs start.
CREATE INDEX jobs_waiting ON jobs (label, priority DESC, created, id)
    WHERE state = 'queued' AND NOT cancel_requested;
CREATE INDEX jobs_waiting_until ON jobs (deadline) WHERE state = 'queued';
CREATE INDEX jobs_waiting_for_end ON jobs (created) WHERE state = 'queued' AND cancel_requested;
CREATE INDEX jobs_leased ON jobs (host) WHERE lease IS NOT NULL;
-- Lists for people: what is not over, everything, one repository.
CREATE INDEX jobs_open ON jobs (created) WHERE state <> 'done';
CREATE INDEX jobs_created ON jobs (created);
CREATE INDEX jobs_repository ON jobs (repository, created);
CREATE INDEX jobs_undelivered ON jobs (host, ended) WHERE state = 'done' AND NOT delivered;
CREATE INDEX jobs_ended ON jobs (ended) WHERE state = 'done';

-- Apart from `jobs`, so that a change of state does not write a body again.
CREATE TABLE messages (
    job      TEXT NOT NULL PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
    envelope BLOB NOT NULL,
    body     BLOB NOT NULL          -- sealed
) STRICT;

CREATE TABLE tries (
    job    TEXT    NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    host   TEXT    NOT NULL,
    vm     TEXT,
    began  INTEGER NOT NULL,
    ended  INTEGER,
    cause  TEXT,
    PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE phases (
    job      TEXT    NOT NULL,
    number   INTEGER NOT NULL,
    phase    TEXT    NOT NULL,
    position INTEGER NOT NULL,
    took     INTEGER NOT NULL,
    PRIMARY KEY (job, number, phase),
    FOREIGN KEY (job, number) REFERENCES tries (job, number) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- Jobs whose end was asked for before they came.
CREATE TABLE cancels (
    job  TEXT    NOT NULL PRIMARY KEY,
    time INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE reservations (
    id        TEXT    NOT NULL PRIMARY KEY,
    runner    TEXT    NOT NULL,
    labels    TEXT    NOT NULL,     -- JSON: those that can be run
    granted   INTEGER NOT NULL,
    remaining INTEGER NOT NULL,
    created   INTEGER NOT NULL,
    expires   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE boots (
    image        TEXT    NOT NULL,
    cpus         INTEGER NOT NULL,
    memory       INTEGER NOT NULL,
    acceleration TEXT    NOT NULL,
    time         INTEGER NOT NULL,
    took         INTEGER NOT NULL
) STRICT;

CREATE INDEX boots_kind ON boots (image, cpus, memory, acceleration, time);
