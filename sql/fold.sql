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

-- ---- coverage ----

-- a revoked field permission: a snapshot that covers less clears nothing, and is noticed
SET client_min_messages = notice;
SELECT said('crm', '{"emails": ["a@x.org"], "birthday": "1990-01-02", "note": "n", "metadata": {"k": 1}}', 1);
SELECT process();
SELECT said('crm', '{"emails": ["a@x.org"], "note": "m"}', 5, coverage => '{emails,note,metadata.j}'),
	said('crm', '{"note": "m"}', 5, coverage => '{note}', id => 'never had more');
SELECT process();
SELECT state ->> 'birthday' AS birthday, state ->> 'note' AS note, state -> 'metadata' AS metadata, covered, uncovered
	FROM records ORDER BY source_id DESC;
SELECT field, changed_at, as_of FROM explain((SELECT id FROM directory WHERE emails <> '[]')) ORDER BY 1;
SELECT source, source_id, notice, detail FROM record_notices;
-- once is enough
SELECT said('crm', '{"emails": ["a@x.org"], "note": "o"}', 6, coverage => '{emails,note,metadata.j}');
SELECT process();
-- a patch covers what it lists, and is no snapshot
SELECT said('crm', '{"birthday": null}', 7, 'patch');
SELECT process();
SELECT state ->> 'birthday' AS birthday, uncovered FROM records WHERE source_id = 'r';
-- the permission is back
SELECT said('crm', '{"emails": ["a@x.org"], "birthday": "1990-01-02"}', 8);
SELECT process();
SELECT state ->> 'birthday' AS birthday, state ->> 'note' AS note, covered, uncovered FROM records WHERE source_id = 'r';
SELECT * FROM record_notices;
CALL forget();
-- single keys: what is not asked for any more stays
SELECT said('crm', '{"metadata": {"a": 1, "b": 2}}', 1, coverage => '{metadata.a,metadata.b}'), said('mkt', '{"metadata": {"a": 1}}', 1, coverage => '{metadata.a,tags}');
SELECT process();
SELECT said('crm', '{"metadata": {"b": 3}}', 2, coverage => '{metadata.b}'), said('mkt', '{}', 2, coverage => '{metadata}');
SELECT process();
SELECT source, state -> 'metadata' AS metadata, covered, uncovered FROM records ORDER BY 1;
CALL forget();
SET client_min_messages = warning;

-- two things said of one version: one of them wins as a whole, the same in any order, and that is counted
SELECT said('crm', '{"note": "a", "nickname": "x"}', 1), said('crm', '{"note": "b"}', 1), said('crm', '{"note": "a", "nickname": "x"}', 1), said('mkt', '{"note": "b"}', 1);
SELECT process();
SELECT said('mkt', '{"note": "a", "nickname": "x"}', 1);
SELECT process();
SELECT count(DISTINCT state::jsonb - '_provenance') AS outcomes, array_agg(same_version_conflicts) AS counted FROM records;
SELECT source, notice, detail FROM record_notices ORDER BY 1;
CALL forget();

-- ---- deletes, and what comes after ----

-- a late update from before the delete changes nothing; one from after it, without proof of life, is held
SELECT said('crm', '{"nickname": "Dee", "note": "a"}', 1), said('crm', NULL, 5, 'delete'), said('crm', '{"note": "late"}', 3, 'patch');
SELECT process();
SELECT * FROM life;
SELECT said('crm', '{"note": "zombie"}', 6, 'patch');
SELECT process();
SELECT * FROM life;
SELECT source, notice FROM record_notices;
-- an undelete without payload gives back what there was, the late update included, and what was held
SELECT said('crm', NULL, 7, 'undelete');
SELECT process();
SELECT * FROM life;
CALL forget();
-- a held snapshot is no proof of life either: who knows when it was made
SELECT said('crm', '{"nickname": "Dee"}', 1), said('crm', NULL, 5, 'delete'), said('crm', '{"nickname": "Deedee"}', 6);
SELECT process();
SELECT * FROM life;
CALL forget();

-- deleted and edited at once: deleted, in either order
SELECT said('crm', '{"nickname": "Dee"}', 1), said('crm', NULL, 5, 'delete'), said('crm', '{"note": "edit"}', 5, 'patch'),
	said('mkt', '{"nickname": "Dee"}', 1), said('mkt', '{"note": "edit"}', 5, 'patch'), said('mkt', NULL, 5, 'delete'),
	said('phone', '{"nickname": "Dee"}', 1), said('phone', NULL, 5, 'delete'), said('phone', NULL, 5, 'undelete');
SELECT process();
SELECT * FROM life;
-- where the source counts, it is no tie
SELECT said('crm', '{"note": "edit"}', 5, 'patch', seq => -1), said('mkt', NULL, 5, 'undelete', seq => 1);
SELECT process();
SELECT * FROM life;
CALL forget();

-- an undelete with payload starts afresh, as does one with an empty coverage of all
SELECT said('crm', '{"nickname": "Dee", "note": "a"}', 1), said('crm', NULL, 5, 'delete'), said('crm', '{"nickname": "Deedee"}', 6, 'undelete');
SELECT process();
SELECT * FROM life;
-- late, an undelete between two deletes gives nothing back that the second took
SELECT said('crm', NULL, 9, 'delete'), said('crm', NULL, 7, 'undelete');
SELECT process();
SELECT * FROM life;
SELECT said('crm', NULL, 10, 'undelete');
SELECT process();
SELECT * FROM life;
CALL forget();

-- created after the delete: the external id was used again, for somebody else
SELECT said('crm', '{"first_name": "Ann", "last_name": "Lee", "emails": ["a@x.org"], "note": "hers"}', 1), said('crm', NULL, 5, 'delete'),
	said('crm', '{"first_name": "Bob", "last_name": "Roe", "emails": ["b@x.org"]}', 8, 'patch', created => 7),
	said('mkt', '{"first_name": "Ann", "last_name": "Lee", "emails": ["a@x.org"]}', 2);
SELECT process();
SELECT alive, created, names, state ->> 'last_name' AS last_name, state ->> 'note' AS note FROM records WHERE source = 'crm';
-- and what it showed of Ann says nothing of him
SELECT key, source FROM identities JOIN records r ON r.id = record_id ORDER BY 1;
SELECT last_name, emails, note, jsonb_array_length(sources) AS records FROM directory ORDER BY 1;
-- while he is deleted, that stays so; Ann's late news are hers
SELECT said('crm', NULL, 20, 'delete'), said('crm', '{"emails": ["ann@x.org"]}', 4, 'patch');
SELECT process();
SELECT key, source FROM identities JOIN records r ON r.id = record_id ORDER BY 1;
-- a creation before the delete proves nothing
CALL forget();
SELECT said('crm', '{"nickname": "Dee"}', 1), said('crm', NULL, 5, 'delete'), said('crm', '{"note": "x"}', 8, 'patch', created => 4);
SELECT process();
SELECT * FROM life;
CALL forget();

-- a run that began after the delete showed the record: it lives, by what was last said of it
SELECT said('crm', '{"nickname": "Dee"}', 1), said('crm', NULL, 5, 'delete');
SELECT process();
SELECT brought('crm', '{"nickname": "Dee"}', 1, sighted => 6);
SELECT process();
SELECT * FROM life;
-- one that began before it proves nothing
CALL forget();
SELECT said('crm', '{"nickname": "Dee"}', 1), said('crm', NULL, 5, 'delete');
SELECT brought('crm', '{"nickname": "Dee"}', 1, sighted => 4);
SELECT process();
SELECT * FROM life;
CALL forget();

-- deleted by absence: a late sighting in a later run, or a newer snapshot, shows that to have been wrong; a patch does not
SELECT said(s, '{"nickname": "Dee"}', 1), brought(s, NULL, 5, 'delete', inferred => true) FROM unnest('{crm,mkt,phone}'::text[]) s;
SELECT process();
SELECT * FROM life;
SELECT brought('crm', '{"nickname": "Dee"}', 1, sighted => 6), said('mkt', '{"nickname": "Deedee"}', 6), said('phone', '{"note": "x"}', 6, 'patch');
SELECT process();
SELECT * FROM life;
-- what its source says itself to be deleted is, until it is seen later
SELECT said('crm', NULL, 5, 'delete', seq => 1), said('mkt', NULL, 7, 'delete');
SELECT process();
SELECT * FROM life;
CALL forget();

-- an empty snapshot of all clears all: that is content, not absence
SELECT said('crm', '{"nickname": "Dee", "emails": ["a@x.org"], "metadata": {"k": 1}}', 1);
SELECT said('crm', '{}', 2);
SELECT process();
SELECT alive, state::jsonb - '_provenance' AS state, contact_provenance(state) AS provenance FROM records;
SELECT field, value, claim, verdict, changed_at FROM explain((SELECT id FROM directory)) WHERE claim = 'cleared' AND changed_at > '-infinity' ORDER BY 1;
-- and so it starts afresh where a bare undelete would give back
SELECT said('crm', NULL, 3, 'delete'), said('crm', '{}', 4, 'undelete', coverage => '{note}');
SELECT process();
SELECT alive, state::jsonb - '_provenance' AS state FROM records;
CALL forget();

-- what is empty, null or not there
SELECT said('crm', '{"nickname": "Dee", "note": "n", "title": "t", "phones": ["+16502530000"]}', 1), said('crm', '{"nickname": "", "note": null, "phones": []}', 2, 'patch');
SELECT process();
SELECT state::jsonb - '_provenance' AS state FROM records;
CALL forget();

-- a source that keeps the history of its fields: since when they have their values takes the place of an estimate
CREATE FUNCTION dated(payload jsonb, at integer, changed jsonb, kind text DEFAULT 'snapshot') RETURNS bigint LANGUAGE sql AS $$
	SELECT contactsync.ingest('crm', 'r', payload, day(at), kind, changed => changed)
$$;
CREATE VIEW dates AS SELECT p.key, p.value ->> 'changed_at' AS changed_at, p.value ->> 'as_of' AS as_of, p.value -> 'flags' ? 'estimate' AS estimate
	FROM contactsync.records r, jsonb_each(contactsync.contact_provenance(r.state)) p WHERE p.key ~ '^(title|note|emails|metadata)' AND r.state::jsonb ? split_part(p.key, ':', 1);
SELECT dated('{"title": "CTO", "note": "a", "emails": ["a@x.org", "b@x.org"], "metadata": {"k": 1, "j": 2}}', 5,
	'{"title": "2025-12-24T12:00:00Z", "note": "2026-02-01", "emails": "2026-01-02 01:00+01", "metadata.k": "2026-01-03"}') > 0;
SELECT process();
SELECT * FROM dates ORDER BY key;
-- it is known as soon as it is said, of the same value; what was witnessed stays so
SELECT dated('{"title": "CTO", "note": "b", "emails": ["a@x.org", "b@x.org"], "metadata": {"k": 1, "j": 2}}', 7,
	'{"title": "2026-01-01", "note": "2026-01-02", "metadata.j": "2026-01-04"}') > 0;
SELECT process();
SELECT * FROM dates ORDER BY key;
SELECT * FROM verify();
-- of one that was said before
SELECT dated('{"title": "CTO", "note": "b"}', 4, '{"title": "2025-11-11"}') > 0;
SELECT process();
SELECT * FROM dates WHERE key = 'title';
-- with another history it is another observation, and with none the one that it always was
SELECT dated('{"title": "CTO", "note": "b"}', 4, '{}') > 0, dated('{"title": "CTO", "note": "b"}', 4, NULL) > 0;
SELECT process();
SELECT count(*), count(changed) FROM observations;
SELECT cardinality(ingest_batch('crm', '[{"source_id": "s", "version": "2026-01-02", "payload": {"title": "x"}, "changed": {"title": "2025-01-01"}},
	{"source_id": "t", "version": "2026-01-02", "payload": {"title": "x"}}]'));
SELECT cardinality(ingest_batch('crm', '[{"source_id": "u", "version": "2026-01-02", "payload": {"title": "x"}, "changed": {"title": "2025-01-01"}, "idempotency_key": "1"}]'));
SELECT process();
SELECT source_id, contact_provenance(state) -> 'title' ->> 'changed_at' AS changed_at FROM records ORDER BY 1;
-- a base knows it
SELECT compact(day(6)) > 0;
SELECT * FROM verify();
SELECT * FROM dates WHERE key IN ('title', 'metadata:k') AND as_of > '2026-01-07' ORDER BY key;

SAVEPOINT s;
\set SHOW_CONTEXT never
SELECT dated('{}', 1, '[]');
ROLLBACK TO s;
SELECT dated('{}', 1, '{"titel": "2026-01-01"}');
ROLLBACK TO s;
SELECT dated('{}', 1, '{"title": "yesterdayish"}');
ROLLBACK TO s;
SELECT dated('{}', 1, '{"title": 1}');
ROLLBACK TO s;
SELECT ingest_batch('crm', '[{"source_id": "u", "version": "2026-01-02", "payload": {}, "changed": {"title": "infinity"}}]');
ROLLBACK;
