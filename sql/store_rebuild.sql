-- rebuild() and verify(): whatever is tampered with is found, and put right.
\set VERBOSITY terse
SET client_min_messages = warning;
BEGIN;
SET LOCAL search_path = contactsync, public, pg_catalog;
-- apart from what the other tests have left
CREATE ROLE cs_rebuild_a;
SELECT add_tenant('rebuild_a', 'cs_rebuild_a');
SET LOCAL contactsync.tenant = 'rebuild_a';
SELECT count(add_source(s, 'canonical')) FROM unnest(ARRAY['ra', 'rb', 'rc']) s;
SELECT set_policy('note', 'manual_review');
SELECT count(ingest('ra', '1', '{"last_name": "Hill", "first_name": "Ann", "note": "x", "emails": ["ann@r.org"]}', '2026-01-01')),
	count(ingest('rb', '1', '{"last_name": "Hill", "note": "y", "emails": ["ann@r.org", "ah@r.org"], "phones": ["+16502530000"]}', '2026-01-02')),
	count(ingest('rc', '1', '{"last_name": "Hill", "emails": ["ah@r.org"]}', '2026-01-03')),
	count(ingest('ra', '2', '{"last_name": "Roe", "first_name": "Bob", "emails": ["bob@r.org"]}', '2026-01-01')),
	count(ingest('rb', '2', '{"last_name": "Roe", "title": "CTO", "emails": ["bob@r.org"]}', '2026-01-02')),
	count(ingest('rc', '3', '{"last_name": "Gone", "emails": ["gone@r.org"]}', '2026-01-02')),
	count(ingest('rc', '3', NULL, '2026-01-03', 'delete')), process();
SELECT contact_id AS ann FROM records WHERE source = 'ra' AND source_id = '1' \gset
SELECT contact_id AS bob FROM records WHERE source = 'ra' AND source_id = '2' \gset
SELECT id AS rec FROM records WHERE source = 'rb' AND source_id = '1' \gset
SELECT count(*) AS sound FROM verify();
CREATE FUNCTION pg_temp.who(uuid) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce((SELECT string_agg(r.source || r.source_id, ' ' ORDER BY r.source, r.source_id) FROM contactsync.records r WHERE r.contact_id = $1), '-')
$$;
-- ids are not the same in each run
CREATE FUNCTION pg_temp.mask(text) RETURNS text LANGUAGE sql AS $$
	SELECT regexp_replace(regexp_replace($1, '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', '<id>', 'g'), '(decision:|"undone_by": |^)[0-9]+', '\1<n>', 'g')
$$;
-- tamper, see it, repair it, see nothing, and find the contacts as they were
CREATE TABLE pg_temp.before AS SELECT (SELECT array_agg((c.contact::text, c.live, pg_temp.who(c.id))::text ORDER BY pg_temp.who(c.id)) FROM contacts c WHERE c.tenant_id = 'rebuild_a')
	|| (SELECT array_agg((k.field, k.state, k.seen)::text ORDER BY k.field) FROM conflicts k WHERE k.tenant_id = 'rebuild_a' AND k.state <> 'superseded')
	|| (SELECT array_agg((i.key, i.record_id, i.first_version)::text ORDER BY i.key, i.record_id) FROM identities i WHERE i.tenant_id = 'rebuild_a') AS content;
CREATE PROCEDURE pg_temp.tamper(sql text) LANGUAGE plpgsql AS $$
DECLARE
	r record;
BEGIN
	BEGIN
		EXECUTE sql;
		FOR r IN SELECT v.problem, count(*) AS n FROM contactsync.verify() v GROUP BY v.problem ORDER BY v.problem LOOP
			RAISE INFO '  %', pg_temp.mask(r.problem);
		END LOOP;
		FOR r IN SELECT b.field, b.stored, b.computed FROM contactsync.rebuild() b ORDER BY b.field LOOP
			RAISE INFO '    %: % -> %', pg_temp.mask(r.field), left(pg_temp.mask(r.stored::text), 60), left(pg_temp.mask(r.computed::text), 60);
		END LOOP;
		IF (SELECT count(*) FROM contactsync.rebuild()) <> (SELECT count(*) FROM contactsync.rebuild(false)) THEN
			RAISE INFO '  the repair differs from the dry run';
		END IF;
		FOR r IN SELECT v.problem FROM contactsync.verify() v LOOP
			RAISE INFO '  still there: %', r.problem;
		END LOOP;
		IF (SELECT content FROM pg_temp.before) IS DISTINCT FROM
			(SELECT array_agg((c.contact::text, c.live, pg_temp.who(c.id))::text ORDER BY pg_temp.who(c.id)) FROM contactsync.contacts c WHERE c.tenant_id = 'rebuild_a')
			|| (SELECT array_agg((k.field, k.state, k.seen)::text ORDER BY k.field) FROM contactsync.conflicts k WHERE k.tenant_id = 'rebuild_a' AND k.state <> 'superseded')
			|| (SELECT array_agg((i.key, i.record_id, i.first_version)::text ORDER BY i.key, i.record_id) FROM contactsync.identities i WHERE i.tenant_id = 'rebuild_a') THEN
			RAISE INFO '  the repaired state is another';
		END IF;
		RAISE EXCEPTION USING ERRCODE = 'CS000';
	EXCEPTION WHEN SQLSTATE 'CS000' THEN
		NULL;
	END;
END $$;
\set ECHO all
CALL pg_temp.tamper(format('UPDATE contactsync.contacts SET contact = %L WHERE id = %L', '{"last_name": "Evil"}', :'ann'));
CALL pg_temp.tamper(format('UPDATE contactsync.contacts SET contact = (contact::jsonb - %L)::contactsync.contact WHERE id = %L', '_provenance', :'ann'));
CALL pg_temp.tamper(format('UPDATE contactsync.contacts SET live = false WHERE id = %L', :'ann'));
CALL pg_temp.tamper(format('UPDATE contactsync.contacts SET naming_record = NULL WHERE id = %L', :'ann'));
CALL pg_temp.tamper(format('DELETE FROM contactsync.contacts WHERE id = %L', :'ann'));
CALL pg_temp.tamper('DELETE FROM contactsync.contacts WHERE tenant_id = ''rebuild_a'' AND NOT live');
CALL pg_temp.tamper('INSERT INTO contactsync.contacts (id, contact, live, policy_version, last_modified, modified_by) VALUES (gen_random_uuid(), ''{"note": "nobody"}'', true, 1, now(), ''x'')');
CALL pg_temp.tamper(format('UPDATE contactsync.records SET state = %L WHERE id = %s', '{"last_name": "Evil"}', :rec));
CALL pg_temp.tamper(format('UPDATE contactsync.records SET alive = false, deleted_at = ''2026-02-01'' WHERE id = %s', :rec));
CALL pg_temp.tamper(format('UPDATE contactsync.records SET names = %L WHERE id = %s', '{}', :rec));
CALL pg_temp.tamper(format('UPDATE contactsync.records SET contact_id = %L WHERE id = %s', :'bob', :rec));
CALL pg_temp.tamper(format('UPDATE contactsync.records SET contact_id = NULL WHERE id = %s', :rec));
CALL pg_temp.tamper(format('UPDATE contactsync.records SET contact_id = gen_random_uuid() WHERE id = %s', :rec));
CALL pg_temp.tamper(format('UPDATE contactsync.records SET contact_id = %L WHERE contact_id = %L', :'ann', :'bob'));
CALL pg_temp.tamper('DELETE FROM contactsync.identities WHERE key = ''email:ah@r.org''');
CALL pg_temp.tamper(format('INSERT INTO contactsync.identities (key, record_id, first_version) VALUES (%L, %s, ''2026-02-01'')', 'email:other@r.org', :rec));
CALL pg_temp.tamper('UPDATE contactsync.identities SET first_version = first_version + interval ''1 day'' WHERE key = ''email:bob@r.org''');
CALL pg_temp.tamper('DELETE FROM contactsync.conflicts WHERE tenant_id = ''rebuild_a''');
CALL pg_temp.tamper('UPDATE contactsync.conflicts SET state = ''resolved'' WHERE tenant_id = ''rebuild_a''');
CALL pg_temp.tamper('UPDATE contactsync.conflicts SET candidates = ''[]'' WHERE tenant_id = ''rebuild_a''');
CALL pg_temp.tamper(format('INSERT INTO contactsync.conflicts (contact_id, field, state, candidates, seen) VALUES (%L, %L, %L, %L, %L)', :'bob', 'title', 'open', '[]', ''));
CALL pg_temp.tamper('INSERT INTO contactsync.conflicts (contact_id, field, state, candidates, seen) VALUES (gen_random_uuid(), ''title'', ''open'', ''[]'', '''')');
-- a decision that is said to be undone, and is not
SELECT resolve_conflict(id, 1) FROM conflicts WHERE tenant_id = 'rebuild_a' AND state = 'open';
UPDATE pg_temp.before SET content = (SELECT array_agg((c.contact::text, c.live, pg_temp.who(c.id))::text ORDER BY pg_temp.who(c.id)) FROM contacts c WHERE c.tenant_id = 'rebuild_a')
	|| (SELECT array_agg((k.field, k.state, k.seen)::text ORDER BY k.field) FROM conflicts k WHERE k.tenant_id = 'rebuild_a' AND k.state <> 'superseded')
	|| (SELECT array_agg((i.key, i.record_id, i.first_version)::text ORDER BY i.key, i.record_id) FROM identities i WHERE i.tenant_id = 'rebuild_a');
SELECT count(*) AS sound FROM verify();
SELECT max(id) AS decision FROM decisions \gset
CALL pg_temp.tamper(format('UPDATE contactsync.decisions SET undone_by = id WHERE id = %s', :decision));
-- one that is deleted is a fact lost: the state follows
CALL pg_temp.tamper(format('DELETE FROM contactsync.decisions WHERE id = %s', :decision));
-- the same with workers
SET LOCAL min_parallel_table_scan_size = 0;
SELECT count(*) AS sound FROM verify();
UPDATE contacts SET contact = '{"last_name": "Evil"}' WHERE id = :'ann';
SELECT problem FROM verify();
SELECT field, stored, computed FROM rebuild(false) ORDER BY field LIMIT 3;
SELECT count(*) AS sound FROM verify();
SELECT operation, cause, changed -> 'last_name' AS last_name FROM audit_log WHERE row_key = :'ann' ORDER BY id DESC LIMIT 1;

-- in any order
\set VERBOSITY sqlstate
SET LOCAL client_min_messages = notice;
SELECT count(*) FROM selftest_convergence(3);
SET LOCAL client_min_messages = warning;
SELECT * FROM selftest_convergence(1000, 42);
SAVEPOINT s;
SELECT * FROM selftest_convergence(0);
ROLLBACK TO s;
\set VERBOSITY terse
-- what does not fold to what is stored shows here, too
UPDATE records SET state = '{"last_name": "Evil"}' WHERE id = :rec;
SELECT DISTINCT problem FROM selftest_convergence(1000, 42) ORDER BY 1;
SELECT count(*) FROM rebuild(false);

-- a new policy: first what it would do, then what it has left to do, then what it did
SELECT current, proposed FROM what_if('{"note": {"rule": "source_priority", "sources": ["rb"]}}') WHERE field = 'note';
SELECT * FROM what_if_conflicts('{"note": {"rule": "source_priority", "sources": ["rb"]}, "title": {"rule": "manual_review"}}');
SELECT * FROM what_if_conflicts('{"note": {"rule": "manual_review"}, "name": {"rule": "manual_review"}}');
SELECT count(*) FROM what_if(current_policy());
\set VERBOSITY sqlstate
SAVEPOINT s;
SELECT * FROM what_if('{"note": {"rule": "dice"}}');
ROLLBACK TO s;
\set VERBOSITY terse
SELECT set_policy('note', 'source_priority', '{rb}');
SELECT count(*) AS sound FROM verify();
SELECT field FROM rebuild() ORDER BY field;
SELECT count(*) FROM rebuild(false);
SELECT count(*) FROM rebuild();
SELECT process(), count(*) AS sound FROM verify();
ROLLBACK;

-- each tenant for itself, and who may
CREATE ROLE cs_rebuild_b;
SELECT contactsync.add_tenant('rebuild_b', 'cs_rebuild_b');
CREATE ROLE cs_rebuilder IN ROLE contactsync_admin, cs_rebuild_b;
GRANT cs_rebuilder TO CURRENT_USER;
SET ROLE cs_rebuilder;
SET contactsync.tenant = 'rebuild_b';
SELECT contactsync.add_source('x', 'canonical') > 0 AS ok;
SELECT contactsync.ingest('x', '1', '{"last_name": "B"}', '2026-01-01') > 0 AS ok, contactsync.process();
RESET ROLE;
UPDATE contactsync.contacts SET contact = '{"last_name": "C"}' WHERE tenant_id = 'rebuild_b';
SET ROLE cs_rebuilder;
SELECT problem FROM contactsync.verify();
SET min_parallel_table_scan_size = 0;
SELECT problem FROM contactsync.verify();
RESET contactsync.tenant;
SELECT count(*) FROM contactsync.verify() WHERE problem LIKE '%last_name%';
RESET min_parallel_table_scan_size;
SET contactsync.tenant = 'rebuild_b';
SET search_path = pg_temp;
SELECT field, stored, computed FROM contactsync.rebuild(false);
SELECT count(*) FROM contactsync.verify();
-- in a transaction that may not write
BEGIN READ ONLY;
SELECT count(*) FROM contactsync.verify();
COMMIT;
RESET contactsync.tenant;
RESET search_path;
SET ROLE contactsync_app;
SELECT count(*) FROM contactsync.rebuild();
RESET ROLE;
SELECT contactsync.drop_tenant('rebuild_b', true);
DROP ROLE cs_rebuilder, cs_rebuild_b;
