-- Rows go through the access methods where nobody could tell the difference, and through statements where
-- somebody could: a trigger fires, and the state is the same.
\set VERBOSITY terse
SET client_min_messages = warning;
SET search_path = public, contactsync;
CREATE FUNCTION play() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	state text;
BEGIN
	TRUNCATE contactsync.sources, contactsync.inbox, contactsync.records, contactsync.observations, contactsync.contacts, contactsync.identities,
		contactsync.contact_aliases, contactsync.conflicts, contactsync.decisions, contactsync.decision_records, contactsync.policies,
		contactsync.identity_policies, contactsync.generic_keys, contactsync.refused_links, contactsync.audit_log, contactsync.source_counts;
	PERFORM contactsync.add_source(s, 'canonical') FROM unnest(ARRAY['crm', 'mkt']) s;
	PERFORM contactsync.set_policy('note', 'manual_review');
	PERFORM contactsync.ingest(s, i::text, jsonb_build_object('first_name', 'F', 'last_name', 'L' || i / 2, 'note', s || i,
		'emails', ARRAY['p' || i / 2 || '@x.example']), '2026-01-01')
	FROM unnest(ARRAY['crm', 'mkt']) s, generate_series(1, 20) i;
	PERFORM contactsync.process();
	-- changes, the same again, earlier ones, deletes, and what cannot be read
	PERFORM contactsync.ingest('crm', i::text, jsonb_build_object('title', 'T' || i), '2026-01-02', 'patch') FROM generate_series(1, 10) i;
	PERFORM contactsync.ingest('mkt', i::text, jsonb_build_object('first_name', 'F', 'last_name', 'L' || i / 2, 'note', 'mkt' || i,
		'emails', ARRAY['p' || i / 2 || '@x.example']), '2026-01-01') FROM generate_series(1, 20) i;
	PERFORM contactsync.ingest('crm', i::text, '{"title": "early", "phones": ["+4915112345678"]}', '2025-12-01', 'patch') FROM generate_series(5, 8) i;
	PERFORM contactsync.ingest('mkt', i::text, NULL, '2026-01-03', 'delete') FROM generate_series(1, 3) i;
	PERFORM contactsync.ingest('mkt', '99', '[]', '2026-01-03');
	PERFORM contactsync.process();
	SELECT string_agg(x::text, e'\n' ORDER BY x::text) INTO state FROM (
		SELECT 'contact', c.contact::text, c.live::text, c.version::text, c.modified_by, (SELECT string_agg(r.source || r.source_id, ',' ORDER BY r.source, r.source_id)
			FROM contactsync.records r WHERE r.contact_id = c.id) FROM contactsync.contacts c
		UNION ALL SELECT 'record', r.source, r.source_id, r.state::text, r.alive::text, r.names::text FROM contactsync.records r
		UNION ALL SELECT 'observation', o.digest::text, o.kind, o.claims::text, o.covers::text, o.payload::text FROM contactsync.observations o
		UNION ALL SELECT 'identity', i.key, count(*)::text, min(i.first_version)::text, '', '' FROM contactsync.identities i GROUP BY i.key
		UNION ALL SELECT 'conflict', k.field, k.state, k.candidates::text, '', '' FROM contactsync.conflicts k
		UNION ALL SELECT 'audit', a.operation, a.changed::text, a.cause, a.relation, a.session_role || a."current_role" FROM contactsync.audit_log a
		UNION ALL SELECT 'inbox', i.source_id, i.error_code, i.error, '', '' FROM contactsync.inbox i) x;
	RETURN state;
END
$$;
BEGIN;
SELECT play() AS direct \gset
SELECT count(*) AS contacts, sum(version) AS versions FROM contacts;
SELECT * FROM verify();
ROLLBACK;
-- triggers for what is written, rules for what is read as well
BEGIN;
CREATE TABLE fired (relation text, operation text, of text);
CREATE FUNCTION note_firing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.fired VALUES (TG_TABLE_NAME, TG_OP, TG_LEVEL);
	RETURN NULL;
END
$$;
GRANT INSERT ON fired TO contactsync_owner;
SELECT format('CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON contactsync.%I FOR EACH %s EXECUTE FUNCTION public.note_firing()', t,
	CASE WHEN t IN ('contacts', 'inbox') THEN 'ROW' ELSE 'STATEMENT' END)
FROM unnest(ARRAY['records', 'observations', 'identities', 'contact_aliases', 'contacts', 'inbox']) t \gexec
SELECT play() = :'direct' AS same;
SELECT relation, operation, of, CASE WHEN of = 'ROW' THEN count(*) END AS rows FROM fired WHERE relation <> 'inbox' OR operation = 'DELETE' GROUP BY 1, 2, 3 ORDER BY 1, 2;
ROLLBACK;
BEGIN;
SELECT format('CREATE RULE nothing AS ON DELETE TO contactsync.%I DO ALSO NOTHING', t)
FROM unnest(ARRAY['records', 'observations', 'identities', 'contacts', 'conflicts', 'decision_records']) t \gexec
SELECT play() = :'direct' AS same;
SELECT * FROM verify();
ROLLBACK;
DROP FUNCTION play();
