-- drain(): process() with commits in between, as whoever may ingest.
\set VERBOSITY terse
SELECT contactsync.add_source('drained', 'canonical') IS NOT NULL AS added;
CREATE ROLE cs_drainer IN ROLE contactsync_app;
SET ROLE cs_drainer;
SELECT array_length(contactsync.ingest_batch('drained', jsonb_agg(jsonb_build_object('source_id', i, 'version', '2026-01-01',
	'payload', jsonb_build_object('last_name', 'Drained', 'first_name', i::text)))), 1)
FROM generate_series(1, 12000) i;
CALL contactsync.drain();
SELECT count(*) FROM contactsync.directory WHERE last_name = 'Drained';
CALL contactsync.drain();
RESET ROLE;
-- each commit is a transaction of its own
SELECT count(DISTINCT xact) FROM contactsync.audit_log WHERE changed -> 'last_name' ->> 'new' = 'Drained';
-- not where it cannot commit
SELECT contactsync.ingest_batch('drained', '[{"source_id": "x", "version": "2026-01-01", "payload": {"last_name": "X"}}]') IS NOT NULL AS queued;
BEGIN;
CALL contactsync.drain();
ROLLBACK;
-- a batch is all or nothing, and says what is wrong with it
SELECT contactsync.ingest_batch('drained', '[{"source_id": "y", "version": "2026-01-01"}, {"source_id": "z", "version": null}]');
SELECT contactsync.ingest_batch('drained', '[{"source_id": "y", "version": "2026-01-01"}, {"source_id": "z", "version": "2026-01-01", "kind": "gift"}]');
SELECT contactsync.ingest_batch('drained', '[{"source_id": "y", "version": "infinity"}]');
SELECT contactsync.ingest_batch('drained', '[{"source_id": "y", "version": "2026-01-01", "coverage": ["title", "shoe"]}]');
SELECT contactsync.ingest_batch('drained', '[{"source_id": "y", "version": "2026-01-01", "kind": "patch", "coverage": ["title"]}]');
SELECT contactsync.ingest_batch('drained', '[{"source_id": "y", "version": "soon"}]');
SELECT contactsync.ingest_batch('drained', '[5]');
SELECT contactsync.ingest_batch('nobody', '[]');
SELECT contactsync.ingest_batch('drained', '[]');
SET contactsync.max_payload = '1kB';
SELECT contactsync.ingest_batch('drained', jsonb_build_array(jsonb_build_object('source_id', 'y', 'version', '2026-01-01', 'payload', jsonb_build_object('note', repeat('x', 2000)))));
RESET contactsync.max_payload;
SELECT count(*) FROM contactsync.inbox WHERE source = 'drained';
SELECT contactsync.process();
DROP ROLE cs_drainer;
