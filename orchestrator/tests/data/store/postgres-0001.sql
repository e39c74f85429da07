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

INSERT INTO hosts (id, boot, heartbeat, draining, name, labels, cpus, memory, acceleration, load, version)
VALUES ('019d0000-0000-7000-8000-000000000001', '01a1fd94-a505-73b2-82dc-9c0b24691243', '1795255739654012', 'true', 'host-1', '[{"label":"debian-12","size":{"cpus":1,"memory":1073741824}},{"label":"large","size":{"cpus":4,"memory":4294967296}}]', '8', '8589934592', 'tcg', '25', '0.1.0');

INSERT INTO jobs (id, forge, repository, label, priority, reply_to, asked_cpus, asked_memory, cpus, memory, state, since, deadline, queued_until, host, lease, vm, tries, user_step_started, cancel_requested, unreserved, created, claimed, ended, finished, delivered)
VALUES ('019d0000-0000-7000-8000-000000000011', 'forgejo', 'team/project', 'debian-12', '0', 'forgejo-1', NULL, NULL, '1', '1073741824', 'queued', '1795255739669606', '1795342139669606', '1795342139669606', NULL, NULL, NULL, '0', 'false', 'false', 'true', '1795255739669606', NULL, NULL, NULL, 'false');

INSERT INTO jobs (id, forge, repository, label, priority, reply_to, asked_cpus, asked_memory, cpus, memory, state, since, deadline, queued_until, host, lease, vm, tries, user_step_started, cancel_requested, unreserved, created, claimed, ended, finished, delivered)
VALUES ('019d0000-0000-7000-8000-000000000012', 'forgejo', 'team/project', 'debian-12', '2', 'forgejo-1', NULL, NULL, '1', '1073741824', 'running', '1795255739717395', '1795259339717395', '1795342139677796', '019d0000-0000-7000-8000-000000000001', '01a1fd94-a527-75d0-b3bd-88797a668754', '01a1fd94-a535-7752-929d-2948c146c13b', '2', 'true', 'false', 'true', '1795255739677796', '1795255739685428', NULL, NULL, 'false');

INSERT INTO jobs (id, forge, repository, label, priority, reply_to, asked_cpus, asked_memory, cpus, memory, state, since, deadline, queued_until, host, lease, vm, tries, user_step_started, cancel_requested, unreserved, created, claimed, ended, finished, delivered)
VALUES ('019d0000-0000-7000-8000-000000000013', 'forgejo', 'team/project', 'debian-12', '1', 'forgejo-1', NULL, NULL, '1', '1073741824', 'done', '1795255739721665', NULL, '1795342139681605', '019d0000-0000-7000-8000-000000000001', NULL, NULL, '1', 'false', 'false', 'true', '1795255739681605', '1795255739685428', '1795255739721665', '{"result":"failure","infrastructure":{"cause":"SOL-QEMU-KILLED","message":"the test says so"}}', 'false');

INSERT INTO messages (job, envelope, body)
VALUES ('019d0000-0000-7000-8000-000000000011', E'\\x8aa776657273696f6e01a36a6f62c410019d0000000070008000000000000011a5666f726765a7666f7267656a6faa7265706f7369746f7279ac7465616d2f70726f6a656374a56c6162656ca964656269616e2d3132a473697a6582a463707573c0a66d656d6f7279c0a87072696f7269747900a9646561646c696e657382a671756575656482a473656373ce00015180a56e616e6f7300a772756e6e696e6782a473656373cd5460a56e616e6f7300a87265706c795f746fa9666f7267656a6f2d31ab7265736572766174696f6ec0', E'\\x0108e12dca62a012b04b12657d98e9d1ee28dccb7f386e7e24f54cea8ec7726c936d3c08e2c672e764bcedfd02e1f39baa560427c6c9f9a6fe48365939b9a620341d5751b64d602f87c3b435732b3feeea6622734e2c736c6bf767d34b3f21c8bfd1e0b1db2959a419e207beff3af905c1eadaa48a3e2bff73d3e053c17eaca976edb52d07f252ec17c609f7d1acb2040673e656c4e000b82156d69d1d493e4bb48cbae2d578a6a3947ddde77b3f8c509f52aabb5646a17cf8846876865a6a8c849907055b1a3f8737075e250aeee47eed39bf6852f4649eb6783052050c2620abf553d43467bb40655337dee23dd83228f59f86ff245c7957a83f05eb66ab24c6ebfc31819db6edbcd93220dbfb05d10ff06dc2d098568c3c9a63392eed657c581a42874018a7610d375f8181b924647f08cd5a0dcf6373404e8bbb518b8bfeedd14cf00a8b7f349ae59da4f192c2bb489f55061eccbbfe1330507b0087b6397b4e1199bad30bb627f021a413e805f854efc1aff68b08654c65cd36886400ef3e6dc92a1984886fb4a9de44e54f621819a6510e');

INSERT INTO messages (job, envelope, body)
VALUES ('019d0000-0000-7000-8000-000000000012', E'\\x8aa776657273696f6e01a36a6f62c410019d0000000070008000000000000012a5666f726765a7666f7267656a6faa7265706f7369746f7279ac7465616d2f70726f6a656374a56c6162656ca964656269616e2d3132a473697a6582a463707573c0a66d656d6f7279c0a87072696f7269747902a9646561646c696e657382a671756575656482a473656373ce00015180a56e616e6f7300a772756e6e696e6782a473656373cd5460a56e616e6f7300a87265706c795f746fa9666f7267656a6f2d31ab7265736572766174696f6ec0', E'\\x0108e12dca62a012b01d584a2268fcb6c22bcf3cbc17a52a4170f41bf41b45a267167ea5cd4e1c528f8e619c722ed385e5740fbe4320f3a0d801dadc84ae9ddc177e7b96a381120e77c8bdad905f791be2e0da17a7b5ef02b8939875b0b58a9ec5b1ce6262b60119c2e984e8a2f7dffe40d0e004027a06e28e0e1e04d26aaee92c0b5b8845bcff99d7669dfdfdeec5d0594fe285620808c0aacfb3ddc7f031ac92c0edab4ec39e0d5ed9cc6add5fc95f08db74d2d67faac916d9a2106c6b11adf3da2d26d9da5c7e1db4a0b8a2027ad56ab4e71c5ee2a35140235c2c96aef5305abc45d076402c2c10d1033c187dfa446f55b10e4cb44b47b9db7ca9af1cca8eeb6503bb502d0c9096f86aab3a8e36844345e4e994d5d6ab38e8cd619f390d1ecc41c0c8e321c28127fbd2945872491a5fa9f1e0a25a2c857a23efa81e833210d9c8e4420f1eaf370b2ad2d161d880b6ffeb04f4b2ef1b583e08ffecf3aaba6264842565a90fc909b5e4b9642007d9539fb694bca2934cebf561c37264f3f8dc430df10cf151b50ff41815329d7a5046d9111029');

INSERT INTO messages (job, envelope, body)
VALUES ('019d0000-0000-7000-8000-000000000013', E'\\x8aa776657273696f6e01a36a6f62c410019d0000000070008000000000000013a5666f726765a7666f7267656a6faa7265706f7369746f7279ac7465616d2f70726f6a656374a56c6162656ca964656269616e2d3132a473697a6582a463707573c0a66d656d6f7279c0a87072696f7269747901a9646561646c696e657382a671756575656482a473656373ce00015180a56e616e6f7300a772756e6e696e6782a473656373cd5460a56e616e6f7300a87265706c795f746fa9666f7267656a6f2d31ab7265736572766174696f6ec0', E'\\x0108e12dca62a012b0fe7105825fe5ac032aaf924d726553c3c5e255a85ad307c20b57d4f5671b6cace989eb4527c0cef8b333755e32b6877f21c9d798b673a3cfa37349fcf8336dfefbe3ea2f480469811b08f0677d65facf11944b0d195411cbdc2be55fed9725bfb79c4196320869511c316153c420eb210bdca0198b332b6e4767466eb9dced92218ff50333490ff4a8682793b81c07f51f6b0b72b9b1e06d2a12696a815c541ea9626052865484bdee9b774bb63be1fff571f1c545eed645cd78a408173038136bf6c2634c9c82cd9b8b2b3b996b853a3803d135269fea0ececcd322cf90d07c25e889d72307c2941c8734a00aa8b862400baab9d1105e37adc6a3a4a1b69832180198f7608d5302621803f6ce6abbc5b773aa5a9038dc0943e263c7f71dfbe6a6c8dd4e56cb49965edc52aca77f826c5e3c7415bb4d97791b4dfeae31311b7f158f836ed21b61b1b25d5bbf8c6d7368577ea36a38a5e95cb5ee438d188dbd6a94bd67de24c9c8176ad26e99c81541933caa968010fc2d2ea9addc0564f391e3136af5ed4112bb719f0537');

INSERT INTO tries (job, number, host, vm, began, ended, cause)
VALUES ('019d0000-0000-7000-8000-000000000012', '1', '019d0000-0000-7000-8000-000000000001', NULL, '1795255739685428', '1795255739693691', 'SOL-BOOT-TIMEOUT');

INSERT INTO tries (job, number, host, vm, began, ended, cause)
VALUES ('019d0000-0000-7000-8000-000000000012', '2', '019d0000-0000-7000-8000-000000000001', '01a1fd94-a535-7752-929d-2948c146c13b', '1795255739697670', NULL, NULL);

INSERT INTO tries (job, number, host, vm, began, ended, cause)
VALUES ('019d0000-0000-7000-8000-000000000013', '1', '019d0000-0000-7000-8000-000000000001', NULL, '1795255739685428', '1795255739721665', 'SOL-QEMU-KILLED');

INSERT INTO phases (job, number, phase, position, took)
VALUES ('019d0000-0000-7000-8000-000000000012', '2', 'queue', '1', '2000000');

INSERT INTO phases (job, number, phase, position, took)
VALUES ('019d0000-0000-7000-8000-000000000012', '2', 'boot', '2', '7000000');

INSERT INTO cancels (job, time)
VALUES ('019d0000-0000-7000-8000-000000000014', '1795255739725988');

INSERT INTO reservations (id, runner, labels, granted, remaining, created, expires)
VALUES ('01a1fd94-a559-7022-a81e-77945c345e09', 'forgejo-1', '["debian-12"]', '3', '3', '1795255739737488', '1795255754737488');

INSERT INTO boots (image, cpus, memory, acceleration, time, took)
VALUES ('sha256:a', '1', '1073741824', 'tcg', '1795255739729413', '3000000');

INSERT INTO boots (image, cpus, memory, acceleration, time, took)
VALUES ('sha256:a', '1', '1073741824', 'tcg', '1795255739733394', '9000000');

CREATE TABLE solstice_schema (version BIGINT NOT NULL);
INSERT INTO solstice_schema VALUES (1);
