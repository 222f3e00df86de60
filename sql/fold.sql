-- The fold of a record's observations: receipts, coverage, deletes and what comes after them.
-- One transaction, rolled back.
BEGIN;
TRUNCATE contactsync.sources, contactsync.inbox, contactsync.records, contactsync.observations, contactsync.contacts,
	contactsync.identities, contactsync.contact_aliases, contactsync.conflicts, contactsync.decisions, contactsync.policies;
SET search_path = contactsync, public;
SET TimeZone = 'UTC';
SET client_min_messages = warning;

SELECT count(add_source(s, 'canonical', jsonb_build_object('class', c))) FROM (VALUES ('crm', 'office'), ('mkt', 'office'), ('phone', 'device')) v (s, c);
CREATE FUNCTION day(n integer) RETURNS timestamptz LANGUAGE sql AS $$SELECT '2026-01-01'::timestamptz + n * interval '1 day'$$;
CREATE FUNCTION said(source text, payload jsonb, at integer, kind text DEFAULT 'snapshot', seq integer DEFAULT 0, created integer DEFAULT NULL,
	coverage text[] DEFAULT NULL, id text DEFAULT 'r')
	RETURNS void LANGUAGE sql AS $$
	SELECT contactsync.ingest(source, id, payload, day(at), kind, seq, created => day(created), coverage => coverage)
$$;
-- the same as a run or another receipt brings it
CREATE FUNCTION brought(source text, payload jsonb, at integer, kind text DEFAULT 'snapshot', received integer DEFAULT 100, sighted integer DEFAULT NULL,
	inferred boolean DEFAULT false, tolerance interval DEFAULT '5 min')
	RETURNS void LANGUAGE sql AS $$
	INSERT INTO contactsync.inbox (source, source_id, kind, version, payload, received_at, sighted, inferred, tolerance)
	VALUES (source, 'r', kind, day(at), payload, day(received), day(sighted), inferred, tolerance)
$$;
CREATE PROCEDURE forget() LANGUAGE sql AS $$
	TRUNCATE contactsync.inbox, contactsync.records, contactsync.observations, contactsync.contacts, contactsync.identities,
		contactsync.contact_aliases, contactsync.conflicts, contactsync.decisions, contactsync.policies
$$;
CREATE VIEW life AS SELECT source, alive, zombie, deleted_at, version, nickname, note
	FROM contactsync.records r LEFT JOIN LATERAL (SELECT r.state ->> 'nickname' AS nickname, r.state ->> 'note' AS note) s ON true
	ORDER BY source;

-- ---- receipts ----

-- a clock ten years ahead: its stamp counts as of its receipt, and does not win for ever
SELECT brought('crm', '{"emails": ["a@x.org"], "note": "far"}', 3650, 'patch', received => 10), said('mkt', '{"emails": ["a@x.org"], "note": "near"}', 9, 'patch');
SELECT process();
SELECT note FROM directory;
SELECT said('mkt', '{"note": "later"}', 11, 'patch');
SELECT process();
SELECT note FROM directory;
-- of the same source too: what it says after its clock was set right wins
SELECT brought('crm', '{"note": "right"}', 12, 'patch', received => 12);
SELECT process();
SELECT note FROM directory;
CALL forget();

-- within the tolerance, which is that of the receipt, a stamp counts as it is
SELECT brought('crm', '{"note": "x"}', 10, received => 9, tolerance => '1 day'), brought('mkt', '{"note": "x"}', 10, received => 9, tolerance => '23:59:59');
SELECT process();
SELECT source, version, last_effective, last_raw FROM records ORDER BY 1;
CALL forget();

-- the same event by an earlier receipt moves what its stamp counts as, and all that follows from it
SELECT brought('crm', '{"emails": ["a@x.org"], "note": "far"}', 3650, 'patch', received => 20), said('mkt', '{"emails": ["a@x.org"], "note": "near"}', 15, 'patch');
SELECT process();
SELECT note FROM directory;
SELECT first_version FROM identities ORDER BY 1;
SELECT brought('crm', '{"emails": ["a@x.org"], "note": "far"}', 3650, 'patch', received => 10);
SELECT process();
SELECT note FROM directory;
SELECT first_version FROM identities ORDER BY 1;
SELECT count(*), min(received_at), min(effective) FROM observations WHERE version > effective;
-- a later one moves nothing
SELECT brought('crm', '{"emails": ["a@x.org"], "note": "far"}', 3650, 'patch', received => 30);
SELECT process();
SELECT count(*), min(received_at), min(effective) FROM observations WHERE version > effective;
-- of receipts in one batch the first counts as well
CALL forget();
SELECT brought('crm', '{"note": "far"}', 3650, 'patch', received => 20), brought('crm', '{"note": "far"}', 3650, 'patch', received => 10), brought('crm', '{"note": "far"}', 3650, 'patch', received => 30);
SELECT process();
SELECT received_at, effective FROM observations;
-- an earlier receipt is noted where the stamp counted as it is, too
CALL forget();
SELECT brought('crm', '{"note": "x"}', 5, 'patch', received => 20), brought('crm', '{"note": "x"}', 5, 'patch', received => 19);
SELECT process();
SELECT brought('crm', '{"note": "x"}', 5, 'patch', received => 18);
SELECT process();
SELECT received_at, effective FROM observations;
CALL forget();

ROLLBACK;
