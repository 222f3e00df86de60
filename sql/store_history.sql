-- changes() and contact_as_of(): what changed, and what was.
\set VERBOSITY terse
SET client_min_messages = warning;
SET search_path = contactsync, public, pg_catalog;
SELECT count(add_source(s, 'canonical')) FROM unnest(ARRAY['ha', 'hb', 'hc']) s;
SELECT coalesce((SELECT c.token FROM changes(max => 1000000) WITH ORDINALITY c ORDER BY c.ordinality DESC LIMIT 1), '0:00000000-0000-0000-0000-000000000000') AS token \gset
CREATE TEMP TABLE times (what text PRIMARY KEY, at timestamptz);
CREATE PROCEDURE pg_temp.mark(what text) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO times VALUES (what, clock_timestamp());
END $$;
CREATE FUNCTION pg_temp.who(text) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce((SELECT source || source_id FROM contactsync.contact_aliases a JOIN contactsync.records r ON r.id = a.record_id WHERE a.id = $1::uuid), '-')
$$;
CREATE FUNCTION pg_temp.at(text) RETURNS timestamptz LANGUAGE sql AS 'SELECT at FROM times WHERE what = $1';

CALL pg_temp.mark('before');
SELECT count(ingest('ha', '1', '{"last_name": "Hill", "first_name": "Ann", "note": "one", "emails": ["ann@h.org"], "metadata": {"a": {"b": null}}}', '2026-01-01')),
	count(ingest('hb', '1', '{"last_name": "Hill", "title": "CTO", "emails": ["ann@i.org"]}', '2026-01-02')), process();
SELECT contact_id AS a FROM records WHERE source = 'ha' \gset
SELECT contact_id AS b FROM records WHERE source = 'hb' \gset
CALL pg_temp.mark('two');
SELECT operation, pg_temp.who(id::text), contact ->> 'note' AS note, version FROM changes(:'token') ORDER BY 2;
-- a page at a time, within one generation too
SELECT token AS page FROM changes(:'token', 1) \gset
SELECT count(*), bool_and(token > :'page') AS later FROM changes(:'page', 1);
SELECT count(*) FROM changes(:'token', 0);
SELECT token FROM changes(:'token') OFFSET 1 \gset
SELECT count(*) FROM changes(:'token');
-- what leaves the content as it was is no change
SELECT count(ingest('ha', '1', '{"last_name": "Hill", "first_name": "Ann", "note": "one", "emails": ["ann@h.org"], "metadata": {"a": {"b": null}}}', '2026-01-05')), process();
SELECT count(*) FROM changes(:'token');
SELECT count(ingest('ha', '1', '{"note": "two"}', '2026-02-01', 'patch')), process();
CALL pg_temp.mark('edited');
SELECT operation, pg_temp.who(id::text), contact ->> 'note' AS note, version FROM changes(:'token') ORDER BY 2;
-- merged away: the survivor's change and the other's end
SELECT count(ingest('hc', '1', '{"last_name": "Hill", "emails": ["ann@h.org", "ann@i.org"]}', '2026-03-01')), process();
CALL pg_temp.mark('merged');
SELECT operation, pg_temp.who(id::text), merged_into = :'a' AS into_a, contact ->> 'title' AS title, contact IS NULL AS gone FROM changes(:'token') ORDER BY 2;
SELECT event, contact_id = :'b' AS b, other_id = :'a' AS a FROM contact_events WHERE contact_id IN (:'a', :'b');
SELECT count(ingest('ha', '1', NULL, '2026-04-01', 'delete')), count(ingest('hb', '1', NULL, '2026-04-01', 'delete')), count(ingest('hc', '1', NULL, '2026-04-01', 'delete')), process();
CALL pg_temp.mark('dead');
SELECT operation, pg_temp.who(id::text), merged_into = :'a' AS into_a, contact IS NULL AS gone FROM changes(:'token') ORDER BY 1;
SELECT count(ingest('ha', '1', '{"last_name": "Hill", "first_name": "Ann"}', '2026-05-02', created => '2026-05-01')), process();

-- as of: backwards through all of it
SELECT t.what, contact_as_of(:'a', t.at) AS a, contact_as_of(:'b', t.at) AS b FROM times t ORDER BY t.at;
SELECT contact_as_of(:'a', now() + interval '1 day') = contact AS now FROM contacts WHERE id = :'a';
SELECT contact_as_of(gen_random_uuid(), now()) IS NULL AS unknown, contact_as_of(:'a', NULL) IS NULL AS "null";
-- what an erasure takes out of the log is gone from the past
BEGIN;
UPDATE audit_log SET changed = jsonb_set(changed, '{note}', '{"old": null, "new": null}') WHERE row_key = :'a' AND changed ? 'note';
SELECT contact_as_of(:'a', pg_temp.at('two')) ->> 'note' AS note, contact_as_of(:'a', pg_temp.at('two')) ->> 'first_name' AS first_name;
ROLLBACK;
-- further back than the log: no guess
BEGIN;
UPDATE contact_aliases SET minted_at = '2001-01-01' WHERE id = :'a';
\set VERBOSITY sqlstate
SELECT contact_as_of(:'a', '2002-01-01');
ROLLBACK;
-- not a token; one from elsewhere
SELECT * FROM changes('yesterday');
SELECT * FROM changes('999999999999:00000000-0000-0000-0000-000000000000');
SELECT * FROM changes(NULL, -1);
\set VERBOSITY terse

-- another tenant has a feed and a past of its own
CREATE ROLE cs_history_b;
SELECT add_tenant('history_b', 'cs_history_b');
CREATE ROLE cs_history_user IN ROLE contactsync_app, cs_history_b;
SET ROLE cs_history_user;
SELECT count(*) > 0 AS own FROM changes();
SET contactsync.tenant = 'history_b';
SELECT count(*) FROM changes();
SELECT contact_as_of(:'a', now()) IS NULL AS hidden;
SET search_path = pg_catalog;
SELECT count(*) FROM contactsync.changes();
RESET contactsync.tenant;
SELECT contactsync.contact_as_of(:'a', now()) IS NULL AS hidden;
RESET ROLE;
SELECT contactsync.drop_tenant('history_b');
DROP ROLE cs_history_user, cs_history_b;
