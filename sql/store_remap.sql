-- remap(): what was said, read by a corrected mapping.
\set VERBOSITY terse
SET client_min_messages = notice;
BEGIN;
SET LOCAL search_path = contactsync, public, pg_catalog;
SET LOCAL TimeZone = 'UTC';
CREATE ROLE cs_remap;
SELECT add_tenant('remap', 'cs_remap');
SET LOCAL contactsync.tenant = 'remap';
SELECT add_connector('m', '{"driver": "canonical", "map": {"first_name": "$.first", "last_name": "$.last", "company": "$.title", "emails": ["$.mail"]}}');
SELECT add_source('mapped', 'm') > 0 AS ok, add_source('other', 'canonical') > 0 AS ok;
SELECT count(ingest('mapped', i::text, p, t::timestamptz, k)) FROM (VALUES
	(1, '{"first": "Ann", "last": "Lee", "title": "CTO", "mail": "ann@m.org", "work": "ann@work.org"}'::jsonb, '2026-01-01', 'snapshot'),
	(1, '{"title": "CEO"}', '2026-01-02', 'patch'),
	(2, '{"first": "Bob", "last": "Roe", "mail": "bob@m.org", "firm": "Acme"}', '2026-01-01', 'snapshot'),
	(2, NULL, '2026-01-03', 'delete'), (2, NULL, '2026-01-04', 'undelete')) v (i, p, t, k);
SELECT count(ingest('other', '1', '{"last_name": "Lee", "first_name": "Ann", "emails": ["ann@work.org"]}', '2026-01-01')), process();
SELECT first_name, company, title, emails, jsonb_array_length(sources) AS sources FROM directory ORDER BY first_name, source;
-- nothing to be done while the mapping is what it was
SELECT remap('mapped'), remap('other');
-- corrected: the title is a title, the firm the company, and there is one address more
SELECT add_connector('m', '{"driver": "canonical", "map": {"first_name": "$.first", "last_name": "$.last", "title": "$.title", "company": "$.firm", "emails": ["$.mail", "$.work"]}}');
SELECT remap('mapped');
SELECT first_name, company, title, emails, jsonb_array_length(sources) AS sources FROM directory ORDER BY first_name, source;
SELECT DISTINCT operation, cause, changed -> 'title' AS title FROM audit_log WHERE tenant_id = 'remap' AND cause = 'remap' ORDER BY 1;
SELECT remap('mapped') AS again;
SELECT count(*) AS sound FROM verify();
-- the same delivered again is known, as before
SELECT ingest('mapped', '1', '{"first": "Ann", "last": "Lee", "title": "CTO", "mail": "ann@m.org", "work": "ann@work.org"}', '2026-01-01') > 0 AS ok, process();
SELECT source_id, same_version_conflicts FROM records WHERE tenant_id = 'remap' AND source = 'mapped' ORDER BY source_id;
SELECT count(*) FROM observations WHERE tenant_id = 'remap';
-- delivered again before remap(): two of one version, until it makes them one
SELECT add_connector('m', '{"driver": "canonical", "map": {"first_name": "$.first", "last_name": "$.last", "title": "$.title", "company": "$.firm", "note": "$.last", "emails": ["$.mail", "$.work"]}}');
SELECT ingest('mapped', '1', '{"first": "Ann", "last": "Lee", "title": "CTO", "mail": "ann@m.org", "work": "ann@work.org"}', '2026-01-01') > 0 AS ok, process();
SELECT same_version_conflicts FROM records WHERE tenant_id = 'remap' AND source = 'mapped' AND source_id = '1';
SELECT remap('mapped');
SELECT same_version_conflicts FROM records WHERE tenant_id = 'remap' AND source = 'mapped' AND source_id = '1';
SELECT first_name, note FROM directory ORDER BY first_name;
SELECT count(*) FROM observations WHERE tenant_id = 'remap';
-- evidence that only the former mapping saw is evidence no more
SELECT add_connector('m', '{"driver": "canonical", "map": {"first_name": "$.first", "last_name": "$.last", "title": "$.title", "company": "$.firm", "emails": ["$.mail"]}}');
SELECT remap('mapped');
SELECT first_name, emails, jsonb_array_length(sources) AS sources FROM directory ORDER BY first_name, source;
SELECT count(*) AS sound FROM verify();
-- the coverage that a snapshot was sent with holds under any mapping
SELECT ingest('mapped', '3', '{"first": "Cy", "title": "CFO"}', '2026-01-01', coverage => '{first_name,title}') > 0 AS ok, process();
SELECT add_connector('m', '{"driver": "canonical", "map": {"first_name": "$.first", "last_name": "$.last", "title": "$.title", "emails": ["$.mail"]}}');
SELECT remap('mapped');
SELECT covers FROM observations WHERE tenant_id = 'remap' AND record_id = (SELECT id FROM records WHERE tenant_id = 'remap' AND source_id = '3');
-- what the mapping cannot read keeps its claims, and a payload that is gone cannot be read
UPDATE observations SET payload = NULL WHERE tenant_id = 'remap' AND record_id = (SELECT id FROM records WHERE tenant_id = 'remap' AND source_id = '2') AND kind = 'snapshot';
ALTER SEQUENCE observations_id_seq RESTART 900001;
SELECT ingest('mapped', '4', '{"first": "Dee", "title": "CIO"}', '2026-01-01', coverage => '{first_name,title}') > 0 AS ok, process();
SELECT add_connector('m', '{"driver": "canonical", "map": {"first_name": "$.first", "last_name": "$.first", "title": "$.title", "emails": ["$.mail"]}}');
UPDATE observations SET id = 900000 WHERE tenant_id = 'remap' AND payload ->> 'first' = 'Cy';
SELECT remap('mapped');
SELECT first_name, last_name, title FROM directory ORDER BY first_name, source;
ROLLBACK;
\set VERBOSITY sqlstate
SELECT contactsync.remap('nobody');
SET ROLE contactsync_app;
SELECT contactsync.remap('nobody');
RESET ROLE;
