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

INSERT INTO hosts (id, boot, heartbeat, refused, draining, name, labels, cpus, memory, room_cpus, room_memory, acceleration, load, version)
VALUES ('019d0000-0000-7000-8000-000000000001', '01a1fe16-89c7-737a-b933-9dccf01876b5', '1795264252360560', '0', 'true', 'host-1', '[{"label":"debian-12","size":{"cpus":1,"memory":1073741824}},{"label":"large","size":{"cpus":4,"memory":4294967296}}]', '8', '8589934592', '8', '8589934592', 'tcg', '25', '0.1.0');

INSERT INTO jobs (id, forge, repository, label, priority, reply_to, asked_cpus, asked_memory, cpus, memory, state, since, deadline, queued_until, host, lease, vm, tries, user_step_started, cancel_requested, unreserved, created, claimed, ended, finished, delivered)
VALUES ('019d0000-0000-7000-8000-000000000011', 'forgejo', 'team/project', 'debian-12', '0', 'forgejo-1', NULL, NULL, '1', '1073741824', 'queued', '1795264252382832', '1795350652382832', '1795350652382832', NULL, NULL, NULL, '0', 'false', 'false', 'true', '1795264252382832', NULL, NULL, NULL, 'false');

INSERT INTO jobs (id, forge, repository, label, priority, reply_to, asked_cpus, asked_memory, cpus, memory, state, since, deadline, queued_until, host, lease, vm, tries, user_step_started, cancel_requested, unreserved, created, claimed, ended, finished, delivered)
VALUES ('019d0000-0000-7000-8000-000000000012', 'forgejo', 'team/project', 'debian-12', '2', 'forgejo-1', NULL, NULL, '1', '1073741824', 'running', '1795264252472222', '1795267852472222', '1795350652402717', '019d0000-0000-7000-8000-000000000001', '01a1fe16-8a0b-748b-aa5a-f277c8c04fb5', '01a1fe16-8a25-7280-b89f-4aa2b096e672', '2', 'true', 'false', 'true', '1795264252402717', '1795264252421701', NULL, NULL, 'false');

INSERT INTO jobs (id, forge, repository, label, priority, reply_to, asked_cpus, asked_memory, cpus, memory, state, since, deadline, queued_until, host, lease, vm, tries, user_step_started, cancel_requested, unreserved, created, claimed, ended, finished, delivered)
VALUES ('019d0000-0000-7000-8000-000000000013', 'forgejo', 'team/project', 'debian-12', '1', 'forgejo-1', NULL, NULL, '1', '1073741824', 'done', '1795264252477713', NULL, '1795350652418541', '019d0000-0000-7000-8000-000000000001', NULL, NULL, '1', 'false', 'false', 'true', '1795264252418541', '1795264252421701', '1795264252477713', '{"result":"failure","infrastructure":{"cause":"SOL-QEMU-KILLED","message":"the test says so"}}', 'false');

INSERT INTO messages (job, envelope, body)
VALUES ('019d0000-0000-7000-8000-000000000011', E'\\x8aa776657273696f6e01a36a6f62c410019d0000000070008000000000000011a5666f726765a7666f7267656a6faa7265706f7369746f7279ac7465616d2f70726f6a656374a56c6162656ca964656269616e2d3132a473697a6582a463707573c0a66d656d6f7279c0a87072696f7269747900a9646561646c696e657382a671756575656482a473656373ce00015180a56e616e6f7300a772756e6e696e6782a473656373cd5460a56e616e6f7300a87265706c795f746fa9666f7267656a6f2d31ab7265736572766174696f6ec0', E'\\x0159ded5dbf349ea62974502acd7adcbfe1507b6b574ec4610c6f00a6b7c76904ce78611adc45d0dc50b8791c32804529c26cf55055bb4b3423f7110ffdb3b168cf6aec3f600425a84b19696118484a488220783a4bf38e73c86aa41f95858ff398cb3d82ee33cbe8a141fc7bb6909b590ecae132e49856fbd6db40837fcbebf5aacd3d20accba76db3ae8cc3045fcd0c0f98c77646cfa26d12a351cecf4277d15889543fd086de0b14a782f3af08b131f59036e1a6f35c8d29a63ad363d4015598e8888def90b8786f84a6d47cedcb8578f8fc1b6ae43f4f65ff48bc1b34071ab38638045f750ca69778c8b1200d37e079d5e49228937d46963d665a718003794eaad21ec785959debaf5a535746a793224cb71c40abfcdf019dd6bce7cada7e14f67b6f1363617f5802d818bd2b73401f030dbc41e30640c28788234e035a8dd381e15eaff98f8a3c956fbd1d81401416447cea127e70b591cf67f28d69b2b8ed874266115d1a540d8984096aea32a133984f79c27fd16a5bcde6c84aeb839b1816d7fbd4ce1cc5ec839ea4ed2d536b23ef0d8fe9dd0756aef2ce6d4ace40867d6f9eac1');

INSERT INTO messages (job, envelope, body)
VALUES ('019d0000-0000-7000-8000-000000000012', E'\\x8aa776657273696f6e01a36a6f62c410019d0000000070008000000000000012a5666f726765a7666f7267656a6faa7265706f7369746f7279ac7465616d2f70726f6a656374a56c6162656ca964656269616e2d3132a473697a6582a463707573c0a66d656d6f7279c0a87072696f7269747902a9646561646c696e657382a671756575656482a473656373ce00015180a56e616e6f7300a772756e6e696e6782a473656373cd5460a56e616e6f7300a87265706c795f746fa9666f7267656a6f2d31ab7265736572766174696f6ec0', E'\\x0159ded5dbf349ea621fbbfb6ec7a913389ddfe1013cb4ba71735949990c6ecbcf307fc4e0fe0642c01b821662aa5bb578f5e16f4acb97ca33dd7dd9a467b78f95e053995fe80a9e74d0acc2192dc935b4bd7f3d6e792d72a4962aaf68c00bee75935a35f8e3caf8d6098290573c9a5232d7a51827cd2a2c292bc94775fd0b17cb854dc36078b776b2b887d5e35aee6738a489d9977af02f10c541a59a84bafff0dafcc42be665377d9bd51c9bc57d788be82b4f0ba7bc96dbb843a2202f12cb3b658001b9dbc0f5a52d8b7d1d221f803379eca636ad62febd5ccdf0602189991a12e10625ad03563b72db23122ad332068403fe9017871550c4f28fe852801efe1af2099a64a205c7096f47d91b90cdaf93e623facc5f1134e5b109bb691e77a8998575c731ed19e0ed1c20c5de6bbeb9525c84174e1cc8c8d7ddc0ea5225610afb7ad7b4b4143119fac85344861ec4a6a42710e25a89a02c55458737bb1cfddf259bf9e3bdda93ff703b7e7fdcf7620bcb237051adc071d27b82459bcb03d9d974c924b9a921edad0136c0d29fac95385256e5285c4f31c9a758b3efc2854e33208983ff');

INSERT INTO messages (job, envelope, body)
VALUES ('019d0000-0000-7000-8000-000000000013', E'\\x8aa776657273696f6e01a36a6f62c410019d0000000070008000000000000013a5666f726765a7666f7267656a6faa7265706f7369746f7279ac7465616d2f70726f6a656374a56c6162656ca964656269616e2d3132a473697a6582a463707573c0a66d656d6f7279c0a87072696f7269747901a9646561646c696e657382a671756575656482a473656373ce00015180a56e616e6f7300a772756e6e696e6782a473656373cd5460a56e616e6f7300a87265706c795f746fa9666f7267656a6f2d31ab7265736572766174696f6ec0', E'\\x0159ded5dbf349ea62c7044e1da4811a8925792453985ede1f65b6ab48611b97ca51264a0374b1a40fbb877c2fe2b5c264e792cc044c9eb427396e9ffabab7ae26cdfc329b7b5b59d2fd06bc6793130eb4fc59090e03256a4268ab332fd7e0d892a7afbd2d876dbb4de4a4708fc306bde19547c7f2a9f4c1ae23e591f838eaf5cd40aab958993d81ce2d511fbb030f6d0556d8e654609604a295678c47699ea68eda0590f4503a8b3fccb79de40716f05a0d6d856856ce1f6bb4ced45c95efaa4e7ca3f69b29b693c98ed6080fddd91ae70f0ec5e3693975cf8a424e5b86495b42774776cef9e9765301a7aff5222268c75042835688425f567dac1c0a4e46fa6334377cd63418ab3ba6fa90025fc23fc3063f7b9c0b0d56615b4299b5c13a916e0be629b3f063f4c8d9d9cd9039d63be733446aadcf846c0343b114fa5fdea9ad6f134807e83ee30d286207293802d3894cdc5b233885ea5d8274b9cb9c101bfdea77ac6932335292ad4b6f97ae4a0c932f3dfd31f56b0ecd530e084d8f945c4eeec698ff441e29fc19aac08b9b9fe983c4af45cb551cc9356be3c67bdf178c485dc96d0c');

INSERT INTO tries (job, number, host, vm, began, ended, cause)
VALUES ('019d0000-0000-7000-8000-000000000012', '1', '019d0000-0000-7000-8000-000000000001', NULL, '1795264252421701', '1795264252443998', 'SOL-BOOT-TIMEOUT');

INSERT INTO tries (job, number, host, vm, began, ended, cause)
VALUES ('019d0000-0000-7000-8000-000000000012', '2', '019d0000-0000-7000-8000-000000000001', '01a1fe16-8a25-7280-b89f-4aa2b096e672', '1795264252449398', NULL, NULL);

INSERT INTO tries (job, number, host, vm, began, ended, cause)
VALUES ('019d0000-0000-7000-8000-000000000013', '1', '019d0000-0000-7000-8000-000000000001', NULL, '1795264252421701', '1795264252477713', 'SOL-QEMU-KILLED');

INSERT INTO phases (job, number, phase, position, took)
VALUES ('019d0000-0000-7000-8000-000000000012', '2', 'queue', '1', '2000000');

INSERT INTO phases (job, number, phase, position, took)
VALUES ('019d0000-0000-7000-8000-000000000012', '2', 'boot', '2', '7000000');

INSERT INTO cancels (job, time)
VALUES ('019d0000-0000-7000-8000-000000000014', '1795264252480278');

INSERT INTO reservations (id, runner, labels, granted, remaining, created, expires)
VALUES ('01a1fe16-8a5b-71a5-b877-5f2c514ad72e', 'forgejo-1', '["debian-12"]', '3', '3', '1795264252507436', '1795264267507436');

INSERT INTO boots (image, cpus, memory, acceleration, time, took)
VALUES ('sha256:a', '1', '1073741824', 'tcg', '1795264252500768', '3000000');

INSERT INTO boots (image, cpus, memory, acceleration, time, took)
VALUES ('sha256:a', '1', '1073741824', 'tcg', '1795264252504135', '9000000');

CREATE TABLE solstice_schema (version BIGINT NOT NULL);
INSERT INTO solstice_schema VALUES (1);
