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

INSERT INTO hosts (id, boot, heartbeat, refused, draining, name, labels, cpus, memory, room_cpus, room_memory, acceleration, load, version)
VALUES ('019d0000-0000-7000-8000-000000000001', '01a1fea1-417f-7530-8af2-6f1ee05e6d16', '1795273343359836', '0', 'true', 'host-1', '[{"label":"debian-12","size":{"cpus":1,"memory":1073741824}},{"label":"large","size":{"cpus":4,"memory":4294967296}}]', '8', '8589934592', '8', '8589934592', 'tcg', '25', '0.1.0');

INSERT INTO jobs (id, forge, repository, label, priority, reply_to, asked_cpus, asked_memory, cpus, memory, state, since, deadline, queued_until, only_host, host, lease, vm, tries, user_step_started, cancel_requested, unreserved, created, claimed, ended, finished, delivered)
VALUES ('019d0000-0000-7000-8000-000000000011', 'forgejo', 'team/project', 'debian-12', '0', 'forgejo-1', NULL, NULL, '1', '1073741824', 'queued', '1795273343367286', '1795359743367286', '1795359743367286', NULL, NULL, NULL, NULL, '0', 'false', 'false', 'true', '1795273343367286', NULL, NULL, NULL, 'false');

INSERT INTO jobs (id, forge, repository, label, priority, reply_to, asked_cpus, asked_memory, cpus, memory, state, since, deadline, queued_until, only_host, host, lease, vm, tries, user_step_started, cancel_requested, unreserved, created, claimed, ended, finished, delivered)
VALUES ('019d0000-0000-7000-8000-000000000012', 'forgejo', 'team/project', 'debian-12', '2', 'forgejo-1', NULL, NULL, '1', '1073741824', 'running', '1795273343383406', '1795276943383406', '1795359743370886', NULL, '019d0000-0000-7000-8000-000000000001', '01a1fea1-418f-72db-aeb4-5b7dd22aa872', '01a1fea1-4193-7726-9219-25501da9cc72', '2', 'true', 'false', 'true', '1795273343370886', '1795273343374003', NULL, NULL, 'false');

INSERT INTO jobs (id, forge, repository, label, priority, reply_to, asked_cpus, asked_memory, cpus, memory, state, since, deadline, queued_until, only_host, host, lease, vm, tries, user_step_started, cancel_requested, unreserved, created, claimed, ended, finished, delivered)
VALUES ('019d0000-0000-7000-8000-000000000013', 'forgejo', 'team/project', 'debian-12', '1', 'forgejo-1', NULL, NULL, '1', '1073741824', 'done', '1795273343384286', NULL, '1795359743372823', NULL, '019d0000-0000-7000-8000-000000000001', NULL, NULL, '1', 'false', 'false', 'true', '1795273343372823', '1795273343374003', '1795273343384286', '{"result":"failure","infrastructure":{"cause":"SOL-QEMU-KILLED","message":"the test says so"}}', 'false');

INSERT INTO messages (job, envelope, body)
VALUES ('019d0000-0000-7000-8000-000000000011', E'\\x8aa776657273696f6e01a36a6f62c410019d0000000070008000000000000011a5666f726765a7666f7267656a6faa7265706f7369746f7279ac7465616d2f70726f6a656374a56c6162656ca964656269616e2d3132a473697a6582a463707573c0a66d656d6f7279c0a87072696f7269747900a9646561646c696e657382a671756575656482a473656373ce00015180a56e616e6f7300a772756e6e696e6782a473656373cd5460a56e616e6f7300a87265706c795f746fa9666f7267656a6f2d31ab7265736572766174696f6ec0', E'\\x01a8851c3e7660aa54e76ec1c71807b754179f31be2530ae9b9ecc474e682714a61c42b1704ceab90c3cccba41aa1089bdb947f7fe7fdec579b25f9075f264fc4b6abf4e1a54d804aa8c293a1049db11a8bcd67112d15c3c246132856e12e374a78fed205ab5c25c6f3eea3c9d6a3baa7a1b8c25f643a33958640872b7040059e03bda733aa576db2c67a23e184eefd51f0ea4729b9ff57d7fb853cca06d992d67429a0ebda7706fa5411313b292fec921e33127cbf21c3f28b01662850850663aea2a20139f4cab61c92adac4889c8b46fdd7439e0b98b2d203a5426ffe60b130ce813776626acef5a6a4db68583c3dbd048de3bdb30b788e7409bf76677f052ff6d027e0be519c86f8963a37c1356e189be65ad9b4b845835efa4e97da9179c6b2a9f6002096b7807649134f701b45675bd7e9f717713e3328d5204e459772ffbce9ad4a84a037f2159a0671538dfa163c57ace4d5ee6684939e54fac86b68bdfcd8caaf3045882ff13a7433305338f04c572c85c878dda7273164d875c624b52407bcf9d715cf66342fbb0cb59836d448062776a889bbcc3e857f92e780c7ef209e4844');

INSERT INTO messages (job, envelope, body)
VALUES ('019d0000-0000-7000-8000-000000000012', E'\\x8aa776657273696f6e01a36a6f62c410019d0000000070008000000000000012a5666f726765a7666f7267656a6faa7265706f7369746f7279ac7465616d2f70726f6a656374a56c6162656ca964656269616e2d3132a473697a6582a463707573c0a66d656d6f7279c0a87072696f7269747902a9646561646c696e657382a671756575656482a473656373ce00015180a56e616e6f7300a772756e6e696e6782a473656373cd5460a56e616e6f7300a87265706c795f746fa9666f7267656a6f2d31ab7265736572766174696f6ec0', E'\\x01a8851c3e7660aa5431c071b21c654fb195fecdd9a757412814db3edb12041d0be971a3799a82b021beafbe8fdb99438003a8cf94d1e16887048c6982858f4502b95c62b5bd83819200e683649ccb221e52556a8cee828253debf1026b9ddcb0d3d163a3ef67bfcc975394676c806045faf57f1643cb45daf64b3a048fe23e58ab4e9ffff8b47731d5a8a062c13d3605a0bb49c4c598b976ed16da15c38614fc3b8a000c2d1328711f7d789a6c6a10af84edeec39c3cc8dd7a19057c26e5a0b552054c512e2588ba9e7ef676cbef588eb0f558bc1b7af63c8ac55409e16e22d823e67f19fa139f81614fc7f26a955cb2d047ef759e57b4675cb5090d8621b3c4d9570daa9df9eac85c1affd986089dde92f66768f877aab6e44213cc69a17a91937bcfbfbe8e1b130acbfed73a13260915ed799668bfbeac1ca1b3c986f622af974e77fb7eb982acf1c0fd38abfa186befecdee0f23fe536c995dc2d7de9ad816a6634b77e9129a6c427a3ef7d691ce29721229e59a357b7fdd1c0d64f4cb38b669148d4b9e0eccab0bcf1797651ae65303a488e82a03adbe777cd3f86a0c13a4e4d21593');

INSERT INTO messages (job, envelope, body)
VALUES ('019d0000-0000-7000-8000-000000000013', E'\\x8aa776657273696f6e01a36a6f62c410019d0000000070008000000000000013a5666f726765a7666f7267656a6faa7265706f7369746f7279ac7465616d2f70726f6a656374a56c6162656ca964656269616e2d3132a473697a6582a463707573c0a66d656d6f7279c0a87072696f7269747901a9646561646c696e657382a671756575656482a473656373ce00015180a56e616e6f7300a772756e6e696e6782a473656373cd5460a56e616e6f7300a87265706c795f746fa9666f7267656a6f2d31ab7265736572766174696f6ec0', E'\\x01a8851c3e7660aa54ebf3337fa0d12ec94c13ddfed14d1a73eaf980a1c1c74114bfb2fd1cf125e963206c1704f1967e81e02132430457226d5e503b6d049e881d3aff8bfbf7e3d578ac74b8928c5f6e3acd0d8e507e32b4b8d5e3ada0f522305922153595598e9a4f0fb2fb67a4808da4f73866328a9af1882e202e10f2eafb8395d2eb285e411ba5331276097f74bdad2601b754fb3a79b8cb3b669d49efa8d6956479c42f364579f536131c63d2d38476b13d14990097cf0277a8ae9d6c34eac8d8c5db29b7644ba0162d1dcad7f6047f6ae1056879cad1a408acaaa6b7b897a0fbd9dbf1bb4bdf9ff90421e5469014c4c9b8ea4fb7aa96d57c1de3dca7e4b5d75a99bdddb24f618b8a37d19da4802f74c8ad735f647e2911d9edc257efc3a81c9674e99a3e9855c5b6b771943884a4187dc1f5d011522d753a0e6bc9a1209064f1208e08fd8abb82409adcc1d3efe5532a960e332df36603bfeb8ee8168decfe56c76b32af0b3c5dda36710a346d201feb23887113932b1264428a652dc24b302243a2645d233a7ce782af659fa651ed936aac354021488097087bbc37a089da71b9d3');

INSERT INTO tries (job, number, host, vm, began, ended, cause)
VALUES ('019d0000-0000-7000-8000-000000000012', '1', '019d0000-0000-7000-8000-000000000001', NULL, '1795273343374003', '1795273343377906', 'SOL-BOOT-TIMEOUT');

INSERT INTO tries (job, number, host, vm, began, ended, cause)
VALUES ('019d0000-0000-7000-8000-000000000012', '2', '019d0000-0000-7000-8000-000000000001', '01a1fea1-4193-7726-9219-25501da9cc72', '1795273343378807', NULL, NULL);

INSERT INTO tries (job, number, host, vm, began, ended, cause)
VALUES ('019d0000-0000-7000-8000-000000000013', '1', '019d0000-0000-7000-8000-000000000001', NULL, '1795273343374003', '1795273343384286', 'SOL-QEMU-KILLED');

INSERT INTO phases (job, number, phase, position, took)
VALUES ('019d0000-0000-7000-8000-000000000012', '2', 'queue', '1', '2000000');

INSERT INTO phases (job, number, phase, position, took)
VALUES ('019d0000-0000-7000-8000-000000000012', '2', 'boot', '2', '7000000');

INSERT INTO cancels (job, time)
VALUES ('019d0000-0000-7000-8000-000000000014', '1795273343385846');

INSERT INTO reservations (id, runner, labels, granted, remaining, created, expires)
VALUES ('01a1fea1-419c-7164-b191-cf0467ebd70d', 'forgejo-1', '["debian-12"]', '3', '3', '1795273343388395', '1795273358388395');

INSERT INTO boots (image, cpus, memory, acceleration, time, took)
VALUES ('sha256:a', '1', '1073741824', 'tcg', '1795273343386483', '3000000');

INSERT INTO boots (image, cpus, memory, acceleration, time, took)
VALUES ('sha256:a', '1', '1073741824', 'tcg', '1795273343387392', '9000000');

CREATE TABLE solstice_schema (version BIGINT NOT NULL);
INSERT INTO solstice_schema VALUES (1);
