-- Compaction, what comes too late, and retention. One transaction, rolled back.
BEGIN;
TRUNCATE contactsync.sources, contactsync.inbox, contactsync.records, contactsync.observations, contactsync.contacts,
	contactsync.identities, contactsync.contact_aliases, contactsync.conflicts, contactsync.decisions, contactsync.policies;
SET search_path = contactsync, public;
SET TimeZone = 'UTC';
SET DateStyle = 'ISO';
SET client_min_messages = notice;

SELECT count(add_source(s, 'canonical')) FROM unnest('{crm,mkt}'::text[]) s;
CREATE FUNCTION day(n integer) RETURNS timestamptz LANGUAGE sql AS $$SELECT '2026-01-01'::timestamptz + n * interval '1 day'$$;
CREATE FUNCTION said(source text, payload jsonb, at integer, kind text DEFAULT 'patch')
	RETURNS void LANGUAGE sql AS $$SELECT contactsync.ingest(source, 'r', payload, day(at), kind)$$;
CREATE TEMP VIEW shown AS SELECT source, kind, effective, late, payload IS NOT NULL AS payload
	FROM contactsync.observations o JOIN contactsync.records r ON r.id = o.record_id ORDER BY source, effective;

SELECT set_policy('note', 'manual_review');
SELECT said('crm', '{"last_name": "Lee", "emails": ["old@x.org"], "note": "first"}', 1, 'snapshot'), said('crm', '{"emails": ["a@x.org"]}', 2),
	said('mkt', '{"last_name": "Lee", "emails": ["a@x.org"], "note": "first"}', 3, 'snapshot'), said('mkt', '{"note": "second"}', 4),
	said('crm', '{"title": "CTO"}', 5), said('crm', '{"department": "IT"}', 8);
SELECT process();
CREATE TEMP TABLE before AS SELECT d.id, d.contact::text, d.provenance, e.* FROM directory d, explain(d.id) e;
CREATE TEMP VIEW now_ AS SELECT d.id, d.contact::text, d.provenance, e.* FROM directory d, explain(d.id) e;

SELECT compact(day(6));
SELECT * FROM shown;
SELECT source, horizon FROM records ORDER BY 1;
-- nothing has changed: not the value that was established before, nor the evidence of a former address
SELECT (SELECT count(*) FROM (TABLE before EXCEPT TABLE now_) x) AS lost, (SELECT count(*) FROM (TABLE now_ EXCEPT TABLE before) x) AS new;
SELECT note, open_conflicts FROM directory;
SELECT key FROM identities WHERE record_id = (SELECT id FROM records WHERE source = 'crm');
SELECT * FROM verify();
-- again: nothing is left to do
SELECT compact(day(6));

-- what was compacted and comes again is known
SELECT said('crm', '{"emails": ["a@x.org"]}', 2);
SELECT process();
-- what is new and not newer is late: kept, said, and not merged
SELECT said('crm', '{"nickname": "late"}', 3), said('crm', NULL, 5, 'delete'), said('mkt', '{"nickname": "in time"}', 5);
SELECT process();
SELECT nickname, title FROM directory;
SELECT source, source_id, kind, version, horizon, payload FROM late_observations ORDER BY version;
SELECT * FROM verify();
-- and late once
SELECT said('crm', '{"nickname": "late"}', 3);
SELECT process();
SELECT count(*) FROM late_observations;

-- a base goes into the next one; a delete that an undelete may still take back stays
SELECT said('crm', NULL, 10, 'delete');
SELECT process();
SELECT compact(day(20));
SELECT * FROM shown;
SELECT said('crm', NULL, 11, 'undelete');
SELECT process();
SELECT title, note FROM directory;
SELECT * FROM verify();

-- errors
SAVEPOINT s;
SELECT compact(NULL);
ROLLBACK TO s;
SELECT compact(now() + interval '1 hour');
ROLLBACK TO s;
SELECT compact(day(1), -1);
ROLLBACK TO s;

-- retention
SELECT ingest('crm', 'r', '{}', day(30), 'patch', idempotency_key => k) > 0 FROM unnest('{old,new}'::text[]) k;
UPDATE inbox_dedup SET seen_at = now() - interval '15 days' WHERE key = 'old';
INSERT INTO runs (source, kind, state, finished_at, held_deletes, certified) VALUES
	('crm', 'full', 'succeeded', now() - interval '100 days', 0, false), ('crm', 'full', 'succeeded', now() - interval '100 days', 3, false),
	('crm', 'full', 'succeeded', now() - interval '100 days', 0, true), ('crm', 'full', 'failed', now() - interval '95 days', 0, false);
SELECT prune();
SELECT key FROM inbox_dedup;
SELECT state, held_deletes, certified FROM runs ORDER BY id;
SET contactsync.dedup_retention = 0;
UPDATE inbox_dedup SET seen_at = '2000-01-01';
SELECT prune();
ROLLBACK;
