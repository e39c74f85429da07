-- Times are microseconds since 1970-01-01T00:00:00Z, durations microseconds, memory bytes, ids text.
-- Ids have the collation "C": whatever the database's own is, they sort by the time they were made.
-- A job's state is one of the names of `JobState`.

CREATE TABLE hosts (
    id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    boot         TEXT,              -- the process that announced it last; NULL after a clean end
    heartbeat    BIGINT  NOT NULL,  -- 0 when it ended and left no job
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

INSERT INTO hosts (id, boot, heartbeat, draining, name, labels, cpus, memory, room_cpus, room_memory, acceleration, load, version)
VALUES ('019d0000-0000-7000-8000-000000000001', '01a1fdf1-6d49-73c4-86a4-9a2681e29f79', '1795261820234073', 'true', 'host-1', '[{"label":"debian-12","size":{"cpus":1,"memory":1073741824}},{"label":"large","size":{"cpus":4,"memory":4294967296}}]', '8', '8589934592', '8', '8589934592', 'tcg', '25', '0.1.0');

INSERT INTO jobs (id, forge, repository, label, priority, reply_to, asked_cpus, asked_memory, cpus, memory, state, since, deadline, queued_until, host, lease, vm, tries, user_step_started, cancel_requested, unreserved, created, claimed, ended, finished, delivered)
VALUES ('019d0000-0000-7000-8000-000000000011', 'forgejo', 'team/project', 'debian-12', '0', 'forgejo-1', NULL, NULL, '1', '1073741824', 'queued', '1795261820255171', '1795348220255171', '1795348220255171', NULL, NULL, NULL, '0', 'false', 'false', 'true', '1795261820255171', NULL, NULL, NULL, 'false');

INSERT INTO jobs (id, forge, repository, label, priority, reply_to, asked_cpus, asked_memory, cpus, memory, state, since, deadline, queued_until, host, lease, vm, tries, user_step_started, cancel_requested, unreserved, created, claimed, ended, finished, delivered)
VALUES ('019d0000-0000-7000-8000-000000000012', 'forgejo', 'team/project', 'debian-12', '2', 'forgejo-1', NULL, NULL, '1', '1073741824', 'running', '1795261820292785', '1795265420292785', '1795348220259672', '019d0000-0000-7000-8000-000000000001', '01a1fdf1-6d68-7235-9d73-4bcbaa226443', '01a1fdf1-6d79-778b-88e5-b9d185674a77', '2', 'true', 'false', 'true', '1795261820259672', '1795261820263304', NULL, NULL, 'false');

INSERT INTO jobs (id, forge, repository, label, priority, reply_to, asked_cpus, asked_memory, cpus, memory, state, since, deadline, queued_until, host, lease, vm, tries, user_step_started, cancel_requested, unreserved, created, claimed, ended, finished, delivered)
VALUES ('019d0000-0000-7000-8000-000000000013', 'forgejo', 'team/project', 'debian-12', '1', 'forgejo-1', NULL, NULL, '1', '1073741824', 'done', '1795261820298327', NULL, '1795348220262164', '019d0000-0000-7000-8000-000000000001', NULL, NULL, '1', 'false', 'false', 'true', '1795261820262164', '1795261820263304', '1795261820298327', '{"result":"failure","infrastructure":{"cause":"SOL-QEMU-KILLED","message":"the test says so"}}', 'false');

INSERT INTO messages (job, envelope, body)
VALUES ('019d0000-0000-7000-8000-000000000011', E'\\x8aa776657273696f6e01a36a6f62c410019d0000000070008000000000000011a5666f726765a7666f7267656a6faa7265706f7369746f7279ac7465616d2f70726f6a656374a56c6162656ca964656269616e2d3132a473697a6582a463707573c0a66d656d6f7279c0a87072696f7269747900a9646561646c696e657382a671756575656482a473656373ce00015180a56e616e6f7300a772756e6e696e6782a473656373cd5460a56e616e6f7300a87265706c795f746fa9666f7267656a6f2d31ab7265736572766174696f6ec0', E'\\x0129cf19ead9061bd95a8e7f93c7b1dcb2b967d9511da88b2a40c3928f1db6a18188bc719d2c4316f3142201401f6fdc866daf4131fbe7b0c9d94964e2666d8721dabe009f466ad43374bfe347067d3329744f62169cdc305dca2dc7184d0831328f8754daddf6628874c18b02cc743350c01f183ad00cf5ddba1156e9df67c9770efe1128987c79d0d5755347cab5cae77807905612f974318a50d007735ac4d48b950a326cf5ebdc045431b3a62eaa5b450ef3e9cbf4f101abb873e62e22f4c3e9fb5c91ebc28d30174728908b551038be38b88e7a859c4d629b87b2d28c48eff408050c2552e08f97114d7b46a8edf96d3ff2772bdf79429e81128c49d5057b0644fd82a0ffaeac06bf3482ec854186dee4717101db6e7b52e229430d901d569be7f405ff54c45604bf5932c5356d3655dc30d316155871874f8cc709612ddc41970ee6c1bd465c8a2a792af63521cefe80266dbf8bda03066f5c60986dcb47d49bcd739465ae89bcb930e5bb0db4ad554756610d0e493d3bcdf45412b64fb943833a283bb3d386133556d07bc921a5498b5107cf409a6cf0ce6dcfde453acdf070d35c');

INSERT INTO messages (job, envelope, body)
VALUES ('019d0000-0000-7000-8000-000000000012', E'\\x8aa776657273696f6e01a36a6f62c410019d0000000070008000000000000012a5666f726765a7666f7267656a6faa7265706f7369746f7279ac7465616d2f70726f6a656374a56c6162656ca964656269616e2d3132a473697a6582a463707573c0a66d656d6f7279c0a87072696f7269747902a9646561646c696e657382a671756575656482a473656373ce00015180a56e616e6f7300a772756e6e696e6782a473656373cd5460a56e616e6f7300a87265706c795f746fa9666f7267656a6f2d31ab7265736572766174696f6ec0', E'\\x0129cf19ead9061bd932abe70525d65a72eb1deb74aa2c36f77fb871b4654fffa445539f56fe200cefa2a61bcd0cfee51eda6a4bc93b3dfba2230e9b9b106fede0ade09ec26304f568fee9d51e1b68f32fc0f1a8784583469848b5d4f1c71c2c47042e1656dcad2c8e564533a170f5c4d207dff64becd2194d04bee06a07e965bc97e3b0a5693fe8eee37e1582356295d64c161786f24996832a92af1a5295a051fa000dcb8b4bc1eb738ba6e2370d099742e50eda3ef651cef9530f043421cb0309e31a44975280fc7af44cd8173882b127aa8bd495800b9eade2f410ea1572242d3c12be8df4e9e2e5e52e0fbc67f92e9904238dfb5976b91801550b3eb4e8ab433a7e50ac410f63938c0ea410b0b3a228ec4d7ed98af66059d333764d3b783f80b8d32ba8e546feac51f5c03222eee9dc99d67d80e4c85181d031722aac869018e4d417529cbcfbb3b9d8ed3c45cdaa144679093685787473c84a4b3d67b8a7e951ad123132d3cd2a6972994062d823d3c20dd0b1a3dc720903a9852b2f17d7b2c4d03acddedf57f93b9bc0cfe083b248d61ed1b1159454bc9729cb2703d14150ffeabc');

INSERT INTO messages (job, envelope, body)
VALUES ('019d0000-0000-7000-8000-000000000013', E'\\x8aa776657273696f6e01a36a6f62c410019d0000000070008000000000000013a5666f726765a7666f7267656a6faa7265706f7369746f7279ac7465616d2f70726f6a656374a56c6162656ca964656269616e2d3132a473697a6582a463707573c0a66d656d6f7279c0a87072696f7269747901a9646561646c696e657382a671756575656482a473656373ce00015180a56e616e6f7300a772756e6e696e6782a473656373cd5460a56e616e6f7300a87265706c795f746fa9666f7267656a6f2d31ab7265736572766174696f6ec0', E'\\x0129cf19ead9061bd9084532d2be827f939685f01053b6f4e23384f330c6693de53fd3633026f3c839a65c20365b179db5da8a6870c9a5289f847fd14cfe405821299921fff4105fb176f0fd1b619396d8ed34da7baa82552416713a5540abd7f62faa1d4c34a7b7f2e5b31e95df12b888c00af8993b2b66b06c5b2c330c26ccf3b6a01a0f646af59e18fb345579867fa21accb4709cd101a2dc7c06901e2b4806216621ab6e8aaa3d7ab79c995c0cb253e9d9da1962a44873873fc9e057f79e2df59fdee1e57e5348aa0dc5a0743aff54117fc79dd8a204e1ad80e14155d966379caad89cdac435f7034e46c88f24e97f5c0851f54d1653dfd7b236fc69ff439211767e78747feb25d3ee488e36d0db1e6b16f853e30de0d6ac6066a6f5c22403b3921399f9a1a56d0a0090b587094c71b56f801e197d623a630c5dd6ddd2710733fdab6c386a97adb65f1bbbe226042eb42c018e4b2ef33aa80e117e22c3dd646411d48f2f83295c35cb75d59964c1d45a60e36f29b00daca85fad065146ddb21a45ae32126738c275c5df689f4b7d0e1fd39bf395acf37470ae1215637391dde949bf0b');

INSERT INTO tries (job, number, host, vm, began, ended, cause)
VALUES ('019d0000-0000-7000-8000-000000000012', '1', '019d0000-0000-7000-8000-000000000001', NULL, '1795261820263304', '1795261820273725', 'SOL-BOOT-TIMEOUT');

INSERT INTO tries (job, number, host, vm, began, ended, cause)
VALUES ('019d0000-0000-7000-8000-000000000012', '2', '019d0000-0000-7000-8000-000000000001', '01a1fdf1-6d79-778b-88e5-b9d185674a77', '1795261820278893', NULL, NULL);

INSERT INTO tries (job, number, host, vm, began, ended, cause)
VALUES ('019d0000-0000-7000-8000-000000000013', '1', '019d0000-0000-7000-8000-000000000001', NULL, '1795261820263304', '1795261820298327', 'SOL-QEMU-KILLED');

INSERT INTO phases (job, number, phase, position, took)
VALUES ('019d0000-0000-7000-8000-000000000012', '2', 'queue', '1', '2000000');

INSERT INTO phases (job, number, phase, position, took)
VALUES ('019d0000-0000-7000-8000-000000000012', '2', 'boot', '2', '7000000');

INSERT INTO cancels (job, time)
VALUES ('019d0000-0000-7000-8000-000000000014', '1795261820302466');

INSERT INTO reservations (id, runner, labels, granted, remaining, created, expires)
VALUES ('01a1fdf1-6d99-7103-a7b3-905786894c79', 'forgejo-1', '["debian-12"]', '3', '3', '1795261820315759', '1795261835315759');

INSERT INTO boots (image, cpus, memory, acceleration, time, took)
VALUES ('sha256:a', '1', '1073741824', 'tcg', '1795261820306010', '3000000');

INSERT INTO boots (image, cpus, memory, acceleration, time, took)
VALUES ('sha256:a', '1', '1073741824', 'tcg', '1795261820307236', '9000000');

CREATE TABLE solstice_schema (version BIGINT NOT NULL);
INSERT INTO solstice_schema VALUES (1);
