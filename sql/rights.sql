-- What is not for a caller is refused, whatever arguments it is given and wherever its search path leads.
\set VERBOSITY terse
CREATE ROLE cs_rights_app IN ROLE contactsync_app;
CREATE ROLE cs_rights_analyst IN ROLE contactsync_analyst;
BEGIN;
SELECT count(contactsync.add_source(s, 'canonical')) FROM unnest(ARRAY['ra', 'rb']) s;
SELECT contactsync.set_policy('note', 'manual_review');
SELECT count(contactsync.ingest(s, '1', jsonb_build_object('note', s, 'emails', ARRAY['r@x.org']), '2026-01-01')) FROM unnest(ARRAY['ra', 'rb']) s;
SELECT contactsync.process();
SELECT count(contactsync.override_field(id, 'emails:s@x.org', '"s@x.org"')) FROM contactsync.directory;

-- what begins with an underscore is for bodies of ours, but for what views and triggers need
SELECT p.oid::regprocedure FROM pg_proc p
WHERE p.pronamespace = 'contactsync'::regnamespace AND p.proname LIKE '\_%'
	AND (has_function_privilege('cs_rights_app', p.oid, 'EXECUTE') OR has_function_privilege('cs_rights_analyst', p.oid, 'EXECUTE'))
ORDER BY p.proname;
-- and then with a body that was parsed at creation, or none in SQL
SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE p.pronamespace = 'contactsync'::regnamespace AND p.proname LIKE '\_%' AND l.lanname <> 'c' AND p.prosqlbody IS NULL AND p.proconfig IS NULL
	AND p.oid <> 'contactsync._remark(jsonb, jsonb)'::regprocedure -- called under the trigger's search path
	AND (has_function_privilege('cs_rights_app', p.oid, 'EXECUTE') OR has_function_privilege('cs_rights_analyst', p.oid, 'EXECUTE'));

-- operators of somebody else's are not called by views
CREATE SCHEMA evil;
GRANT USAGE ON SCHEMA evil TO PUBLIC;
CREATE FUNCTION evil.eq(text, text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE NOTICE 'called by %', current_user; RETURN true; END$$;
CREATE FUNCTION evil.cat(text, text) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE NOTICE 'called by %', current_user; RETURN 'evil'; END$$;
CREATE FUNCTION evil.has(jsonb, text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE NOTICE 'called by %', current_user; RETURN true; END$$;
CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq);
CREATE OPERATOR evil.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.cat);
CREATE OPERATOR evil.? (LEFTARG = jsonb, RIGHTARG = text, FUNCTION = evil.has);
SET LOCAL search_path = evil, pg_catalog;
SET LOCAL ROLE cs_rights_analyst;
SELECT field, candidates FROM contactsync.conflict_queue;
SELECT field, value FROM contactsync.overrides;
SELECT field, state, conflicts FROM contactsync.conflict_counts;
SELECT count(*) FROM contactsync.what_if_conflicts('{"note": "last_write_wins"}');
RESET ROLE;
RESET search_path;

-- what edits of the directory go through
SET LOCAL ROLE cs_rights_app;
\set ON_ERROR_STOP 0
SAVEPOINT s;
SELECT contactsync._cell(NULL, 'note', 'null');
ROLLBACK TO s;
SELECT contactsync._edit(NULL, NULL, NULL, NULL, NULL);
ROLLBACK TO s;
SELECT contactsync._edit('MERGE', id, version, contact, '{"note": "x"}') FROM contactsync.directory;
ROLLBACK TO s;
SELECT contactsync._edit('UPDATE', gen_random_uuid(), NULL, NULL, '{"note": "x"}');
ROLLBACK TO s;
SELECT contactsync._edit('DELETE', NULL, NULL, NULL, NULL);
ROLLBACK TO s;
SELECT contactsync._edit('INSERT', NULL, NULL, NULL, NULL);
ROLLBACK TO s;
-- nothing is no contact
SELECT * FROM contactsync.explain(NULL, NULL);
ROLLBACK TO s;
SELECT count(*) FROM contactsync.find(NULL);
SELECT contactsync.current_contact(NULL), contactsync.contact_as_of(NULL, NULL);
SELECT contactsync.split_contact(NULL, NULL);
ROLLBACK TO s;
SELECT contactsync.link_records(NULL, NULL);
ROLLBACK TO s;
SELECT contactsync.undo(NULL);
ROLLBACK TO s;
\set VERBOSITY sqlstate
SELECT contactsync.resolve_conflict(min(id), -2147483648) FROM contactsync.conflicts;
\set VERBOSITY terse
ROLLBACK TO s;
\set ON_ERROR_STOP 1
RESET ROLE;
-- whoever may call what, with nothing at all: an error or an answer, and a server that lives
DO $$
DECLARE
	f record;
BEGIN
	FOR f IN SELECT p.oid, p.proname, (SELECT pg_catalog.string_agg('NULL::' || pg_catalog.format_type(t, NULL), ', ' ORDER BY i)
				FROM pg_catalog.unnest(p.proargtypes::oid[]) WITH ORDINALITY a (t, i)) AS args
		FROM pg_proc p WHERE p.pronamespace = 'contactsync'::regnamespace AND p.prokind = 'f' AND NOT p.proisstrict
			AND 'internal'::regtype <> ALL (p.proargtypes::oid[]) AND p.prorettype <> 'trigger'::regtype
	LOOP
		BEGIN
			EXECUTE format('SELECT count(*) FROM contactsync.%I(%s) x', f.proname, f.args);
			RAISE division_by_zero; -- and undone
		EXCEPTION WHEN OTHERS THEN
			NULL;
		END;
	END LOOP;
END
$$;
SELECT * FROM contactsync.verify();
ROLLBACK;
DROP ROLE cs_rights_app, cs_rights_analyst;
