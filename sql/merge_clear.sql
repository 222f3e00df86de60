-- What it means that a source empties a field.  One transaction, rolled back.
BEGIN;
TRUNCATE contactsync.sources, contactsync.inbox, contactsync.records, contactsync.observations, contactsync.contacts,
	contactsync.identities, contactsync.contact_aliases, contactsync.conflicts, contactsync.decisions, contactsync.policies;
SET search_path = contactsync, public;
SET TimeZone = 'UTC';

SELECT count(add_source(s, 'canonical', jsonb_build_object('class', c))) FROM (VALUES ('crm', 'office'), ('mkt', 'office'), ('phone', 'device')) v (s, c);
CREATE FUNCTION said(source text, payload jsonb, day integer) RETURNS void LANGUAGE sql AS $$
	SELECT contactsync.ingest(source, 'r', payload || CASE WHEN payload ? 'emails' THEN '{}' ELSE '{"emails": {"add": ["a@x.org"]}}' END::jsonb,
		'2026-01-01'::timestamptz + day * interval '1 day', 'patch')
$$;
CREATE PROCEDURE forget() LANGUAGE sql AS $$
	TRUNCATE contactsync.inbox, contactsync.records, contactsync.observations, contactsync.contacts, contactsync.identities,
		contactsync.contact_aliases, contactsync.conflicts, contactsync.decisions, contactsync.policies
$$;
CREATE FUNCTION by_clear(target text, shown text) RETURNS TABLE (clear text, value text, conflicts bigint) LANGUAGE plpgsql AS $$
DECLARE
	means jsonb;
BEGIN
	FOREACH means IN ARRAY ARRAY['"withdraw"', '"authoritative"', '"ignore"', '"review"',
			'{"crm": "authoritative"}', '{"office": "ignore"}', '{"office": "ignore", "crm": "review"}', '{"device": "authoritative"}']::jsonb[] LOOP
		IF target IN ('emails', 'phones', 'tags') AND means::text LIKE '%review%' THEN
			CONTINUE;
		END IF;
		PERFORM contactsync.set_policy(target, CASE WHEN target IN ('tags', 'metadata') THEN 'union' ELSE 'last_write_wins' END,
			options => jsonb_build_object('clear', means)), contactsync.process();
		EXECUTE format('SELECT (%s)::text, open_conflicts FROM contactsync.directory', shown) INTO value, conflicts;
		clear := means;
		RETURN NEXT;
	END LOOP;
	PERFORM contactsync.unset_policy(target), contactsync.process();
END
$$;

-- a single value: the source that had the latest has emptied it since
SELECT said('phone', '{"note": "phone"}', 1), said('crm', '{"note": "crm"}', 2), said('crm', '{"note": null}', 3);
SELECT process();
SELECT * FROM by_clear('note', 'note');
-- what it said comes after counts again
SELECT said('phone', '{"note": "phone again"}', 4), process();
SELECT * FROM by_clear('note', 'note');
CALL forget();

-- a source that never had a value has nothing to be ignored
SELECT said('phone', '{"note": "phone"}', 1), said('crm', '{"note": null}', 2);
SELECT process();
SELECT * FROM by_clear('note', 'note');
CALL forget();

-- a group is cleared when its lead is, and nothing of it is left
SELECT said('phone', '{"company": "Home", "title": "Dad"}', 1), said('crm', '{"company": "Acme", "title": "CTO"}', 2), said('crm', '{"company": null}', 3);
SELECT process();
SELECT * FROM by_clear('job', $$concat_ws('/', company, title)$$);
SELECT said('crm', '{"title": null}', 4), process();
SELECT * FROM by_clear('job', $$concat_ws('/', company, title)$$);
CALL forget();

-- metadata, key by key
SELECT said('phone', '{"metadata": {"k": "phone", "j": 1}}', 1), said('crm', '{"metadata": {"k": "crm"}}', 2), said('crm', '{"metadata": {"k": null}}', 3);
SELECT process();
SELECT * FROM by_clear('metadata', 'metadata');
CALL forget();

-- a list: one element is taken out, then all
SELECT said('phone', '{"tags": ["a", "b"]}', 1), said('crm', '{"tags": ["a", "c"]}', 2), said('crm', '{"tags": ["c"]}', 3);
SELECT process();
SELECT * FROM by_clear('tags', 'tags');
SELECT said('crm', '{"tags": null}', 4), process();
SELECT * FROM by_clear('tags', 'tags');
SELECT set_policy('tags', 'source_priority', '{crm,phone}', '{"clear": "authoritative"}'), process();
SELECT tags FROM directory;
SELECT source, value, verdict, claim FROM explain((SELECT id FROM directory), 'tags') WHERE field = 'tags:c';
SELECT set_policy('tags', 'source_priority', '{crm,phone}', '{"clear": {"crm": "ignore"}}'), process();
SELECT tags FROM directory;
CALL forget();

-- a question about a clear is settled like any other, until something new is said
SELECT set_policy('note', 'last_write_wins', options => '{"clear": "review"}');
SELECT said('crm', '{"note": "crm"}', 2), said('crm', '{"note": null}', 3);
SELECT process();
SELECT note FROM directory;
SELECT state, c ->> 'candidate' AS candidate, c -> 'value' AS value, c ->> 'source' AS source FROM conflicts, jsonb_array_elements(candidates) c;
SELECT resolve_conflict(id, 2) FROM conflicts;
SELECT note, open_conflicts FROM directory;
SELECT source, value, verdict, claim FROM explain((SELECT id FROM directory), 'note');
SELECT ingest('crm', 'r', '{"note": "new"}', now(), 'patch') > 0 AS said, process();
SELECT note, open_conflicts FROM directory;
SELECT state, reason, c ->> 'candidate' AS candidate, c -> 'value' AS value, c ->> 'source' AS source FROM conflicts, jsonb_array_elements(candidates) c;
CALL forget();
-- under manual_review an authoritative clear is a candidate
SELECT set_policy('note', 'manual_review', options => '{"clear": "authoritative"}');
SELECT said('phone', '{"note": "same"}', 1), said('crm', '{"note": "same"}', 2), said('crm', '{"note": null}', 3), process();
SELECT note, open_conflicts FROM directory;
SELECT c ->> 'candidate' AS candidate, c -> 'value' AS value, c ->> 'source' AS source FROM conflicts, jsonb_array_elements(candidates) c;
CALL forget();

-- what was last there is forgotten with the record's life
SELECT set_policy('note', 'last_write_wins', options => '{"clear": "ignore"}');
SELECT said('crm', '{"note": "old", "nickname": "Al"}', 1), said('crm', '{"note": null}', 2), process();
SELECT note, nickname FROM directory;
SELECT ingest('crm', 'r', NULL, '2026-01-10', 'delete') > 0 AS deleted, ingest('crm', 'r', '{"nickname": "Bo", "emails": ["a@x.org"]}', '2026-01-11', 'undelete') > 0 AS undeleted, process();
SELECT note, nickname FROM directory;
CALL forget();

-- a key that is not there when a snapshot speaks of it for the first time is no news
SELECT set_policy('metadata', 'union', options => '{"clear": {"crm": "authoritative"}}');
SELECT said('phone', '{"metadata": {"k": 1}}', 6), said('crm', '{}', 2),
	ingest('crm', 'r', '{"title": "T"}', '2026-01-09', coverage => '{title,metadata.k}', created => '2026-01-01') > 0 AS shown, process();
SELECT metadata FROM directory;
SELECT source, value, changed_at, estimate, verdict FROM explain((SELECT id FROM directory), 'metadata.k');
SELECT * FROM verify();
CALL forget();

-- what settled the question about a clear stands until something new is said; an override is asked about when its source withdraws, if the rule asks that source
SELECT set_policy('metadata', 'last_write_wins', options => '{"clear": "review"}');
SELECT said('crm', '{"metadata": {"k": 1}}', 1), said('mkt', '{"metadata": {"k": null}}', 2), process();
SELECT resolve_conflict(id, candidate => (SELECT (c ->> 'candidate')::integer FROM jsonb_array_elements(candidates) c WHERE c -> 'value' = '{}')) FROM conflicts WHERE state = 'open';
SELECT metadata, open_conflicts FROM directory;
SELECT said('phone', '{"metadata": {"k": 2}}', 5), process();
SELECT metadata, open_conflicts FROM directory;
CALL forget();
SELECT set_policy('note', 'last_write_wins', '{crm}', options => '{"only": true}');
SELECT said('crm', '{"note": "a"}', 1), said('phone', '{"note": "b"}', 1), process();
SELECT override_field((SELECT id FROM directory), 'note', '"c"') IS NOT NULL AS overridden;
SELECT ingest('phone', 'r', '{"note": null}', clock_timestamp() + interval '1 second', 'patch') > 0 AS said, process();
SELECT note, open_conflicts FROM directory;
SELECT ingest('crm', 'r', '{"note": null}', clock_timestamp() + interval '2 seconds', 'patch') > 0 AS said, process();
SELECT note, open_conflicts FROM directory;

\set VERBOSITY terse
SAVEPOINT s;
SELECT set_policy('note', 'last_write_wins', options => '{"clear": {"nobody": "ignore"}}');
SELECT set_policy('tags', 'union', options => '{"clear": {"crm": "review"}}');
ROLLBACK TO s;
SELECT set_policy('emails.primary', 'oldest', options => '{"clear": "ignore"}');
ROLLBACK TO s;
SELECT set_policy('note', 'oldest', options => '{"clear": "forget"}');
ROLLBACK TO s;
SELECT set_policy('note', 'oldest', options => '{"clear": {"crm": true}}');
ROLLBACK;
