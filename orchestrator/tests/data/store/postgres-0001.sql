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
VALUES ('019d0000-0000-7000-8000-000000000001', '01a1fccd-cf3f-75ae-862e-3c55b20e1aba', '1795242708800587', 'true', 'host-1', '[{"label":"debian-12","size":{"cpus":1,"memory":1073741824}},{"label":"large","size":{"cpus":4,"memory":4294967296}}]', '8', '8589934592', 'tcg', '25', '0.1.0');

INSERT INTO jobs (id, forge, repository, label, priority, reply_to, asked_cpus, asked_memory, cpus, memory, state, since, deadline, queued_until, host, lease, vm, tries, user_step_started, cancel_requested, created, claimed, ended, finished, delivered)
VALUES ('019d0000-0000-7000-8000-000000000011', 'forgejo', 'team/project', 'debian-12', '0', 'forgejo-1', NULL, NULL, '1', '1073741824', 'queued', '1795242708821839', '1795329108821839', '1795329108821839', NULL, NULL, NULL, '0', 'false', 'false', '1795242708821839', NULL, NULL, NULL, 'false');

INSERT INTO jobs (id, forge, repository, label, priority, reply_to, asked_cpus, asked_memory, cpus, memory, state, since, deadline, queued_until, host, lease, vm, tries, user_step_started, cancel_requested, created, claimed, ended, finished, delivered)
VALUES ('019d0000-0000-7000-8000-000000000012', 'forgejo', 'team/project', 'debian-12', '2', 'forgejo-1', NULL, NULL, '1', '1073741824', 'running', '1795242708880728', '1795246308880728', '1795329108828873', '019d0000-0000-7000-8000-000000000001', '01a1fccd-cf65-73d9-919a-81dcb9c5c6e7', '01a1fccd-cf79-723b-b829-9ad1fedf3727', '2', 'true', 'false', '1795242708828873', '1795242708834727', NULL, NULL, 'false');

INSERT INTO jobs (id, forge, repository, label, priority, reply_to, asked_cpus, asked_memory, cpus, memory, state, since, deadline, queued_until, host, lease, vm, tries, user_step_started, cancel_requested, created, claimed, ended, finished, delivered)
VALUES ('019d0000-0000-7000-8000-000000000013', 'forgejo', 'team/project', 'debian-12', '1', 'forgejo-1', NULL, NULL, '1', '1073741824', 'done', '1795242708893890', NULL, '1795329108832861', '019d0000-0000-7000-8000-000000000001', NULL, NULL, '1', 'false', 'false', '1795242708832861', '1795242708834727', '1795242708893890', '{"result":"failure","infrastructure":{"cause":"SOL-QEMU-KILLED","message":"the test says so"}}', 'false');

INSERT INTO messages (job, envelope, body)
VALUES ('019d0000-0000-7000-8000-000000000011', E'\\x8aa776657273696f6e01a36a6f62c410019d0000000070008000000000000011a5666f726765a7666f7267656a6faa7265706f7369746f7279ac7465616d2f70726f6a656374a56c6162656ca964656269616e2d3132a473697a6582a463707573c0a66d656d6f7279c0a87072696f7269747900a9646561646c696e657382a671756575656482a473656373ce00015180a56e616e6f7300a772756e6e696e6782a473656373cd5460a56e616e6f7300a87265706c795f746fa9666f7267656a6f2d31ab7265736572766174696f6ec0', E'\\x016e3633e745bfbef469ef920a770f9881fb9d1326df1d6b75cd5d9139e8a4c0799905839a944bcb67901645511ddeb5d6c832e72de5906a7b325faacc3f2e9d1987b9dc7ee0343ce1c758d2f0e34681f3b005789214f7f4e06a100000748af07e94daea8298feceaa97dd33d63ffe904f4fdb171252f1a76f9814ec506982c88eb3967760158d6aecaec211b7a2dc3055c29eb444af6bd78fe37b11ee9b66b12ed6fcd505528a9fb79f75b02bfc93f8374312d90adcc74ec1667cb1f3fa6fa79a42b14ec359d2c8b26e2b327f5ed79fa1f42fe0025768581bbf7a918c36c235f728920097a840c798936db0450dadaefb148d5d4e905f0173798446fb96a3f112b273e834cd4f7b72a389838bf72a8ea6069f4fe2584dbd891c4909173f7d89b1d77eada710af54e33ce92504d4de7219a70215e2c66c910e8fc651f4a9654482bf290e574f8d1d5927fe9f18ea5a1ca30097e6295c27c56ebfb37dbcc2aa6be00a2383ce8b0ac1f6b8624d182f368d4b285c6d7b9c2a8ac97aa405078ace5789ce670d661c93182a080b2964b2a55913b288a4');

INSERT INTO messages (job, envelope, body)
VALUES ('019d0000-0000-7000-8000-000000000012', E'\\x8aa776657273696f6e01a36a6f62c410019d0000000070008000000000000012a5666f726765a7666f7267656a6faa7265706f7369746f7279ac7465616d2f70726f6a656374a56c6162656ca964656269616e2d3132a473697a6582a463707573c0a66d656d6f7279c0a87072696f7269747902a9646561646c696e657382a671756575656482a473656373ce00015180a56e616e6f7300a772756e6e696e6782a473656373cd5460a56e616e6f7300a87265706c795f746fa9666f7267656a6f2d31ab7265736572766174696f6ec0', E'\\x016e3633e745bfbef46badb92642b9de78102275601b83d339bc2e854cc166a3dec3c5d024ee359a1a3295559a5824145da4d13192df9780349d5569e6b1a1f7e6cc175542005162215e139d72ee38111f7e1747d7583cef2a66fd43082a895679beee01b340557d62c3c5eaab97f5ef51d970cc0f9938469fc68844dc0d1a112e13f704a13da661a089df02eb48f33a29b40109ab3434124a3283ebb6c7c0c271add78478d8c53418f8531cb0bbdd566ad528c8350edf932abac86f043fbd827bf907c17c7a9d3c96424850f4bf16041b2576e2e813c4181acefdb811d95ea0d802ea8861fe8c4cedc548657c906e4a85ff6483ca8b6e80d686e57d13539309404f131bb4a8e85c95105083201ac51426e8fa886665f7a7726cf8bb409e7355f3dfc2bdffc352012c9f057f213c0d79b637032543f0ac44558bd6b3f83ca2291531d9779ba143baf5fbbee6a7ce1402e0cef03b6c4fcdf77021455873f5bf6a180a4f1c57ab6ff065facfac9012d11bae954d8d92768883156bd47910231cfa06d8570cc649dbd0b09cd4517bb284b45c1ccfb9');

INSERT INTO messages (job, envelope, body)
VALUES ('019d0000-0000-7000-8000-000000000013', E'\\x8aa776657273696f6e01a36a6f62c410019d0000000070008000000000000013a5666f726765a7666f7267656a6faa7265706f7369746f7279ac7465616d2f70726f6a656374a56c6162656ca964656269616e2d3132a473697a6582a463707573c0a66d656d6f7279c0a87072696f7269747901a9646561646c696e657382a671756575656482a473656373ce00015180a56e616e6f7300a772756e6e696e6782a473656373cd5460a56e616e6f7300a87265706c795f746fa9666f7267656a6f2d31ab7265736572766174696f6ec0', E'\\x016e3633e745bfbef4685543ac556abffe9c488a394b4d8368b7b85c222c44561264a03733fe1a279924e93b421bcaed1ff15d22780160b0c8eb3fb04424808954e9740abd71dafa8f49b443e21213a7e091929d60a67aa3bfe1681d98c25a2ce025c3b8299d4bb8ba5a14e68ffbaa1135866cea867aaf35c16d1a5a80bd131ed45ac5fb4ba631955cb4b4ed5046de5a5497bf613e8872842fab03ea40613be66566ecf59fac8f18f67a47044189a9eb0273d80b0481b858957cfbea1256844c5115e951164b7b65578be047f5dadf860cefa5437c23f2a15f936dfd12d017ce936b4d273c233c4307ced3b45a0978977006b8265687288d358c3396d4bb2696245f93a4a9c18ae3f9301b2cbeb3c2bf45d7319ee30218b746d90ed4e257e2266050c9d5bdb3c743b3d8bc494ece0e048e1d6ff54fb2c24c087bded157f6addf5e3f0d3d236b0f54a2dc13c13c4fb7a2c725f0a7e7b8402bd3af23e646667c97171faef413383af55ec01c1cf6adcaf04d95920bfae0fe92b4bc47765ce9ecf745660fe9957b5f2a5787fcaf67e6aaca44c3748a');

INSERT INTO tries (job, number, host, vm, began, ended, cause)
VALUES ('019d0000-0000-7000-8000-000000000012', '1', '019d0000-0000-7000-8000-000000000001', NULL, '1795242708834727', '1795242708844872', 'SOL-BOOT-TIMEOUT');

INSERT INTO tries (job, number, host, vm, began, ended, cause)
VALUES ('019d0000-0000-7000-8000-000000000012', '2', '019d0000-0000-7000-8000-000000000001', '01a1fccd-cf79-723b-b829-9ad1fedf3727', '1795242708853747', NULL, NULL);

INSERT INTO tries (job, number, host, vm, began, ended, cause)
VALUES ('019d0000-0000-7000-8000-000000000013', '1', '019d0000-0000-7000-8000-000000000001', NULL, '1795242708834727', '1795242708893890', 'SOL-QEMU-KILLED');

INSERT INTO phases (job, number, phase, position, took)
VALUES ('019d0000-0000-7000-8000-000000000012', '2', 'queue', '1', '2000000');

INSERT INTO phases (job, number, phase, position, took)
VALUES ('019d0000-0000-7000-8000-000000000012', '2', 'boot', '2', '7000000');

INSERT INTO cancels (job, time)
VALUES ('019d0000-0000-7000-8000-000000000014', '1795242708901994');

INSERT INTO reservations (id, runner, labels, granted, remaining, created, expires)
VALUES ('01a1fccd-cfbd-7204-9143-7fc48f0dbe11', 'forgejo-1', '["debian-12"]', '3', '3', '1795242708928358', '1795242723928358');

INSERT INTO boots (image, cpus, memory, acceleration, time, took)
VALUES ('sha256:a', '1', '1073741824', 'tcg', '1795242708907940', '3000000');

INSERT INTO boots (image, cpus, memory, acceleration, time, took)
VALUES ('sha256:a', '1', '1073741824', 'tcg', '1795242708917453', '9000000');

CREATE TABLE solstice_schema (version BIGINT NOT NULL);
INSERT INTO solstice_schema VALUES (1);
