-- Times are microseconds since 1970-01-01T00:00:00Z, durations microseconds, memory bytes, ids text.
-- Ids have the collation "C": whatever the database's own is, they sort by the time they were made.
-- A job's state is one of the names of `JobState`.

CREATE TABLE hosts (
    id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    boot         TEXT,              -- the process that announced it last; NULL after a clean end
    heartbeat    BIGINT  NOT NULL,  -- 0 when it ended and left no job
    refused      BIGINT  NOT NULL,  -- other processes with its id since it announced itself last
    draining     BOOLEAN NOT NULL,
    name         TEXT    NOT NULL,
    labels       TEXT    NOT NULL,  -- JSON: what it can run, with sizes
    cpus         BIGINT  NOT NULL,
    memory       BIGINT  NOT NULL,
    room_cpus    BIGINT  NOT NULL,  -- what others on the host leave of that
    room_memory  BIGINT  NOT NULL,
    acceleration TEXT    NOT NULL,
    load         BIGINT  NOT NULL,
    version      TEXT    NOT NULL
);

CREATE TABLE jobs (
    id                TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    forge             TEXT    NOT NULL,
    repository        TEXT    NOT NULL,
    label             TEXT    NOT NULL,
    priority          BIGINT  NOT NULL,
    reply_to          TEXT    NOT NULL,
    asked_cpus        BIGINT,      -- what the request asks for
    asked_memory      BIGINT,
    cpus              BIGINT,      -- what the machine has, once known
    memory            BIGINT,
    state             TEXT    NOT NULL,
    since             BIGINT  NOT NULL,
    deadline          BIGINT,
    queued_until      BIGINT  NOT NULL,  -- how long it may wait for a host in all
    only_host         TEXT,         -- where it must run; NULL for any host
    host              TEXT,
    lease             TEXT,
    vm                TEXT,
    tries             BIGINT  NOT NULL DEFAULT 0,
    user_step_started BOOLEAN NOT NULL DEFAULT FALSE,
    cancel_requested  BOOLEAN NOT NULL DEFAULT FALSE,
    unreserved        BOOLEAN NOT NULL DEFAULT FALSE,  -- claimed from its forge without a reservation
    created           BIGINT  NOT NULL,
    claimed           BIGINT,
    ended             BIGINT,
    finished          TEXT,         -- JSON: how it ended
    delivered         BOOLEAN NOT NULL,
    CHECK ((lease IS NULL) = (state IN ('queued', 'done'))),
    CHECK ((finished IS NULL) = (state <> 'done'))
);

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
    job      TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
    envelope BYTEA NOT NULL,
    body     BYTEA NOT NULL         -- sealed
);
-- Sealed bytes do not compress.
ALTER TABLE messages ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE TABLE tries (
    job    TEXT COLLATE "C" NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number BIGINT  NOT NULL,
    host   TEXT    NOT NULL,
    vm     TEXT,
    began  BIGINT  NOT NULL,
    ended  BIGINT,
    cause  TEXT,
    PRIMARY KEY (job, number)
);

CREATE TABLE phases (
    job      TEXT COLLATE "C" NOT NULL,
    number   BIGINT  NOT NULL,
    phase    TEXT    NOT NULL,
    position BIGINT  NOT NULL,
    took     BIGINT  NOT NULL,
    PRIMARY KEY (job, number, phase),
    FOREIGN KEY (job, number) REFERENCES tries (job, number) ON DELETE CASCADE
);

-- Jobs whose end was asked for before they came.
CREATE TABLE cancels (
    job  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    time BIGINT  NOT NULL
);

CREATE TABLE reservations (
    id        TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    runner    TEXT    NOT NULL,
    labels    TEXT    NOT NULL,     -- JSON: those that can be run
    granted   BIGINT  NOT NULL,
    remaining BIGINT  NOT NULL,
    created   BIGINT  NOT NULL,
    expires   BIGINT  NOT NULL
);

CREATE TABLE boots (
    image        TEXT    NOT NULL,
    cpus         BIGINT  NOT NULL,
    memory       BIGINT  NOT NULL,
    acceleration TEXT    NOT NULL,
    time         BIGINT  NOT NULL,
    took         BIGINT  NOT NULL
);

CREATE INDEX boots_kind ON boots (image, cpus, memory, acceleration, time);
